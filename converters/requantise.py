"""The float network of a bundle to int8 with other representative pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from converters.tflite import convert_to_int8, run_int8
from edge_app.capture.crops import iterate_crops
from edge_app.classification.bundle import Bundle
from edge_app.classification.tight_crops import crops_of_pictures
from edge_app.errors import UserError
from training.fit import network_from_bundle
from training.learning import CODE_SCALE, network_inputs

__all__ = ["requantise"]


def requantise(bundle: Bundle, pictures: Path, out: Path, *, um_per_px: float | None = None) -> str:
    """Convert and compare.

    Parameters
    ----------
    bundle : Bundle
        With float weights.
    pictures : Path
        Folder of particle pictures that set the ranges of the activations.
    out : Path
        TFLite file.
    um_per_px : float, optional
        Scale of the pictures.

    Returns
    -------
    str
        One line: size, and for how many of the pictures int8 and float agree.
    """
    images = [crop.image for crop in iterate_crops(pictures)]
    if not images:
        raise UserError(f"{pictures}: no usable picture")
    scale = bundle.geometry.um_per_px if um_per_px is None else um_per_px
    crops = crops_of_pictures(images, geometry=bundle.geometry, um_per_px=scale)
    model = network_from_bundle(bundle, bundle.classes)
    some = np.random.default_rng(0).permutation(len(crops))[:400]
    integer = convert_to_int8(model, crops.take(some), code_scale=CODE_SCALE)
    logits, _ = run_int8(integer, crops)
    float_logits = model.predict(network_inputs(crops), verbose=0)["logits"]
    same = float((logits.argmax(axis=1) == float_logits.argmax(axis=1)).mean())
    try:
        out.write_bytes(integer.content)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from None
    return f"{out}: {len(integer.content) / 1024:.0f} KB, same class as float for {same:.2%} of {len(crops)} pictures"
