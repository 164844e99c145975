"""What a network costs before it is converted: multiply-accumulates and parameters, counted from the Keras graph."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

__all__ = ["Cost", "cost_of"]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """``macs``: of one crop; ``parameters``: all numbers of the float network, ``trainable`` those that learn."""

    macs: int
    parameters: int
    trainable: int


def _macs(layer: Any) -> int:
    if isinstance(layer, keras.Model):
        return sum(_macs(inner) for inner in layer.layers)
    if isinstance(layer, layers.DepthwiseConv2D):
        high, wide = layer.kernel_size
        return math.prod(layer.output.shape[1:]) * high * wide
    if isinstance(layer, layers.Conv2D):
        # Kernel: (high, wide, channels in a group, filters); each output value takes one dot product.
        return math.prod(layer.output.shape[1:]) * math.prod(layer.kernel.shape[:3])
    if isinstance(layer, layers.Dense):
        return math.prod(layer.output.shape[1:]) * int(layer.kernel.shape[0])
    return 0


def cost_of(model: keras.Model) -> Cost:
    """Count convolutions and dense layers; normalisation is folded into them, and the rest multiplies nothing.

    Parameters
    ----------
    model : keras.Model

    Returns
    -------
    Cost

    Examples
    --------
    >>> picture = keras.Input((8, 8, 1))
    >>> cost_of(keras.Model(picture, layers.Conv2D(4, 3, padding="same")(picture)))
    Cost(macs=2304, parameters=40, trainable=40)
    """
    return Cost(
        macs=_macs(model),
        parameters=int(model.count_params()),
        trainable=sum(math.prod(w.shape) for w in model.trainable_weights),
    )
