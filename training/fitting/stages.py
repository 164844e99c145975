"""A network cut into stages from its heads to the picture, whatever network it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from training.fitting.quiet_import import quiet_start

with quiet_start():
    import keras

__all__ = ["freeze_statistics", "stages_of"]


def _layers(model: Any) -> Iterator[Any]:
    """Layers in order, those of models inside the model too."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        else:
            yield layer


def stages_of(model: Any) -> list[list[Any]]:
    """Layers with weights, by how far they are from the answer.

    Stage 0 are the heads: all that works on vectors. Every change of the resolution begins another stage, the coarsest
    first, as pretrained networks are commonly cut.

    Parameters
    ----------
    model : keras.Model

    Returns
    -------
    list of list of keras layers
        Each layer with weights once; the heads, then from the coarsest to the finest maps.
    """
    heads: list[Any] = []
    by_side: dict[int, list[Any]] = {}
    for layer in _layers(model):
        if not layer.weights:
            continue
        shape = layer.output.shape
        if len(shape) == 4:
            by_side.setdefault(int(shape[1]), []).append(layer)
        else:
            heads.append(layer)
    return [heads, *(by_side[side] for side in sorted(by_side))]


def freeze_statistics(model: Any) -> None:
    """Keep batch normalisation as pretrained: a few hundred pictures give worse statistics than they replace."""
    for layer in _layers(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
