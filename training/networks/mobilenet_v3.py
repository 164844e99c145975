"""MobileNetV3-Small minimalistic (Howard et al. 2019, arXiv 1905.02244), from ``keras.applications``.

Without squeeze-and-excitation, hard swish and 5x5 kernels: the variant that integer hardware runs well.
"""

import keras

from edge_app.classification.context import DEFAULT_CONTEXT
from training.networks.enlarge import enlarged
from training.networks.head import finish_network, inputs
from training.networks.library import follow_statistics

__all__ = ["mobilenet_v3_small"]


def mobilenet_v3_small(
    *,
    classes: int,
    window_px: int = 64,
    alpha: float = 1.0,
    dropout: float = 0.1,
    context: int = len(DEFAULT_CONTEXT),
    sized: bool = True,
    enlarge: int = 1,
) -> keras.Model:
    """Build the network.

    Parameters
    ----------
    classes : int
    window_px : int
        At least 32.
    alpha : float
        Width multiplier; 1 as published.
    dropout : float
    context : int
        Columns of the second input.
    sized : bool
        Read true size and depth and novelty too.
    enlarge : int
        See `training.networks.enlarge`.

    Returns
    -------
    keras.Model
    """
    crop, context_input = inputs(window_px, context)
    extractor = keras.applications.MobileNetV3Small(
        input_tensor=enlarged(crop, enlarge),
        alpha=alpha,
        minimalistic=True,
        include_top=False,
        weights=None,
        include_preprocessing=False,
    )
    x = follow_statistics(extractor)
    return finish_network(
        crop, context_input, x, classes=classes, dropout=dropout, sized=sized, name="mobilenet_v3_small"
    )
