"""What all networks end in: pooling, the reduction as a second input, the embedding, the classes."""

from typing import Any

import keras
from keras import layers

__all__ = ["EMBEDDING", "finish_network", "inputs"]

EMBEDDING = 64


def inputs(window_px: int) -> tuple[Any, Any]:
    """``crop`` (W, W, 1) and ``size`` (1,)."""
    return keras.Input((window_px, window_px, 1), name="crop"), keras.Input((1,), name="size")


def finish_network(crop: Any, size: Any, x: Any, *, classes: int, dropout: float, name: str) -> keras.Model:
    """Close a network.

    The size joins before the dense layer, not by a sum after it: a sum would have to be quantised at the range of its
    parts, many steps of the embedding's, and rounding would differ between interpreters.

    Parameters
    ----------
    crop, size : keras tensors
        From `inputs`.
    x : keras tensor (h, w, c)
        Last feature map.
    classes : int
    dropout : float
    name : str

    Returns
    -------
    keras.Model
    """
    if classes == EMBEDDING:
        raise ValueError(f"{EMBEDDING} classes: the logits could not be told from the embedding")
    x = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), size])
    embedding = layers.ReLU(6.0, name="embedding")(layers.Dense(EMBEDDING, name="features")(x))
    logits = layers.Dense(classes, name="logits")(layers.Dropout(dropout)(embedding))
    return keras.Model({"crop": crop, "size": size}, {"logits": logits, "embedding": embedding}, name=name)
