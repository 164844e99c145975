"""Cross-validation by group: every picture is called once, by a network that has seen no picture of its group."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edge_app.classification.bundle import Bundle
from edge_app.classification.crops import CropGeometry
from training.datasets.labelled import LabelledCrops
from training.datasets.pictures import LabelledPictures
from training.datasets.splits import duplicates_of, warn_of_duplicates
from training.datasets.weighting import class_mix
from training.evaluation.calibration import expected_calibration_error, find_temperature
from training.evaluation.intervals import FEW_GROUPS, GroupTables, scores_of_tables
from training.evaluation.measured_data import MeasuredData
from training.evaluation.output import write_evaluation
from training.fit import finish_fitted
from training.fitting.folds import group_folds
from training.fitting.machines import Machines
from training.fitting.options import FitOptions
from training.fitting.results_folder import ResultsFolder
from training.fitting.teaching import Logs, forget_training, teach_pictures
from training.fitting.validation_groups import set_validation_aside
from training.learning import predict_all_ways

__all__ = ["cross_validate", "draw_confusion", "print_folds", "summarise_folds"]

_RESAMPLES: Final = 2000

I8 = npt.NDArray[np.int64]
F8 = npt.NDArray[np.float64]


def cross_validate(
    pictures: LabelledPictures,
    out: Path,
    *,
    init: Bundle | None,
    options: FitOptions,
    folds: int = 5,
    pages: bool = False,
    machines: Machines | None = None,
    restart: bool = False,
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Fit once per fold, each time without it, and call its pictures.

    Parameters
    ----------
    pictures : LabelledPictures
    out : Path
        Folder for ``crossvalidation.json``, ``calls.csv``, ``confusion.png``, and for each fold its log and curves;
        folds that are there are not fitted again.
    init : Bundle or None
    options : FitOptions
    folds : int
        With fewer groups, as many as groups.
    pages : bool
        Make a bundle of each fold's network too, and the page of `python -m training evaluate` on its pictures.
    machines : Machines, optional
    restart : bool
    report : callable

    Returns
    -------
    dict
        What ``crossvalidation.json`` holds.
    """
    options.check(init=init)
    fold = group_folds(pictures.label, pictures.group, folds=folds, seed=options.seed, classes=pictures.classes)
    count = int(fold.max()) + 1
    if count < folds:
        report(f"{count} groups: {count} folds, one group each, not {folds}")
    duplicates = duplicates_of(pictures)
    parted = sorted({line for k in range(count) for line in warn_of_duplicates(duplicates, fold != k, fold == k)[:1]})
    for line in parted:
        report(line)
    start = "nothing" if init is None else f"{init.description.name} {init.description.version}"
    plan = {
        "start": start,
        "start_sha256": None if init is None else init.model_sha256[:12],
        "pictures": len(pictures),
        "classes": list(pictures.classes),
        "groups": len(np.unique(pictures.group)),
        "folds": count,
        "pages": pages,
        **asdict(options),
    }
    folder = ResultsFolder(out, plan, restart=restart)
    geometry = CropGeometry() if init is None else init.geometry
    pieces = []
    for k in range(count):
        test = np.flatnonzero(fold == k)

        def make(k: int = k, test: npt.NDArray[np.int64] = test) -> dict[str, Any]:
            report(
                f"fold {k + 1}/{count}: {len(np.unique(pictures.group[test]))} groups, {len(test)} pictures to measure"
            )
            return _one_fold(
                pictures,
                fold == k,
                init=init,
                geometry=geometry,
                options=replace(options, seed=options.seed + k),
                machines=machines,
                logs=Logs(work=out / f"fold-{k + 1}", report=lambda line: report(f"  {line}")),
                title=f"fold {k + 1} of {count}",
                pages=pages,
            )

        pieces.append(folder.piece(f"fold-{k + 1}", make))
        forget_training(out / f"fold-{k + 1}")
    probabilities = np.zeros((len(pictures), len(pictures.classes)))
    for k, piece in enumerate(pieces):
        probabilities[fold == k] = piece["probabilities"]
    result = {**plan, **summarise_folds(pictures, fold, probabilities)}
    for row, piece in zip(result["per_fold"], pieces, strict=True):
        row.update({name: piece[name] for name in ("temperature", "kept_epoch", "epochs_made", "validated")})
    folder.write_json("crossvalidation.json", result)
    folder.write("calls.csv", _calls(pictures, fold, probabilities))
    words = f"{count} folds by group, {len(pictures)} pictures of {plan['groups']} groups, {words_of_start(init)}"
    table = np.array(result["confusion"], np.int64)
    folder.write("confusion.png", draw_confusion(table, pictures.classes, title=words))
    return result


def words_of_start(init: Bundle | None) -> str:
    """What was started from, in words."""
    return "from nothing" if init is None else f"from {init.description.name} {init.description.version}"


def _one_fold(
    pictures: LabelledPictures,
    test: npt.NDArray[np.bool_],
    *,
    init: Bundle | None,
    geometry: CropGeometry,
    options: FitOptions,
    machines: Machines | None,
    logs: Logs,
    title: str,
    pages: bool,
) -> dict[str, Any]:
    known = pictures.take(np.flatnonzero(~test))
    teaching, validation, words = set_validation_aside(known, share=options.validation_share, seed=options.seed)
    logs.report(words if validation is not None else f"no validation set, so no early end: {words}")
    fitted = teach_pictures(
        teaching, validation, init=init, geometry=geometry, options=options, machines=machines, logs=logs, title=title
    )
    # Calibrated and for equal shares of the classes, as the bundle would say it.
    mix = class_mix(teaching.label, len(teaching.classes), method=options.balance)
    shift = -np.log(len(mix) * mix).astype(np.float32)
    temperature = 1.0
    if validation is not None:
        others = validation.crops(geometry)
        temperature = find_temperature(_logits(fitted.model, others, geometry), others.label, log_prior=shift)
    measured = pictures.take(np.flatnonzero(test))
    logits = _logits(fitted.model, measured.crops(geometry), geometry)
    if pages:
        assert logs.work is not None
        bundle = finish_fitted(
            fitted,
            logs.work / "bundle",
            teaching=teaching,
            validation=validation,
            measured=measured,
            geometry=geometry,
            options=options,
            record={"source": title},
        )
        data = MeasuredData(name=title, pictures=measured)
        write_evaluation(logs.work / "evaluation", bundle, data, unknown=None, report=logs.report)
    return {
        "temperature": round(float(temperature), 4),
        "kept_epoch": fitted.taught.kept_epoch,
        "epochs_made": fitted.record["epochs_made"],
        "validated": 0 if validation is None else len(validation),
        "probabilities": np.round(_softmax(logits / temperature + shift), 5).tolist(),
    }


def _logits(model: Any, crops: LabelledCrops, geometry: CropGeometry) -> npt.NDArray[np.float32]:
    """As the device asks: where the place in the frame is not known, over all ways a crop can lie."""
    return predict_all_ways(model, crops, columns=geometry.context)


def _softmax(logits: npt.NDArray[np.floating]) -> F8:
    wide = logits.astype(np.float64)
    wide = np.exp(wide - wide.max(axis=1, keepdims=True))
    return np.asarray(wide / wide.sum(axis=1, keepdims=True), np.float64)


def summarise_folds(pictures: LabelledPictures, fold: I8, probabilities: F8) -> dict[str, Any]:
    """Figures of all folds together and of each.

    Parameters
    ----------
    pictures : LabelledPictures
    fold : ndarray of int (n,)
    probabilities : ndarray (n, C)
        Of each picture, by the network that did not know its group.

    Returns
    -------
    dict
        ``pooled``, ``per_class``, ``confusion`` (rows true, columns called), ``per_fold``. Intervals are 95 % by
        bootstrap over groups.
    """
    n = len(pictures.classes)
    called = probabilities.argmax(axis=1)
    tables = GroupTables(pictures.label, called, pictures.group, classes=n, resamples=_RESAMPLES)
    scores = scores_of_tables(tables.table)
    names = ("precision", "recall", "f1")
    ranges = {name: tables.interval(lambda s, name=name: getattr(s, name)) for name in names}  # type: ignore[misc]
    per_fold = []
    for k in range(int(fold.max()) + 1):
        rows = fold == k
        own = scores_of_tables(
            np.bincount(pictures.label[rows] * (n + 1) + called[rows], minlength=n * (n + 1)).reshape(n, n + 1)
        )
        per_fold.append(
            {
                "fold": k + 1,
                "groups": sorted({str(g) for g in pictures.group[rows]}),
                "pictures": int(rows.sum()),
                "per_class": [int(v) for v in own.support],
                "macro_f1": round(float(own.macro_f1), 4),
                "accuracy": round(float(own.accuracy), 4),
                "balanced_accuracy": round(float(own.balanced_accuracy), 4),
            }
        )
    folds_f1 = np.array([row["macro_f1"] for row in per_fold], float)
    pooled = {
        name: tables.interval(lambda s, name=name: getattr(s, name))[0].rounded()  # type: ignore[misc]
        for name in ("macro_f1", "accuracy", "balanced_accuracy")
    }
    return {
        "few_groups": tables.groups < FEW_GROUPS,
        "pooled": {
            **pooled,
            "expected_calibration_error": round(
                expected_calibration_error(probabilities.max(axis=1).astype(np.float32), called == pictures.label), 4
            ),
            "macro_f1_folds_mean": round(float(folds_f1.mean()), 4),
            "macro_f1_folds_sd": round(float(folds_f1.std(ddof=1)), 4),
            "always_the_commonest_class": round(float(np.bincount(pictures.label).max() / len(pictures)), 4),
        },
        "per_class": [
            {
                "class": name,
                "pictures": int(scores.support[c]),
                **{figure: ranges[figure][c].rounded() for figure in names},
            }
            for c, name in enumerate(pictures.classes)
        ],
        "confusion": tables.table[:, :n].tolist(),
        "per_fold": per_fold,
    }


def _calls(pictures: LabelledPictures, fold: I8, probabilities: F8) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "group", "fold", "class", "called", *(f"p_{name}" for name in pictures.classes)])
    for i, called in enumerate(probabilities.argmax(axis=1).tolist()):
        words = [pictures.classes[int(pictures.label[i])], pictures.classes[called]]
        values = [f"{p:.4f}" for p in probabilities[i]]
        writer.writerow([pictures.files[i], str(pictures.group[i]), int(fold[i]) + 1, *words, *values])
    return text.getvalue().encode()


def draw_confusion(table: I8, classes: tuple[str, ...], *, title: str) -> bytes:
    """Draw a confusion table.

    Parameters
    ----------
    table : ndarray of int (C, C)
        Rows true class, columns called class.
    classes : tuple of str
    title : str

    Returns
    -------
    bytes
        PNG.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    n = len(classes)
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    figure, ax = plt.subplots(figsize=(2.6 + 0.85 * n, 1.7 + 0.7 * n), dpi=120, layout="constrained")
    image = ax.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for i in range(n):
        for j in range(n):
            colour = "white" if share[i, j] > 0.55 else "#2b333a"
            text = f"{100 * share[i, j]:.1f} %\n{table[i, j]}"
            ax.text(j, i, text, ha="center", va="center", fontsize=8, color=colour)
    names = [name.replace("_", " ") for name in classes]
    turned: dict[str, Any] = {"rotation": 30, "ha": "right"} if n > 3 else {}
    ax.set_xticks(range(n), names, **turned)
    ax.set_yticks(range(n), names)
    ax.set_xlabel("called")
    ax.set_ylabel("true class")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    bar = figure.colorbar(image, ax=ax, shrink=0.9)
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)
    figure.suptitle(title, fontsize=9, x=0.01, ha="left")
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    plt.close(figure)
    return content.getvalue()


def print_folds(result: dict[str, Any], *, report: Callable[[str], None] = print) -> None:
    """Say what `cross_validate` returned, line by line."""
    figures = ("precision", "recall", "f1")
    rows = [["class", "pictures", *figures]]
    rows += [[r["class"], str(r["pictures"]), *(_range(r[name]) for name in figures)] for r in result["per_class"]]
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    for row in rows:
        report("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    folds = ", ".join(f"{row['macro_f1']:.3f}" for row in result["per_fold"])
    report(f"macro-F1 by fold: {folds}")
    report(f"macro-F1 of all: {_range(result['pooled']['macro_f1'])}")
    report(f"balanced accuracy: {_range(result['pooled']['balanced_accuracy'])}")
    if result["few_groups"]:
        report(f"{result['groups']} groups only: the intervals are narrower than the truth")


def _range(figure: dict[str, float | None]) -> str:
    return f"{figure['value']:.3f} ({figure['low']:.2f} to {figure['high']:.2f})"
