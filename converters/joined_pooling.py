"""The end of a network as one convolution, so that int8 never rounds the pooled features.

All networks of the house end in "pool the feature map, join the context, dense layer" (`training.networks.head`). As
TFLite operators that is MEAN, CONCATENATION and FULLY_CONNECTED, with the pooled features rounded between them to steps
that they share with the context. The steps are wide and the dense layer triples what is lost to them: this was most of
what int8 lost, and most of what interpreters differ in, as each rounds a MEAN in its own way
(`benchmarks.interpreters`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf

__all__ = ["join_before_pooling", "layers_joined"]

#: Places of a feature map above which it stays as it is: the convolution has a weight for each.
LARGEST_MAP: Final = 64


class _Reshaped(keras.layers.Layer):
    """Another shape by a constant; Keras' own reshape asks for the batch at run time, and that for five operators."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = shape

    def call(self, x: Any) -> Any:
        """Reshape it."""
        return tf.reshape(x, (-1, *self.shape))


def join_before_pooling(model: Any) -> Any:
    """The network with "pool, join the context, dense layer" as one convolution over the whole feature map.

    It computes the same, ``W (mean(x), c) = sum over places of W / places (x, c)``.

    Parameters
    ----------
    model : keras.Model
        Functional, perhaps without such an end; is not changed.

    Returns
    -------
    keras.Model
        Shares all other layers.
    """
    return _walked(model, _dense_over_map)


def layers_joined(model: Any) -> tuple[frozenset[str], frozenset[str]]:
    """Names of what `join_before_pooling` makes one convolution of.

    Parameters
    ----------
    model : keras.Model

    Returns
    -------
    joins, dense : frozenset of str
        Layers that join the pooled features and the context, and dense layers behind them.
    """
    joins: set[str] = set()
    dense: set[str] = set()

    def note(layer: Any, join: Any, features: Any, beside: Any) -> None:
        joins.add(join.name)
        dense.add(layer.name)

    _walked(model, note)
    return frozenset(joins), frozenset(dense)


def _walked(model: Any, found: Callable[[Any, Any, Any, Any], Any | None]) -> Any:
    """A clone; ``found(dense, join, features, beside)`` may give what takes the dense layer's place."""
    pooled: dict[int, tuple[Any, Any]] = {}
    joined: dict[int, tuple[Any, Any, Any, Any]] = {}  # the outputs are kept: an id is good as long as its tensor lives

    def build(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, keras.layers.Dense) and id(args[0]) in joined:
            instead = found(layer, *joined[id(args[0])][1:])
            if instead is not None:
                return instead
        out = layer(*args, **kwargs)
        if isinstance(layer, keras.layers.GlobalAveragePooling2D) and not layer.keepdims:
            if args[0].shape[1] * args[0].shape[2] <= LARGEST_MAP:
                pooled[id(out)] = out, args[0]
        elif isinstance(layer, keras.layers.Concatenate) and len(args[0]) == 2 and id(args[0][0]) in pooled:
            joined[id(out)] = out, layer, pooled[id(args[0][0])][1], args[0][1]
        return out

    return keras.models.clone_model(
        model, input_tensors=model.input, clone_function=lambda layer: layer, call_function=build
    )


def _dense_over_map(dense: Any, join: Any, features: Any, beside: Any) -> Any:
    _, height, width, _ = features.shape
    columns = int(beside.shape[-1])
    everywhere = keras.layers.Dense(
        height * width * columns,
        use_bias=False,
        kernel_initializer=lambda shape, dtype=None: np.tile(np.eye(columns), (1, height * width)),
    )
    beside_map = _Reshaped(height, width, columns)(everywhere(beside))
    kernel, bias = (np.asarray(w, np.float32) for w in dense.get_weights())
    over_map = keras.layers.Conv2D(
        dense.units,
        (height, width),
        activation=dense.activation,
        kernel_initializer=lambda shape, dtype=None: np.broadcast_to(kernel / np.float32(height * width), shape),
        bias_initializer=lambda shape, dtype=None: bias,
        name=f"{dense.name}_over_map",
    )
    return _Reshaped(dense.units)(over_map(keras.layers.Concatenate()([features, beside_map])))
