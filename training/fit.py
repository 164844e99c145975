"""A lab's own pictures into a bundle: split by group, fine-tune from a bundle, calibrate, convert."""

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
import numpy.typing as npt

from converters import check_target
from edge_app import __version__
from edge_app.classification.bundle import Bundle
from edge_app.classification.crops import CropGeometry
from edge_app.classification.learned_size import DEPTH_UNIT_UM
from edge_app.errors import UserError
from training.datasets.labelled import LabelledCrops, split_groups
from training.datasets.pictures import LabelledPictures
from training.datasets.splits import duplicates_of, split_pictures, warn_of_duplicates
from training.datasets.weighting import WEIGHTINGS, Weighting, class_mix, class_weights
from training.finish import finish_bundle
from training.fitting.disk import disk_errors, require_free
from training.fitting.history import EventLog, compact, draw_curves, write_log
from training.fitting.machines import Machines
from training.fitting.progress import TrainingProgress
from training.fitting.schedule import FINE_TUNING, OPTIMIZERS, OptimizerName, Schedule, StageRate
from training.fitting.stages import freeze_statistics
from training.learning import Keeping, Taught, Validation, keras, predict, teach
from training.networks import NETWORKS, build_network, rebuild_network

__all__ = [
    "FLOAT_WEIGHTS",
    "FitOptions",
    "Fitted",
    "Logs",
    "fit_pictures",
    "network_from_bundle",
    "set_validation_aside",
    "teach_pictures",
]

FLOAT_WEIGHTS = "float.weights.h5"

#: In the work folder.
STATE: Final = "state.npz"
LOG: Final = "log.csv"
CURVES: Final = "curves.png"

#: Fewer pictures of a class than this say nothing about when to stop.
FEWEST_TO_VALIDATE: Final = 4

#: Varied sets of the pictures beside the pictures as they are; more would cost time and teach little.
VARIANTS: Final = 4


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


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How pictures are learned from; the command line shows the same names.

    Attributes
    ----------
    epochs, batch : int
    learning_rate : float, optional
        Default: low from a bundle, high from nothing.
    optimizer : {'adamw', 'sgd'}
        ``sgd`` with momentum 0.9.
    balance : {'none', 'sqrt', 'inverse', 'effective'}
        How rare classes are drawn more often, `training.datasets.weighting`.
    weigh_loss : bool
        Weigh the loss as ``balance`` says instead of drawing more often.
    label_smoothing : float
    robust_q : float
        Above 0: generalised cross-entropy, for labels that are partly wrong.
    patience : int
        Epochs without progress on the validation set before the end; 0: all epochs.
    validation_share : float
        Share of each class, in whole groups, that says which epoch is kept; 0: none.
    stages : tuple of StageRate
        Of a pretrained network, from its heads on; empty: all of it at once.
    network : str
        Where nothing is started from.
    seed : int
    """

    epochs: int = 20
    batch: int = 64
    learning_rate: float | None = None
    optimizer: OptimizerName = "adamw"
    balance: Weighting = "sqrt"
    weigh_loss: bool = False
    label_smoothing: float = 0.08
    robust_q: float = 0.0
    patience: int = 6
    validation_share: float = 0.2
    stages: tuple[StageRate, ...] = FINE_TUNING
    network: str = "fused_residual"
    seed: int = 1

    def check(self, *, init: Bundle | None) -> None:
        """Refuse what cannot be.

        Raises
        ------
        UserError
        """
        for name, value, low, high in (
            ("epochs", self.epochs, 1, 100_000),
            ("batch", self.batch, 1, 65_536),
            ("patience", self.patience, 0, 100_000),
            ("seed", self.seed, 0, 2**32 - 1),
        ):
            if not low <= value <= high:
                bound = f"at least {low}" if value < low else f"at most {high}"
                raise UserError(f"--{name} is {value}, must be {bound}")
        if self.learning_rate is not None and not 0 < self.learning_rate < np.inf:
            raise UserError(f"--learning-rate is {self.learning_rate:g}, must be above 0")
        for name, number, limit in (
            ("label-smoothing", self.label_smoothing, 0.5),
            ("robust", self.robust_q, 1.0),
            ("validation-share", self.validation_share, 0.5),
        ):
            if not 0 <= number <= limit:
                raise UserError(f"--{name} is {number:g}, must be 0 to {limit:g}")
        for name, word, allowed in (
            ("balance", self.balance, WEIGHTINGS),
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("network", self.network, tuple(NETWORKS)),
        ):
            if word not in allowed:
                raise UserError(f"--{name} is {word}, allowed are {', '.join(allowed)}")
        if init is not None and self.network != FitOptions.network:
            raise UserError(
                f"--network is {self.network}, but {init.directory} has its own; leave it out or --init none"
            )

    def schedule(self, pictures: int, *, pretrained: bool) -> Schedule:
        """As many steps as the pictures are worth."""
        samples = int(np.clip(4 * pictures, max(256, self.batch), 40_000))
        steps = self.epochs * max(1, samples // self.batch)
        rate = self.learning_rate
        if rate is None:
            rate = (1e-3 if pretrained else 2e-3) if self.optimizer == "adamw" else (1e-2 if pretrained else 5e-2)
        return Schedule(
            epochs=self.epochs,
            samples_per_epoch=samples,
            batch=self.batch,
            learning_rate=rate,
            label_smoothing=self.label_smoothing,
            warm_up_steps=50 if pretrained else 200,
            # The mean is to look back over a tenth of the training; a longer one would still hold the start.
            ema_momentum=float(np.clip(1 - 10 / steps, 0.5, 0.998)),
            optimizer=self.optimizer,
            robust_q=self.robust_q,
            stages=self.stages if pretrained else (),
            patience=self.patience,
        )


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


def set_validation_aside(
    pictures: LabelledPictures, *, share: float, seed: int
) -> tuple[LabelledPictures, LabelledPictures | None, str]:
    """Take whole groups out of the pictures to learn from, to see when it is enough.

    Parameters
    ----------
    pictures : LabelledPictures
        Without those that measure the result.
    share : float
        0: none.
    seed : int

    Returns
    -------
    teaching : LabelledPictures
    validation : LabelledPictures or None
        None where too few groups or pictures would be left on a side.
    words : str
        What was set aside, or why nothing was.
    """
    if share == 0:
        return pictures, None, "none is wanted"
    try:
        train, aside = split_groups(
            pictures.label, pictures.group, share=share, seed=seed + 1, classes=pictures.classes
        )
    except UserError as error:
        return pictures, None, str(error)
    fewest = np.bincount(pictures.label[aside], minlength=len(pictures.classes))
    left = np.bincount(pictures.label[train], minlength=len(pictures.classes))
    for c, name in enumerate(pictures.classes):
        # A run that is half of the pictures teaches more than it tells.
        if fewest[c] < FEWEST_TO_VALIDATE or left[c] < 2 * fewest[c]:
            where = f"{fewest[c]} aside and {left[c]} to learn from"
            return pictures, None, f"class {name} would have {where}"
    groups = len(np.unique(pictures.group[aside]))
    words = f"validation set: {int(aside.sum())} pictures of {groups} groups"
    return pictures.take(np.flatnonzero(train)), pictures.take(np.flatnonzero(aside)), words


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
    options: FitOptions = FitOptions(),
    machines: Machines | None = None,
    logs: Logs = Logs(),
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
        network, start, network_options = options.network, "nothing", dict[str, Any]()
        build = partial(build_network, network, classes=len(classes), window_px=geometry.window_px)
    else:
        network = str(init.description.training.get("network"))
        network_options = dict(init.description.training.get("network_options", {}))
        start = f"{init.description.name} {init.description.version} ({init.model_sha256[:12]})"
        build = partial(network_from_bundle, init, classes)
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
    mix = partial(class_mix, teaching.label, len(classes))
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
            prior=mix(method="none") if options.weigh_loss else mix(method=options.balance),
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


def fit_pictures(
    pictures: LabelledPictures,
    out: Path,
    *,
    init: Bundle | None,
    options: FitOptions = FitOptions(),
    split: Path | None = None,
    test_share: float = 0.2,
    source: str = "labelled pictures",
    machines: Machines | None = None,
    logs: Logs = Logs(),
) -> Bundle | None:
    """Train on labelled pictures and write a bundle.

    Parameters
    ----------
    pictures : LabelledPictures
        See `training.datasets.sources.open_dataset`.
    out : Path
        Bundle folder to write.
    init : Bundle or None
        Start from its float weights; None: from nothing.
    options : FitOptions
    split : Path, optional
        CSV that says which groups measure; default: drawn.
    test_share : float
        Share of each class, in whole groups, that is set aside to measure with.
    source : str
        For the record.
    machines : Machines, optional
    logs : Logs

    Returns
    -------
    Bundle, or None on a worker that is not the first.

    Raises
    ------
    UserError
    """
    machines = Machines.here() if machines is None else machines
    report = logs.report if machines.chief else _silent
    logs = replace(logs, report=report)
    geometry = CropGeometry() if init is None else init.geometry
    train, test = split_pictures(pictures, split=split, share=test_share, seed=options.seed)
    if shared := set(pictures.group[train]) & set(pictures.group[test]):
        raise UserError(f"group {min(shared)} stands on both sides of the split; refused")
    duplicates = duplicates_of(pictures)
    for line in warn_of_duplicates(duplicates, train, test):
        report(line)
    known = pictures.take(np.flatnonzero(train))
    teaching, validation, words = set_validation_aside(known, share=options.validation_share, seed=options.seed)
    for c, name in enumerate(pictures.classes):
        counts = [int((part.label == c).sum()) for part in (teaching, validation) if part is not None]
        validated = f", {counts[1]} to validate" if len(counts) > 1 else ""
        measured_with = int((pictures.label[test] == c).sum())
        report(f"{name}: {counts[0]} pictures to train{validated}, {measured_with} to measure")
    report(words if validation is not None else f"no validation set, so no early end: {words}")
    report(f"computed on {machines}")
    with disk_errors(out if logs.work is None else logs.work):
        fitted = teach_pictures(
            teaching,
            validation,
            init=init,
            geometry=geometry,
            options=options,
            machines=machines,
            logs=logs,
            title=f"{out.name}: {len(teaching)} pictures",
        )
        if not machines.chief:
            return None
        measured = pictures.take(np.flatnonzero(test)).crops(geometry)
        bundle = finish_bundle(
            fitted.model,
            out,
            network=fitted.network,
            network_options=fitted.network_options,
            name=out.name or "bundle",
            version="1",
            geometry=geometry,
            calibration=_calibrating(validation, teaching, geometry),
            tests={"groups set aside": measured},
            classes=pictures.classes,
            taught_mix=class_mix(teaching.label, len(pictures.classes), method=options.balance).tolist(),
            training={
                "source": source,
                "start": fitted.start,
                "seed": options.seed,
                "views": len(teaching),
                "particles": len(teaching),
                "groups_trained": _names(teaching.group),
                "groups_validated": [] if validation is None else _names(validation.group),
                "groups_measured": _names(pictures.group[test]),
                **duplicates.record(train),
                **fitted.record,
            },
        )
    if logs.work is not None:
        (logs.work / STATE).unlink(missing_ok=True)
        report(f"log and curves: {logs.work}")
    figures = bundle.description.metrics["groups set aside"]
    report(json.dumps({"bundle": str(out), "macro_f1": figures["macro_f1"], "particles": figures["particles"]}))
    return bundle


def _silent(line: str) -> None:
    """Workers beside the first say nothing."""


def _names(group: npt.NDArray[np.generic]) -> list[str]:
    return sorted({str(g) for g in group})


def _calibrating(
    validation: LabelledPictures | None, teaching: LabelledPictures, geometry: CropGeometry
) -> LabelledCrops:
    """Crops for temperature and integer ranges: not learned from, as far as there are enough, and never those that
    measure.
    """
    if validation is None:
        return teaching.crops(geometry)
    others = validation.crops(geometry)
    return others if len(others) >= 50 else LabelledCrops.concatenate([others, teaching.crops(geometry)])


def remove_work(work: Path) -> None:
    """Forget an unfinished training: state, log and curves, and the folder if nothing else is in it."""
    for name in (STATE, LOG, CURVES):
        (work / name).unlink(missing_ok=True)
    if work.is_dir() and not any(work.iterdir()):
        shutil.rmtree(work)


def check_targets(out: Path, work: Path) -> None:
    """Refuse places that hold something else, and disks without room, before any work is done."""
    check_target(out)
    if work.exists() and not work.is_dir():
        raise UserError(f"{work}: is a file, needed is a folder for the state of the training")
    with disk_errors(out):
        for folder in (out.parent, work):
            folder.mkdir(parents=True, exist_ok=True)
    require_free(out.parent, 20_000_000)
    require_free(work, 20_000_000)
