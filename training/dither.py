"""Teaching under roundings that differ from one interpreter to the next.

TFLite's built-in kernels, XNNPACK and an Edge TPU round the same integers each in its own way. The difference is a step
in one value of a thousand after one convolution, but a value near the middle between two steps is tipped by any
difference, and ten convolutions on every value has met some. A network that was never shown this has particles on the
edge between two classes that one interpreter calls oil and the other a bubble.

So it is shown it: behind each ReLU6 the activations of a particle are rounded to steps whose origin is drawn anew for
every particle and batch (dither). Its error is spread evenly over one step, as that of another interpreter's is, and it
costs one random number per particle and layer. Gradients pass as if nothing were rounded.

References
----------
Lipshitz, Wannamaker, Vanderkooy 1992, Quantization and dither: a theoretical survey, J. Audio Eng. Soc. 40, 355
(subtractive dither: an error uniform over one step and independent of the value).
"""

from __future__ import annotations

from typing import Any, Final

import keras
import tensorflow as tf
from keras import layers

__all__ = ["dithered_network"]

#: Steps of int8 in the range of an activation.
_STEPS: Final = 255


@keras.saving.register_keras_serializable(package="edge_app")
class _Dithered(layers.Layer):
    """While teaching, values at steps of random origin; else as they are."""

    def __init__(self, step: float, name: str) -> None:
        super().__init__(name=name)
        self.step = step
        self.seeds = keras.random.SeedGenerator()

    def call(self, x: Any, training: bool = False) -> Any:
        """Round them."""
        if not training:
            return x
        shape = (tf.shape(x)[0], *(1,) * (len(x.shape) - 1))
        origin = keras.random.uniform(shape, seed=self.seeds, dtype=x.dtype)
        rounded = (tf.round(x / self.step + origin) - origin) * self.step
        return x + tf.stop_gradient(rounded - x)


def dithered_network(model: Any, *, steps: float) -> Any:
    """The network with its activations dithered while it learns; it shares the layers of ``model``.

    Parameters
    ----------
    model : keras.Model
        Functional, from `training.networks`.
    steps : float
        Width of the dither in steps of int8. 1: what one rounding does; 0: ``model`` itself.

    Returns
    -------
    keras.Model
        With variables of its own, the states of its random numbers, beside those of ``model``.
    """
    if steps <= 0:
        return model

    def build(layer: Any, *args: Any, **kwargs: Any) -> Any:
        out = layer(*args, **kwargs)
        if isinstance(layer, layers.ReLU) and layer.max_value == 6.0:
            out = _Dithered(float(steps) * 6.0 / _STEPS, f"{layer.name}_dithered")(out)
        return out

    return keras.models.clone_model(
        model, input_tensors=model.input, clone_function=lambda layer: layer, call_function=build
    )
