"""The shape network: Ultrafast Shape Recognition of the outline and ISO 9276-6 descriptors, instead of the picture."""

from typing import Final

import keras
from keras import layers

from edge_app.measurement.shape_moments import USR
from training.networks.head import finish_network, inputs

__all__ = ["CONTEXT", "usr_shape"]

#: Sizes, ISO shape and the twelve moments; no grey levels.
CONTEXT: Final = (
    "log2_reduction",
    "log2_ecd_um",
    "log2_max_feret_um",
    "aspect_ratio",
    "circularity",
    "solidity",
    *USR,
)


def usr_shape(
    *,
    classes: int,
    window_px: int = 40,
    units: int = 96,
    depth: int = 3,
    dropout: float = 0.1,
    context: int = len(CONTEXT),
    sized: bool = True,
) -> keras.Model:
    """Dense layers on the second input.

    Of the picture it takes the mean of the window alone, one number: a converted network has to read both its inputs.

    Parameters
    ----------
    classes : int
    window_px : int
    units, depth : int
        Of the dense layers.
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
    x = layers.Concatenate()([layers.GlobalAveragePooling2D()(crop), context_input])
    for _ in range(depth):
        x = layers.ReLU(6.0)(layers.Dense(units)(x))
    return finish_network(crop, context_input, x, classes=classes, dropout=dropout, sized=sized, name="usr_shape")
