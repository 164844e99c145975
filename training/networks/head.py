"""What all networks end in: pooling, the context as a second input, the embedding, classes, true size and depth."""

from typing import Any

import keras
from keras import layers

from edge_app.classification.context import DEFAULT_CONTEXT
from edge_app.classification.learned_size import SIZE_OUTPUTS

__all__ = ["EMBEDDING", "finish_network", "inputs"]

EMBEDDING = 64


def inputs(window_px: int, context: int = len(DEFAULT_CONTEXT)) -> tuple[Any, Any]:
    """``crop`` (W, W, 1) and ``context`` (K,)."""
    return keras.Input((window_px, window_px, 1), name="crop"), keras.Input((context,), name="context")


def finish_network(
    crop: Any,
    context: Any,
    x: Any,
    *,
    classes: int,
    dropout: float,
    name: str,
    sized: bool = True,
    embedding_units: int = EMBEDDING,
    beside: Any = None,
) -> keras.Model:
    """Close a network.

    The context joins before the dense layer, not by a sum after it: a sum would have to be quantised at the range of
    its parts, many steps of the embedding's, and rounding would differ between interpreters. Classes, size and depth
    are read from the same embedding by one linear layer each, which the device computes exactly.

    Parameters
    ----------
    crop, context : keras tensors
        From `inputs`.
    x : keras tensor (h, w, c) or (c,)
        Last feature map, or features.
    classes : int
    dropout : float
    name : str
    sized : bool
        Say too what only the simulator can teach: true size and depth, output ``size`` (n, 4), see
        `edge_app.classification.learned_size`, and ``novelty`` (n, 1), the logit of being none of the classes.
    embedding_units : int
    beside : keras tensor (k,), optional
        What joins the features in place of the plain context.

    Returns
    -------
    keras.Model
        Inputs crop and context, outputs logits, embedding and perhaps size and novelty.
    """
    if classes == embedding_units:
        raise ValueError(f"{embedding_units} classes: the logits could not be told from the embedding")
    pooled = layers.GlobalAveragePooling2D()(x) if len(x.shape) == 4 else x
    x = layers.Concatenate()([pooled, context if beside is None else beside])
    embedding = layers.ReLU(6.0, name="embedding")(layers.Dense(embedding_units, name="features")(x))
    kept = layers.Dropout(dropout)(embedding)
    outputs = {"logits": layers.Dense(classes, name="logits")(kept), "embedding": embedding}
    if sized:
        outputs["size"] = layers.Dense(SIZE_OUTPUTS, name="size")(embedding)
        outputs["novelty"] = layers.Dense(1, name="novelty")(embedding)
    return keras.Model({"crop": crop, "context": context}, outputs, name=name)
