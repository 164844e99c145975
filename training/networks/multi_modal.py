"""The multi-modal network: picture, place in the field, size and shape, and the run's size distribution together."""

from typing import Final

import keras
from keras import layers

from edge_app.classification.context import DEFAULT_CONTEXT, DESCRIPTORS, SIZE_SHARES
from training.networks.fused_residual import residual_trunk
from training.networks.head import finish_network, inputs

__all__ = ["CONTEXT", "multi_modal"]

CONTEXT: Final = (*DEFAULT_CONTEXT, *DESCRIPTORS, *SIZE_SHARES)


def multi_modal(
    *,
    classes: int,
    window_px: int = 40,
    alpha: float = 1.0,
    stem: int = 16,
    head: int = 128,
    units: int = 32,
    dropout: float = 0.1,
    context: int = len(CONTEXT),
    sized: bool = True,
) -> keras.Model:
    """The picture through the trunk of the default network, the numbers through two dense layers; joined before the
    embedding.

    Parameters
    ----------
    classes : int
    window_px : int
    alpha : float
        Width multiplier of the trunk.
    stem, head : int
        Channels of the trunk's first convolution, and before pooling.
    units : int
        Of each dense layer of the numbers' branch.
    dropout : float
    context : int
        Columns of the second input, `CONTEXT`.
    sized : bool
        Read true size and depth and novelty too.

    Returns
    -------
    keras.Model
    """
    crop, context_input = inputs(window_px, context)
    x = residual_trunk(crop, alpha=alpha, stem=stem, head=head)
    numbers = context_input
    for _ in range(2):
        numbers = layers.ReLU(6.0)(layers.Dense(units)(numbers))
    return finish_network(
        crop, context_input, x, classes=classes, dropout=dropout, sized=sized, beside=numbers, name="multi_modal"
    )
