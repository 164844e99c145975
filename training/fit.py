"""A lab's own pictures into a bundle: split by group, fine-tune from a bundle, calibrate, convert."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from converters import check_target
from edge_app.classification.bundle import Bundle
from edge_app.classification.crops import CropGeometry
from edge_app.errors import UserError
from training.datasets.folders import LabelledPictures, read_folders
from training.datasets.labelled import LabelledCrops, split_groups
from training.finish import finish_bundle
from training.learning import Schedule, teach
from training.networks import build_network

__all__ = ["fit_folders", "network_from_bundle"]

FLOAT_WEIGHTS = "float.weights.h5"


def network_from_bundle(bundle: Bundle, classes: tuple[str, ...]) -> Any:
    """Build the network of a bundle with its float weights, its last layer for other classes.

    Parameters
    ----------
    bundle : Bundle
        With float weights beside the integer network.
    classes : tuple of str
        Those of the same name keep their weights; the others start from the mean of all plus a little noise.

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
    window = bundle.description.input.window_px
    old = build_network(name, classes=len(bundle.classes), window_px=window, **options)
    old.load_weights(bundle.directory / FLOAT_WEIGHTS)
    if classes == bundle.classes:
        return old
    new = build_network(name, classes=len(classes), window_px=window, **options)
    for source, target in zip(old.layers, new.layers, strict=True):
        if source.name != "logits":
            target.set_weights(source.get_weights())
    kernel, bias = old.get_layer("logits").get_weights()
    rng = np.random.default_rng(0)
    new_kernel = np.repeat(kernel.mean(axis=1, keepdims=True), len(classes), axis=1)
    new_kernel = new_kernel + 0.02 * rng.standard_normal(new_kernel.shape)
    new_bias = np.zeros(len(classes))
    for c, wanted in enumerate(classes):
        # Not-oil (or whatever a lab calls the rest) has no counterpart and learns its own weights.
        if wanted in bundle.classes:
            new_kernel[:, c] = kernel[:, bundle.classes.index(wanted)]
            new_bias[c] = bias[bundle.classes.index(wanted)]
    new.get_layer("logits").set_weights([new_kernel, new_bias])
    return new


def _freeze_statistics(model: Any) -> None:
    """Keep batch normalisation as pretrained: a few hundred pictures give worse statistics than they replace."""
    for layer in model.layers:
        if layer.__class__.__name__ == "BatchNormalization":
            layer.trainable = False


def _check_sides(pictures: LabelledPictures, train: Any, test: Any) -> None:
    shared = set(pictures.group[train]) & set(pictures.group[test])
    if shared:
        raise UserError(f"group {sorted(shared)[0]} stands on both sides of the split; refused")


def fit_folders(
    data: Path,
    groups: Path,
    out: Path,
    *,
    init: Bundle | None,
    epochs: int = 20,
    um_per_px: float | None = None,
    test_share: float = 0.2,
    seed: int = 1,
    report: Callable[[str], None] = print,
) -> Bundle:
    """Train on a folder per class and write a bundle.

    Parameters
    ----------
    data, groups : Path
        See `training.datasets.folders.read_folders`.
    out : Path
        Bundle folder to write.
    init : Bundle or None
        Start from its float weights; None: from nothing.
    epochs : int
    um_per_px : float, optional
        Scale of the pictures; default that of ``init``, or 1.33.
    test_share : float
        Share of each class, in whole groups, that is set aside to measure with.
    seed : int
    report : callable
        Takes one line of progress.

    Returns
    -------
    Bundle
    """
    if epochs < 1:
        raise UserError(f"--epochs is {epochs}, must be at least 1")
    check_target(out)
    geometry = CropGeometry() if init is None else init.geometry
    scale = um_per_px if um_per_px is not None else geometry.um_per_px
    pictures = read_folders(data, groups, um_per_px=scale)
    train, test = split_groups(pictures.label, pictures.group, share=test_share, seed=seed, classes=pictures.classes)
    _check_sides(pictures, train, test)
    for c, name in enumerate(pictures.classes):
        of_class = pictures.label == c
        report(f"{name}: {int((of_class & train).sum())} pictures to train, {int((of_class & test).sum())} to measure")
    teaching = pictures.take(np.flatnonzero(train))
    prior = np.sqrt(np.bincount(teaching.label, minlength=len(pictures.classes)).astype(float))
    prior /= prior.sum()
    rng = np.random.default_rng(seed)
    variants: list[LabelledCrops] = []

    def crops_of_epoch(epoch: int) -> LabelledCrops:
        # The pictures as they are, and up to four varied sets of them; more would cost time and teach little.
        if not variants:
            variants.append(teaching.crops(geometry))
        if len(variants) <= 4:
            variants.append(teaching.varied_crops(geometry, rng))
        return LabelledCrops.concatenate(variants)

    def after(epoch: int, loss: float) -> None:
        report(f"epoch {epoch + 1}/{epochs}: loss {loss:.4f}")

    samples = int(np.clip(4 * len(teaching), 256, 40_000))
    if init is None:
        network, start = "fused_residual", "nothing"
        network_options: dict[str, Any] = {}
        model = build_network(network, classes=len(pictures.classes), window_px=geometry.window_px)
        schedule = Schedule(epochs=epochs, samples_per_epoch=samples, batch=64)
    else:
        network = str(init.description.training.get("network"))
        network_options = dict(init.description.training.get("network_options", {}))
        start = f"{init.description.name} {init.description.version} ({init.model_sha256[:12]})"
        model = network_from_bundle(init, pictures.classes)
        _freeze_statistics(model)
        schedule = Schedule(
            epochs=epochs,
            samples_per_epoch=samples,
            batch=64,
            learning_rate=4e-4,
            label_smoothing=0.08,
            warm_up_steps=50,
        )
    teach(model, crops_of_epoch, prior=prior, schedule=schedule, seed=seed, after_epoch=after)
    measured = pictures.take(np.flatnonzero(test)).crops(geometry)
    bundle = finish_bundle(
        model,
        out,
        network=network,
        network_options=network_options,
        name=out.name or "bundle",
        version="1",
        geometry=geometry,
        calibration=teaching.crops(geometry) if len(measured) < 50 else measured,
        tests={"groups set aside": measured},
        classes=pictures.classes,
        training={
            "source": "labelled pictures",
            "start": start,
            "seed": seed,
            "epochs": epochs,
            "views": len(teaching),
            "particles": len(teaching),
            "groups_trained": sorted(set(teaching.group.tolist())),
            "groups_measured": sorted(set(pictures.group[test].tolist())),
        },
    )
    figures = bundle.description.metrics["groups set aside"]
    report(json.dumps({"bundle": str(out), "macro_f1": figures["macro_f1"], "particles": figures["particles"]}))
    return bundle
