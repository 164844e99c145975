"""VGG16 and ResNet50 pretrained on ImageNet: the references that published particle classifiers start from.

As in the study of excipients: the fully connected layers are replaced, and only the last block of convolutions and the
new head are trained. They are far too heavy for the device; the table of networks says by how much.

References
----------
K. Simonyan, A. Zisserman, arXiv 1409.1556; K. He et al., arXiv 1512.03385.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import keras
from keras import layers

from edge_app.classification.context import DEFAULT_CONTEXT
from edge_app.errors import UserError
from training.networks.enlarge import enlarged
from training.networks.head import finish_network, inputs
from training.networks.library import BATCH_NORM_MOMENTUM, follow_statistics

__all__ = ["RESNET50", "VGG16", "Reference", "pretrained"]

#: (code - 160) / 64 to grey levels: ImageNet's networks take those less their mean, where this house has background.
_GREY_LEVELS: Final = 64.0


@dataclass(frozen=True)
class Reference:
    """A library network: how it is built, its weights' file without the top, and how its last block's layers begin."""

    name: str
    build: Callable[..., Any]
    weights_file: str
    last_block: str


VGG16: Final = Reference(
    "vgg16", keras.applications.VGG16, "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5", "block5"
)
RESNET50: Final = Reference(
    "resnet50", keras.applications.ResNet50, "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5", "conv5"
)


def _extractor(reference: Reference, picture: Any, weights: str | None) -> keras.Model:
    """The library network on a picture; see `pretrained` for ``weights``."""
    if weights not in (None, "imagenet") and not Path(weights).is_file():
        raise UserError(f"network {reference.name}: weights {weights}: no such file; give {reference.weights_file}")
    try:
        return reference.build(input_tensor=picture, include_top=False, weights=weights)
    except UserError:
        raise
    except Exception as error:
        # The library raises bare exceptions where it cannot fetch, and ValueError or OSError where a file is another's.
        if weights is None:
            raise
        where = Path(os.environ.get("KERAS_HOME", "~/.keras")) / "models"
        what = " ".join(str(error).split())[:120]
        if weights == "imagenet":
            raise UserError(
                f"network {reference.name}: its ImageNet weights are neither in {where} nor can they be fetched "
                f"({what}); put {reference.weights_file} there, or give its path or none as weights"
            ) from error
        raise UserError(f"network {reference.name}: weights {weights} do not fit it ({what})") from error


def pretrained(
    *,
    reference: Reference,
    classes: int,
    window_px: int = 48,
    weights: str | None = "imagenet",
    units: int = 128,
    dropout: float = 0.5,
    context: int = len(DEFAULT_CONTEXT),
    sized: bool = True,
    enlarge: int = 2,
) -> keras.Model:
    """Build the network.

    Parameters
    ----------
    reference : Reference
        `VGG16` or `RESNET50`.
    classes : int
    window_px : int
        With ``enlarge``, at least 32.
    weights : str or None
        ``imagenet``: from the library's folder (``~/.keras/models``), fetched where it is not there; a path: of that
        file; None or ``none``: random. With weights, all but the last block and the head are frozen.
    units : int
        Of the dense layer that replaces the published ones.
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

    Raises
    ------
    UserError
        The weights are not there, or are of another network.
    """
    weights = None if weights == "none" else weights
    crop, context_input = inputs(window_px, context)
    grey = layers.Rescaling(_GREY_LEVELS)(enlarged(crop, enlarge))
    extractor = _extractor(reference, layers.Concatenate()([grey, grey, grey]), weights)
    x = follow_statistics(extractor)
    if weights is not None:
        for layer in extractor.layers:
            layer.trainable = layer.name.startswith(reference.last_block)
    # Features of grey levels reach hundreds; the embedding ends at 6. Normalised behind a dense layer, which takes the
    # factors up when it is made integer: applied to the pooled features they would magnify rounding.
    x = layers.Dense(units, use_bias=False)(layers.GlobalAveragePooling2D()(x))
    x = layers.ReLU(6.0)(layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM)(x))
    return finish_network(crop, context_input, x, classes=classes, dropout=dropout, sized=sized, name=reference.name)
