"""The folder that a command leaves behind: page, figures, model card."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_app.classification.bundle import Bundle
from edge_app.errors import UserError
from edge_app.recording.atomic_file import atomic_file
from training.evaluation.comparison import compare
from training.evaluation.measured_data import MeasuredData, read_strangers
from training.evaluation.page import comparison_page, evaluation_page
from training.evaluation.study import EVERYTHING, Study, StudyOptions, study
from training.model_card import evaluation_card

__all__ = ["write_comparison", "write_evaluation"]


def write_evaluation(
    out: Path,
    bundle: Bundle,
    data: MeasuredData,
    *,
    unknown: Path | None,
    options: StudyOptions = EVERYTHING,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Measure a bundle and write ``evaluation.html``, ``evaluation.json`` and ``MODEL_CARD.md``.

    Returns
    -------
    dict
        The figures.
    """
    _make(out)
    strangers = data.unknown(bundle.geometry)
    if unknown is not None:
        assert data.pictures is not None
        strangers = read_strangers(unknown, geometry=bundle.geometry, um_per_px=data.pictures.um_per_px)
    optics = data.optics_sweeps(report) if options.sweeps else []
    found = study(
        bundle, data.source(bundle.geometry, optics=optics), unknown=strangers, options=options, report=report
    )
    _write(out, "evaluation", found, evaluation_page(found))
    with atomic_file(out / "MODEL_CARD.md") as file:
        file.write(evaluation_card(bundle, found.figures).encode())
    report(f"{out / 'evaluation.html'}")
    return found.figures


def write_comparison(
    out: Path, first: Bundle, second: Bundle, data: MeasuredData, *, report: Callable[[str], None]
) -> dict[str, Any]:
    """Compare two bundles and write ``comparison.html`` and ``comparison.json``; returns the figures."""
    _make(out)
    found = compare(first, second, data.source, report=report)
    _write(out, "comparison", found, comparison_page(found))
    report(f"{out / 'comparison.html'}")
    return found.figures


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: no folder can be made there ({error.strerror})") from None


def _write(out: Path, name: str, found: Study, page: bytes) -> None:
    with atomic_file(out / f"{name}.json") as file:
        file.write((json.dumps(found.figures, indent=1, allow_nan=False) + "\n").encode())
    with atomic_file(out / f"{name}.html") as file:
        file.write(page)
