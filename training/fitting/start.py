"""A pretrained network to start from: that of a bundle, its last layer for other classes."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edge_app.classification.bundle import Bundle
from edge_app.errors import UserError
from training.fitting.folded_head import folded_head
from training.networks import rebuild_network

__all__ = ["FLOAT_WEIGHTS", "network_from_bundle", "start_name"]

FLOAT_WEIGHTS: Final = "float.weights.h5"


def start_name(bundle: Bundle | None) -> str:
    """How a record names what a training started from."""
    if bundle is None:
        return "nothing"
    return f"{bundle.description.name} {bundle.description.version} ({bundle.model_sha256[:12]})"


def network_from_bundle(bundle: Bundle, classes: tuple[str, ...], *, taught_mix: npt.ArrayLike | None = None) -> Any:
    """Build the network of a bundle with its float weights, its last layer for other classes.

    Parameters
    ----------
    bundle : Bundle
        With float weights beside the integer network.
    classes : tuple of str
        Those that the bundle does not know are the rest of its classes together (`folded_head`).
    taught_mix : array_like (C,), optional
        Class shares that it will be taught; with other classes than the bundle's, its logits start out for these.

    Returns
    -------
    keras.Model

    Raises
    ------
    UserError
        The bundle has no float weights.
    """
    if FLOAT_WEIGHTS not in bundle.description.files:
        raise UserError(f"{bundle.directory}: has no {FLOAT_WEIGHTS} to start from; use --init none or another bundle")
    name = str(bundle.description.training.get("network"))
    options = dict(bundle.description.training.get("network_options", {}))
    options.setdefault("context", len(bundle.description.input.context))
    window = bundle.description.input.window_px
    old = rebuild_network(name, classes=len(bundle.classes), window_px=window, **options)
    old.load_weights(bundle.directory / FLOAT_WEIGHTS)
    if classes == bundle.classes:
        return old
    new = rebuild_network(name, classes=len(classes), window_px=window, **options)
    for source, target in zip(old.layers, new.layers, strict=True):
        if source.name != "logits":
            target.set_weights(source.get_weights())
    reference = None
    if "reference.npz" in bundle.description.files:
        with np.load(bundle.directory / "reference.npz") as stored:
            reference = stored["embeddings"].astype(np.float64) if "embeddings" in stored else None
    kernel, bias = (w.astype(np.float64) for w in old.get_layer("logits").get_weights())
    if reference is None or not (set(classes) & set(bundle.classes)):
        # Nothing in common: the new classes are told apart by a little noise alone.
        rng = np.random.default_rng(0)
        new_kernel = np.repeat(kernel.mean(axis=1, keepdims=True), len(classes), axis=1)
        new_kernel = new_kernel + 0.02 * rng.standard_normal(new_kernel.shape)
        new_bias = np.zeros(len(classes))
    else:
        new_kernel, new_bias = folded_head(
            kernel,
            bias + np.asarray(bundle.description.log_prior) * bundle.description.temperature,
            reference,
            known=bundle.classes,
            wanted=classes,
        )
        if taught_mix is not None:
            new_bias = new_bias + np.log(len(classes) * np.asarray(taught_mix, np.float64))
    new.get_layer("logits").set_weights([new_kernel, new_bias])
    return new
