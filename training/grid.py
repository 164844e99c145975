"""Learning rate against batch size: a short training in each cell, a heat map of all of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge_app.classification.bundle import Bundle
from edge_app.classification.crops import CropGeometry
from edge_app.errors import UserError
from training.datasets.pictures import LabelledPictures
from training.datasets.splits import split_pictures
from training.fitting.machines import Machines
from training.fitting.options import FitOptions
from training.fitting.results_folder import ResultsFolder
from training.fitting.teaching import Logs, teach_pictures
from training.fitting.validation_groups import set_validation_aside
from training.learning import DivergedError

__all__ = ["BATCHES", "LEARNING_RATES", "draw_heat_map", "search_grid"]

#: Of the excipients' study (Int. J. Pharm. X 2022), which taught by gradient descent with momentum 0.9.
LEARNING_RATES: Final = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
BATCHES: Final = (16, 32, 48, 64)


def search_grid(
    pictures: LabelledPictures,
    out: Path,
    *,
    init: Bundle | None,
    options: FitOptions,
    learning_rates: Sequence[float] = LEARNING_RATES,
    batches: Sequence[int] = BATCHES,
    split: Path | None = None,
    machines: Machines | None = None,
    restart: bool = False,
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Teach in every cell and score on the validation set; the groups that measure a result are left alone.

    Parameters
    ----------
    pictures : LabelledPictures
    out : Path
        Folder for ``grid.json``, ``grid.csv`` and ``grid.png``; cells that are there are not made again.
    init : Bundle or None
    options : FitOptions
        Its learning rate and batch are replaced.
    learning_rates, batches : sequence
    split : Path, optional
        As for `training.fit.fit_pictures`, so that the same groups are left alone.
    machines : Machines, optional
    restart : bool
    report : callable

    Returns
    -------
    dict
        What ``grid.json`` holds.

    Raises
    ------
    UserError
        No validation set can be set aside.
    """
    for rate in learning_rates:
        for batch in batches:
            replace(options, learning_rate=rate, batch=batch).check(init=init)
    train, _ = split_pictures(pictures, split=split, seed=options.seed)
    known = pictures.take(np.flatnonzero(train))
    teaching, validation, words = set_validation_aside(known, share=options.validation_share, seed=options.seed)
    if validation is None:
        raise UserError(f"a grid is scored on a validation set, and none can be set aside: {words}")
    report(words)
    start = "none" if init is None else f"{init.description.name} {init.model_sha256[:12]}"
    plan = {
        "start": start,
        "pictures": len(pictures),
        "learning_rates": list(learning_rates),
        "batches": list(batches),
        **{k: v for k, v in asdict(options).items() if k not in ("learning_rate", "batch")},
    }
    folder = ResultsFolder(out, plan, restart=restart)
    geometry = CropGeometry() if init is None else init.geometry
    cells = []
    for rate in learning_rates:
        for batch in batches:
            chosen = replace(options, learning_rate=rate, batch=batch)

            def make(chosen: FitOptions = chosen) -> dict[str, Any]:
                return _cell(teaching, validation, init=init, geometry=geometry, options=chosen, machines=machines)

            cell = folder.piece(f"rate-{rate:g}-batch-{batch}", make)
            cells.append(cell)
            report(f"learning rate {rate:g}, batch {batch}: {_words(cell)}")
    best = max((c for c in cells if c["macro_f1"] is not None), key=_rank, default=None)
    if best is None:
        raise UserError("the loss was not a number in any cell; try lower --learning-rates")
    result = {**plan, "validation_pictures": len(validation), "cells": cells, "best": best}
    folder.write_json("grid.json", result)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(cells[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(cells)
    folder.write("grid.csv", text.getvalue().encode())
    words = "from nothing" if init is None else f"from {init.description.name}"
    title = f"{words}, {options.epochs} epochs, {options.optimizer}, {len(teaching)} pictures"
    folder.write("grid.png", draw_heat_map(cells, learning_rates, batches, title=title))
    report(f"best: --learning-rate {best['learning_rate']:g} --batch {best['batch']} ({_words(best)})")
    return result


def _cell(
    teaching: LabelledPictures,
    validation: LabelledPictures,
    *,
    init: Bundle | None,
    geometry: CropGeometry,
    options: FitOptions,
    machines: Machines | None,
) -> dict[str, Any]:
    place: dict[str, Any] = {"learning_rate": options.learning_rate, "batch": options.batch}
    try:
        fitted = teach_pictures(
            teaching,
            validation,
            init=init,
            geometry=geometry,
            options=options,
            machines=machines,
            logs=Logs(report=lambda line: None),
        )
    except DivergedError:
        return {**place, "macro_f1": None, "validation_loss": None, "epoch": None}
    # The start is no merit of a cell.
    rows = [row for row in fitted.taught.history if row["epoch"] > 0]
    kept = min(rows, key=lambda row: float(row["validation_loss"]))
    return {
        **place,
        "macro_f1": round(kept["validation_macro_f1"], 4),
        "validation_loss": round(kept["validation_loss"], 4),
        "epoch": kept["epoch"],
    }


def _rank(cell: dict[str, Any]) -> tuple[float, float]:
    return cell["macro_f1"], -cell["validation_loss"]


def _words(cell: dict[str, Any]) -> str:
    if cell["macro_f1"] is None:
        return "the loss became no number"
    return f"macro-F1 {cell['macro_f1']:.4f}, loss {cell['validation_loss']:.4f} in epoch {cell['epoch']}"


def draw_heat_map(
    cells: Sequence[dict[str, Any]], learning_rates: Sequence[float], batches: Sequence[int], *, title: str
) -> bytes:
    """Draw macro-F1 of each cell.

    Parameters
    ----------
    cells : sequence of dict
        ``learning_rate``, ``batch``, ``macro_f1`` (None: diverged), ``epoch``.
    learning_rates, batches : sequence
        Columns and rows.
    title : str

    Returns
    -------
    bytes
        PNG.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import Rectangle

    by_place = {(c["learning_rate"], c["batch"]): c for c in cells}
    score = np.array(
        [
            [np.nan if by_place[r, b]["macro_f1"] is None else by_place[r, b]["macro_f1"] for r in learning_rates]
            for b in batches
        ],
        float,
    )
    low, high = float(np.nanmin(score)), float(np.nanmax(score))
    figure, ax = plt.subplots(
        figsize=(1.6 + 1.05 * len(learning_rates), 1.5 + 0.62 * len(batches)), dpi=120, layout="constrained"
    )
    colours = plt.get_cmap("YlGnBu").with_extremes(bad="#eceff1")
    image = ax.imshow(score, cmap=colours, vmin=low, vmax=max(high, low + 0.01), aspect="auto")
    best = max((c for c in cells if c["macro_f1"] is not None), key=_rank)
    for row, batch in enumerate(batches):
        for column, rate in enumerate(learning_rates):
            cell = by_place[rate, batch]
            value = cell["macro_f1"]
            text = "diverged" if value is None else f"{value:.3f}\nepoch {cell['epoch']}"
            dark = value is not None and value > low + 0.55 * (high - low)
            ax.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if dark else "#2b333a")
            if cell is best:
                ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="#c4572e", linewidth=2.5))
    ax.set_xticks(range(len(learning_rates)), [f"{r:g}" for r in learning_rates])
    ax.set_yticks(range(len(batches)), [str(b) for b in batches])
    ax.set_xlabel("learning rate")
    ax.set_ylabel("batch")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    bar = figure.colorbar(image, ax=ax, shrink=0.9, format="%.3f")
    bar.set_label("macro-F1, validation set")
    bar.outline.set_visible(False)
    figure.suptitle(title, fontsize=9.5, x=0.01, ha="left")
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    plt.close(figure)
    return content.getvalue()
