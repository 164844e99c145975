"""EfficientNet-Lite0 to 2: EfficientNet (Tan and Le 2019, arXiv 1905.11946) without what integers do badly.

No squeeze-and-excitation, ReLU6 instead of swish; the first and the last stage are not scaled in depth, stem and head
not in width, as in Google's release for TensorFlow Lite.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import keras
from keras import layers

from edge_app.classification.context import DEFAULT_CONTEXT
from training.networks.enlarge import enlarged
from training.networks.head import finish_network, inputs
from training.networks.library import BATCH_NORM_MOMENTUM

__all__ = ["SCALINGS", "Scaling", "efficientnet_lite", "lite_trunk"]

STEM: Final = 32
HEAD: Final = 1280
#: (expansion, channels, blocks, stride of the first, kernel) per stage of EfficientNet-B0, Table 1 of the paper.
_STAGES: Final = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """Compound scaling of one member of the family: multipliers of channels and of blocks per stage."""

    width: float
    depth: float


SCALINGS: Final = (Scaling(width=1.0, depth=1.0), Scaling(width=1.0, depth=1.1), Scaling(width=1.1, depth=1.2))


def _channels(value: float) -> int:
    """Multiple of 8, at least 8, never more than a tenth below ``value``."""
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * value else rounded


def _normalised(x: Any, *, activate: bool = True) -> Any:
    x = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, epsilon=1e-3)(x)
    return layers.ReLU(6.0)(x) if activate else x


def _block(x: Any, *, expansion: int, filters: int, stride: int, kernel: int) -> Any:
    entry = x
    if expansion != 1:
        x = _normalised(layers.Conv2D(expansion * entry.shape[-1], 1, use_bias=False)(x))
    x = _normalised(layers.DepthwiseConv2D(kernel, strides=stride, padding="same", use_bias=False)(x))
    x = _normalised(layers.Conv2D(filters, 1, use_bias=False)(x), activate=False)
    return layers.Add()([entry, x]) if stride == 1 and entry.shape[-1] == filters else x


def lite_trunk(x: Any, *, width: float, depth: float, stem: int = STEM, head: int = HEAD) -> Any:
    """Convolutions from a picture (h, w, c) to the last feature map (h / 32, w / 32, head)."""
    x = _normalised(layers.Conv2D(stem, 3, strides=2, padding="same", use_bias=False)(x))
    for stage, (expansion, filters, blocks, stride, kernel) in enumerate(_STAGES):
        fixed = stage in (0, len(_STAGES) - 1)
        for k in range(blocks if fixed else math.ceil(depth * blocks)):
            x = _block(
                x,
                expansion=expansion,
                filters=_channels(width * filters),
                stride=stride if k == 0 else 1,
                kernel=kernel,
            )
    return _normalised(layers.Conv2D(head, 1, use_bias=False)(x))


def efficientnet_lite(
    *,
    classes: int,
    member: int = 0,
    window_px: int = 64,
    alpha: float = 1.0,
    depth: float = 1.0,
    head: int = HEAD,
    dropout: float = 0.2,
    context: int = len(DEFAULT_CONTEXT),
    sized: bool = True,
    enlarge: int = 1,
) -> keras.Model:
    """Build the network.

    Parameters
    ----------
    classes : int
    member : {0, 1, 2}
        Lite0, Lite1 or Lite2.
    window_px : int
    alpha, depth : float
        Multipliers of channels and blocks on top of the member's own; 1 as published.
    head : int
        Channels before pooling.
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
    scaling = SCALINGS[member]
    crop, context_input = inputs(window_px, context)
    x = lite_trunk(enlarged(crop, enlarge), width=alpha * scaling.width, depth=depth * scaling.depth, head=head)
    return finish_network(
        crop, context_input, x, classes=classes, dropout=dropout, sized=sized, name=f"efficientnet_lite{member}"
    )
