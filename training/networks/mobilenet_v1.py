"""MobileNetV1 (Howard et al. 2017, arXiv 1704.04861): depthwise-separable convolutions, from ``keras.applications``."""

import keras

from edge_app.classification.context import DEFAULT_CONTEXT
from training.networks.enlarge import enlarged
from training.networks.head import finish_network, inputs
from training.networks.library import follow_statistics

__all__ = ["mobilenet_v1"]


def mobilenet_v1(
    *,
    classes: int,
    window_px: int = 64,
    alpha: float = 0.25,
    depth_multiplier: int = 1,
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
    depth_multiplier : int
        Depthwise channels per input channel.
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
    extractor = keras.applications.MobileNet(
        input_tensor=enlarged(crop, enlarge),
        alpha=alpha,
        depth_multiplier=depth_multiplier,
        include_top=False,
        weights=None,
    )
    x = follow_statistics(extractor)
    return finish_network(crop, context_input, x, classes=classes, dropout=dropout, sized=sized, name="mobilenet_v1")
