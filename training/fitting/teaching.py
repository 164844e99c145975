"""A network taught on labelled pictures: crops for each epoch, state, log, curves."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge_app import __version__
from edge_app.classification.bundle import Bundle
from edge_app.classification.crops import CropGeometry
from edge_app.classification.learned_size import DEPTH_UNIT_UM
from training.datasets.labelled import LabelledCrops
from training.datasets.pictures import LabelledPictures
from training.datasets.weighting import class_mix, class_weights
from training.fitting.disk import require_free
from training.fitting.history import EventLog, compact, draw_curves, write_log
from training.fitting.machines import Machines
from training.fitting.options import FitOptions
from training.fitting.progress import TrainingProgress
from training.fitting.schedule import Schedule
from training.fitting.stages import freeze_statistics
from training.fitting.start import network_from_bundle, start_name
from training.learning import Keeping, Taught, Validation, keras, predict, teach
from training.networks import build_network

__all__ = ["Fitted", "Logs", "forget_training", "remove_work", "teach_pictures"]

#: In the work folder.
STATE: Final = "state.npz"
LOG: Final = "log.csv"
CURVES: Final = "curves.png"

#: Varied sets of the pictures beside the pictures as they are; more would cost time and teach little.
VARIANTS: Final = 4


@dataclass(frozen=True, kw_only=True)
class Logs:
    """Where a training keeps its state and tells how it goes.

    ``work``: folder for state, log and curves; None: nothing is kept. ``tensorboard``: folder for events.
    ``report``: takes a line.
    """

    work: Path | None = None
    tensorboard: Path | None = None
    report: Callable[[str], None] = print


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A taught network, in float32 whatever it was taught in, and how it came about."""

    model: Any
    taught: Taught
    network: str
    network_options: Mapping[str, Any]
    start: str
    record: dict[str, Any] = field(default_factory=dict)


def _with_sizes_of(model: Any, crops: LabelledCrops) -> LabelledCrops:
    """Fill in what a network reads of size and depth where the truth is not known.

    Labelled pictures have no true size. Taught on classes alone, the embedding would drift away from under the head
    that reads the size; held to its own readings it stays.
    """
    if "size" not in model.output or np.isfinite(crops.ecd_um).all():
        return crops
    said = predict(model, crops)["size"]
    known = np.isfinite(crops.ecd_um)
    read_um = np.exp(said[:, 0]) * crops.um_per_px * np.exp2(crops.context[:, 0])
    depth_um = np.maximum(said[:, 2], 0) * np.float32(DEPTH_UNIT_UM)
    return replace(
        crops,
        ecd_um=np.where(known, crops.ecd_um, read_um).astype(np.float32),
        depth_um=np.where(known, crops.depth_um, depth_um).astype(np.float32),
    )


def _crops_of_epoch(
    teaching: LabelledPictures, geometry: CropGeometry, seed: int, *, start: Any | None
) -> Callable[[int], LabelledCrops]:
    """The pictures as they are, and one varied set more each epoch up to `VARIANTS`.

    ``start``: a pretrained network as it was, whose readings of size are kept.
    """

    def sized(crops: LabelledCrops) -> LabelledCrops:
        return crops if start is None else _with_sizes_of(start, crops)

    sets = [sized(teaching.crops(geometry))]

    def crops(epoch: int) -> LabelledCrops:
        # A set is drawn from its own seed, so that a training that goes on after a kill has the same.
        while len(sets) <= min(epoch + 1, VARIANTS):
            rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(len(sets),)))
            sets.append(sized(teaching.varied_crops(geometry, rng)))
        return LabelledCrops.concatenate(sets)

    return crops


def _digest(pictures: LabelledPictures) -> str:
    """What tells one set of pictures, labels and groups from another."""
    found = hashlib.sha256()
    for picture, file, c, g in zip(pictures.pictures, pictures.files, pictures.label, pictures.group, strict=True):
        found.update(f"{file}\n{pictures.classes[int(c)]}\n{g}\n{picture.shape}\n".encode())
        found.update(np.ascontiguousarray(picture).tobytes())
    return found.hexdigest()[:16]


def _identity(
    teaching: LabelledPictures,
    validation: LabelledPictures | None,
    start: str,
    options: FitOptions,
    schedule: Schedule,
    machines: Machines,
) -> dict[str, Any]:
    return {
        "pictures": _digest(teaching),
        "validation set": None if validation is None else _digest(validation),
        "um_per_px": teaching.um_per_px,
        "start": start,
        "network": options.network,
        **{name: getattr(options, name) for name in ("epochs", "batch", "balance", "weigh_loss", "seed")},
        **{
            name.replace("_", " "): getattr(schedule, name)
            for name in ("learning_rate", "optimizer", "label_smoothing", "robust_q", "patience")
        },
        "stages": [[stage.after, stage.rate] for stage in schedule.stages],
        "precision": machines.policy,
        "version": __version__,
    }


def teach_pictures(
    teaching: LabelledPictures,
    validation: LabelledPictures | None,
    *,
    init: Bundle | None,
    geometry: CropGeometry,
    options: FitOptions,
    machines: Machines | None = None,
    logs: Logs,
    title: str = "fit",
) -> Fitted:
    """Teach a network on pictures; nothing is measured on pictures set aside and no bundle is written.

    Parameters
    ----------
    teaching : LabelledPictures
    validation : LabelledPictures or None
        Of other groups: says which epoch is kept.
    init : Bundle or None
        Start from its float weights; None: from nothing.
    geometry : CropGeometry
    options : FitOptions
    machines : Machines, optional
    logs : Logs
    title : str
        For the curves.

    Returns
    -------
    Fitted
    """
    options.check(init=init)
    machines = Machines.here() if machines is None else machines
    classes = teaching.classes
    keras.utils.set_random_seed(options.seed)
    if init is None:
        network, network_options = options.network, dict[str, Any]()
        build = partial(build_network, network, classes=len(classes), window_px=geometry.window_px)
    else:
        network = str(init.description.training.get("network"))
        network_options = dict(init.description.training.get("network_options", {}))
        taught_mix = class_mix(teaching.label, len(classes), method=options.balance)
        build = partial(network_from_bundle, init, classes, taught_mix=taught_mix)
    start = start_name(init)
    with machines.network_scope():
        model = build()
    if init is not None:
        freeze_statistics(model)
    schedule = options.schedule(len(teaching), pretrained=init is not None)
    identity = _identity(teaching, validation, start, options, schedule, machines)
    machines.agree(
        int(hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:6], 16),
        what="what it was started with (pictures, options)",
    )
    keeping = None
    if logs.work is not None:
        # Weights, two moments, mean, best: five times the weights, and the old state until the new one is whole.
        require_free(logs.work, 2 * 5 * 4 * model.count_params() + 4_000_000)
        keeping = Keeping(path=logs.work / STATE, identity=identity)
    drawn = partial(class_mix, teaching.label, len(classes))
    events = EventLog(logs.tensorboard) if logs.tensorboard is not None and machines.chief else None
    with TrainingProgress(logs.report) as progress:

        def after_row(history: list[dict[str, Any]]) -> None:
            progress.line(_line(history[-1], options.epochs))
            if logs.work is not None and machines.chief:
                write_log(logs.work / LOG, history)
            if events is not None:
                events(history[-1])

        taught = teach(
            model,
            _crops_of_epoch(teaching, geometry, options.seed, start=None if init is None else build()),
            prior=drawn(method="none" if options.weigh_loss else options.balance),
            class_weights=class_weights(teaching.label, len(classes), method=options.balance)
            if options.weigh_loss
            else None,
            schedule=schedule,
            seed=options.seed,
            validation=None
            if validation is None
            else Validation(crops=validation.crops(geometry), keep_start=init is not None),
            keeping=keeping,
            machines=machines,
            watcher=progress,
            after_row=after_row,
        )
    if validation is not None:
        logs.report(_verdict(taught, pretrained=init is not None))
    if logs.work is not None and machines.chief:
        kept = taught.kept_epoch if validation is not None else None
        draw_curves(logs.work / CURVES, taught.history, title=title, kept_epoch=kept)
    if machines.policy != "float32" or machines.replicas > 1:
        plain = build()
        plain.set_weights([np.asarray(v.numpy(), np.float32) for v in model.weights])
        model = plain
    return Fitted(
        model=model,
        taught=taught,
        network=network,
        network_options=network_options,
        start=start,
        record={
            "epochs": options.epochs,
            "epochs_made": int(taught.history[-1]["epoch"]),
            "kept_epoch": taught.kept_epoch,
            "batch": options.batch,
            "learning_rate": schedule.learning_rate,
            "optimizer": schedule.optimizer,
            "balance": options.balance + (" (loss)" if options.weigh_loss else " (draw)"),
            "label_smoothing": schedule.label_smoothing,
            **({"robust_q": schedule.robust_q} if schedule.robust_q else {}),
            "history": compact(taught.history),
        },
    )


def _line(row: Mapping[str, Any], epochs: int) -> str:
    text = "before the first epoch" if row["epoch"] == 0 else f"epoch {row['epoch']}/{epochs}: loss {row['loss']:.4f}"
    if row.get("validation_loss") is not None:
        text += f", validation loss {row['validation_loss']:.4f}, macro-F1 {row['validation_macro_f1']:.4f}"
    return text


def _verdict(taught: Taught, *, pretrained: bool) -> str:
    kept = taught.row(taught.kept_epoch)["validation_macro_f1"]
    ended = ", ended early" if taught.stopped_early else ""
    if not pretrained:
        return f"kept epoch {taught.kept_epoch}{ended}: macro-F1 {kept:.4f} on the validation set"
    begun = taught.row(0)["validation_macro_f1"]
    if taught.kept_start:
        return f"kept the start as it was{ended}: no epoch was better on the validation set (macro-F1 {begun:.4f})"
    return f"kept epoch {taught.kept_epoch}{ended}: macro-F1 {begun:.4f} to {kept:.4f} on the validation set"


def forget_training(work: Path) -> None:
    """Nothing is left to go on with; log and curves stay."""
    (work / STATE).unlink(missing_ok=True)


def remove_work(work: Path) -> None:
    """Forget an unfinished training: state, log and curves, and the folder if nothing else is in it."""
    for name in (STATE, LOG, CURVES):
        (work / name).unlink(missing_ok=True)
    if work.is_dir() and not any(work.iterdir()):
        shutil.rmtree(work)
