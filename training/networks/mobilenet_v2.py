"""MobileNetV2 (Sandler et al. 2018): inverted residuals, in the published layout and in one for tiny particles."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from edge_app.classification.context import DEFAULT_CONTEXT
from training.networks.enlarge import enlarged
from training.networks.head import finish_network, inputs

__all__ = ["inverted_residuals", "real_scale", "standard"]

#: (expansion, channels, blocks, stride of the first) per stage, Table 2 of the paper.
PUBLISHED = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
#: Most particles are 7 to 20 px: full resolution in the stem, three halvings, few but wide blocks.
REAL_SCALE = [(3, 24, 2, 2), (4, 40, 3, 2), (4, 64, 2, 2)]


def _channels(value: float) -> int:
    """Multiple of 8, at least 8, never more than a tenth below ``value``."""
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * value else rounded


def _convolve(x: Any, filters: int, size: int, stride: int = 1, *, activate: bool = True) -> Any:
    x = layers.Conv2D(filters, size, strides=stride, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.98)(x)
    return layers.ReLU(6.0)(x) if activate else x


def _inverted_residual(x: Any, *, expansion: int, filters: int, stride: int) -> Any:
    entry = x
    if expansion != 1:
        x = _convolve(x, expansion * entry.shape[-1], 1)
    x = layers.DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.98)(x)
    x = layers.ReLU(6.0)(x)
    x = _convolve(x, filters, 1, activate=False)
    return layers.Add()([entry, x]) if stride == 1 and entry.shape[-1] == filters else x


def inverted_residuals(
    x: Any, *, stem: int, stem_stride: int, stages: Sequence[tuple[int, int, int, int]], alpha: float, head: int
) -> Any:
    """Convolutions from a picture (h, w, c) to the last feature map; ``stages`` as `PUBLISHED`."""
    x = _convolve(x, _channels(stem * alpha), 3, stem_stride)
    for expansion, filters, blocks, stride in stages:
        for k in range(blocks):
            x = _inverted_residual(
                x, expansion=expansion, filters=_channels(filters * alpha), stride=stride if k == 0 else 1
            )
    return _convolve(x, head, 1)


def real_scale(
    *,
    classes: int,
    window_px: int = 40,
    alpha: float = 1.0,
    head: int = 128,
    dropout: float = 0.1,
    context: int = len(DEFAULT_CONTEXT),
    sized: bool = True,
) -> keras.Model:
    """Inverted residuals on a small window at full resolution.

    Parameters
    ----------
    classes : int
    window_px : int
    alpha : float
        Width multiplier.
    head : int
        Channels before pooling.
    dropout : float
    context : int
        Columns of the second input.
    sized : bool
        Read true size and depth too.

    Returns
    -------
    keras.Model
    """
    crop, context_input = inputs(window_px, context)
    x = inverted_residuals(crop, stem=12, stem_stride=1, stages=REAL_SCALE, alpha=alpha, head=head)
    return finish_network(
        crop, context_input, x, classes=classes, dropout=dropout, sized=sized, name="mobilenet_v2_real_scale"
    )


def standard(
    *,
    classes: int,
    window_px: int = 64,
    alpha: float = 0.35,
    head: int = 128,
    dropout: float = 0.1,
    context: int = len(DEFAULT_CONTEXT),
    sized: bool = True,
    enlarge: int = 1,
) -> keras.Model:
    """The published layout with a stride-2 stem and a narrow head.

    Parameters
    ----------
    classes : int
    window_px : int
    alpha : float
        Width multiplier.
    head : int
        Channels before pooling; 1280 as published.
    dropout : float
    context : int
        Columns of the second input.
    sized : bool
        Read true size and depth too.
    enlarge : int
        See `training.networks.enlarge`.

    Returns
    -------
    keras.Model
    """
    crop, context_input = inputs(window_px, context)
    x = inverted_residuals(enlarged(crop, enlarge), stem=32, stem_stride=2, stages=PUBLISHED, alpha=alpha, head=head)
    return finish_network(crop, context_input, x, classes=classes, dropout=dropout, sized=sized, name="mobilenet_v2")
