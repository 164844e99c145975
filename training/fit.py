"""A lab's own pictures into a bundle: split by group, fine-tune from a bundle, calibrate, convert."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converters import check_target
from edge_app.classification.bundle import Bundle
from edge_app.classification.crops import CropGeometry
from edge_app.errors import UserError
from training.datasets.labelled import LabelledCrops
from training.datasets.pictures import LabelledPictures
from training.datasets.splits import duplicates_of, split_pictures, warn_of_duplicates
from training.datasets.weighting import class_mix
from training.finish import finish_bundle
from training.fitting.disk import disk_errors, require_free
from training.fitting.machines import Machines
from training.fitting.options import FitOptions
from training.fitting.start import FLOAT_WEIGHTS, network_from_bundle
from training.fitting.teaching import Fitted, Logs, forget_training, teach_pictures
from training.fitting.validation_groups import set_validation_aside

__all__ = ["FLOAT_WEIGHTS", "check_targets", "finish_fitted", "fit_pictures", "network_from_bundle"]


def fit_pictures(
    pictures: LabelledPictures,
    out: Path,
    *,
    init: Bundle | None,
    options: FitOptions,
    split: Path | None = None,
    test_share: float = 0.2,
    source: str = "labelled pictures",
    machines: Machines | None = None,
    logs: Logs,
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
        bundle = finish_fitted(
            fitted,
            out,
            teaching=teaching,
            validation=validation,
            measured=pictures.take(np.flatnonzero(test)),
            geometry=geometry,
            options=options,
            record={"source": source, **duplicates.record(train)},
            report=report,
        )
    if logs.work is not None:
        forget_training(logs.work)
        report(f"log and curves: {logs.work}")
    figures = bundle.description.metrics["groups set aside"]
    report(json.dumps({"bundle": str(out), "macro_f1": figures["macro_f1"], "particles": figures["particles"]}))
    return bundle


def finish_fitted(
    fitted: Fitted,
    out: Path,
    *,
    teaching: LabelledPictures,
    validation: LabelledPictures | None,
    measured: LabelledPictures,
    geometry: CropGeometry,
    options: FitOptions,
    record: Mapping[str, Any],
    report: Callable[[str], None] = lambda line: None,
) -> Bundle:
    """Make a bundle of a taught network; ``measured`` are pictures of groups that it has not seen.

    ``record`` is kept beside what is known of the teaching; ``report`` takes a line.
    """
    return finish_bundle(
        fitted.model,
        out,
        network=fitted.network,
        network_options=fitted.network_options,
        name=out.name or "bundle",
        version="1",
        geometry=geometry,
        calibration=_calibrating(validation, teaching, geometry),
        tests={"groups set aside": measured.crops(geometry)},
        classes=teaching.classes,
        taught_mix=class_mix(teaching.label, len(teaching.classes), method=options.balance).tolist(),
        # Half way between equal shares and the lab's own: recall of a rare class against false calls of it.
        class_offset=np.log(
            len(teaching.classes) * class_mix(teaching.label, len(teaching.classes), method="sqrt")
        ).tolist(),
        # Without a validation set the loss to int8 is judged on the pictures that it would be taught with.
        learned_from=None if validation is None else teaching.crops(geometry),
        report=report,
        training={
            "start": fitted.start,
            "seed": options.seed,
            "views": len(teaching),
            "particles": len(teaching),
            "groups_trained": _names(teaching.group),
            "groups_validated": [] if validation is None else _names(validation.group),
            "groups_measured": _names(measured.group),
            **record,
            **fitted.record,
        },
    )


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
