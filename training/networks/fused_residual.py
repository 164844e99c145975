"""Plain 3x3 convolutions with residuals on a small window at real scale: the default network.

An inverted residual splits a 3x3 convolution into a depthwise and two pointwise ones. That saves multiplications, but
not time where channels are few: on an x86 core the plain int8 convolution runs at several times their rate, as
EfficientNetV2 found of its early ("fused") stages, and it trains three times faster. Figures: docs/classification.md.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from edge_app.classification.context import DEFAULT_CONTEXT
from training.networks.head import finish_network, inputs

__all__ = ["fused_residual", "residual_trunk"]

#: (channels, convolutions, stride of the first) per stage; the stem keeps full resolution for particles of 7 to 20 px.
STAGES = [(32, 3, 2), (64, 3, 2), (96, 3, 2)]


def _convolve(x: Any, filters: int, size: int, stride: int = 1, *, activate: bool = True) -> Any:
    x = layers.Conv2D(filters, size, strides=stride, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.98)(x)
    return layers.ReLU(6.0)(x) if activate else x


def residual_trunk(
    crop: Any, *, alpha: float, stem: int, head: int, stages: Sequence[tuple[int, int, int]] = STAGES
) -> Any:
    """Convolutions from the crop to the last feature map, of ``head`` channels; parameters as in `fused_residual`."""
    x = _convolve(crop, max(8, round(stem * alpha / 8) * 8), 3)
    for filters, convolutions, stride in stages:
        wide = max(8, round(filters * alpha / 8) * 8)
        x = _convolve(x, wide, 3, stride)
        for _ in range(convolutions - 1):
            x = layers.ReLU(6.0)(layers.Add()([x, _convolve(x, wide, 3, activate=False)]))
    return _convolve(x, head, 1)


def fused_residual(
    *,
    classes: int,
    window_px: int = 40,
    alpha: float = 1.0,
    stem: int = 16,
    head: int = 128,
    dropout: float = 0.1,
    context: int = len(DEFAULT_CONTEXT),
    sized: bool = True,
    stages: Sequence[tuple[int, int, int]] = STAGES,
) -> keras.Model:
    """Build the network.

    Parameters
    ----------
    classes : int
    window_px : int
    alpha : float
        Width multiplier.
    stem, head : int
        Channels of the first convolution, and before pooling.
    dropout : float
    context : int
        Columns of the second input.
    sized : bool
        Read true size and depth too.
    stages : sequence of (channels, convolutions, stride)

    Returns
    -------
    keras.Model
    """
    crop, context_input = inputs(window_px, context)
    x = residual_trunk(crop, alpha=alpha, stem=stem, head=head, stages=stages)
    return finish_network(crop, context_input, x, classes=classes, dropout=dropout, sized=sized, name="fused_residual")
