"""How much worse the calls get as the pictures do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from training.evaluation.corruptions import SEVERITIES
from training.evaluation.intervals import GroupTables, difference
from training.evaluation.photographs import Photographs, Sweep
from training.evaluation.problem import Answers

__all__ = ["corruption_figures", "sweep_figures", "worst_at"]

Ask = Callable[[Photographs], Answers]


def _tables(answers: Answers, classes: int, resamples: int) -> GroupTables:
    return GroupTables(answers.truth, answers.called, answers.group, classes=classes, resamples=resamples)


def _compared(nominal: Answers, changed: Answers, classes: int, resamples: int) -> dict[str, Any]:
    """Macro-F1 of ``changed`` and its loss against ``nominal`` on the particles that both have."""
    both, first, second = np.intersect1d(nominal.row, changed.row, return_indices=True)
    figures: dict[str, Any] = {"pictures": len(changed), "detected_too": len(both)}
    if len(changed):
        table = _tables(changed, classes, 1)
        figures["macro_f1"] = round(table.interval(lambda s: s.macro_f1)[0].value, 4)
        figures["unknown_share"] = round(float((changed.called == classes).mean()), 4)
    if len(both):
        before = _tables(nominal.take(first), classes, resamples)
        after = _tables(changed.take(second), classes, resamples)
        figures["loss"] = difference(before, after, lambda s: s.macro_f1)[0].rounded()
    return figures


def corruption_figures(
    photographs: Photographs, ask: Ask, *, classes: int, resamples: int = 300
) -> list[dict[str, Any]]:
    """Macro-F1 over the severity table, on the same crops corrupted.

    Returns
    -------
    list of dict
        One per corruption: name, unit, and ``points`` by rising severity.
    """
    nominal = ask(photographs)
    found = []
    for corruption in SEVERITIES:
        points = []
        for severity, value in corruption.values.items():
            changed = (
                nominal
                if severity == 0
                else ask(photographs.with_pixels(corruption.apply(photographs.crops.pixels, value)))
            )
            points.append({"severity": severity, "value": value, **_compared(nominal, changed, classes, resamples)})
        found.append({"name": corruption.name, "unit": corruption.unit, "points": points})
    return found


def worst_at(corruptions: Sequence[dict[str, Any]], severity: int) -> dict[str, Any]:
    """The corruption that costs most at a severity, whatever its sign."""
    candidates = [
        {"name": c["name"], "unit": c["unit"], **p}
        for c in corruptions
        for p in c["points"]
        if abs(p["severity"]) == severity and "loss" in p
    ]
    return max(candidates, key=lambda p: p["loss"]["value"]) if candidates else {}


def sweep_figures(sweeps: Sequence[Sweep], ask: Ask, *, classes: int, resamples: int = 300) -> list[dict[str, Any]]:
    """Macro-F1 over conditions under which the pictures are taken anew.

    Returns
    -------
    list of dict
        One per condition: name, unit, note, nominal, and ``points``.
    """
    found = []
    for sweep in sweeps:
        nominal = ask(sweep.take(sweep.nominal))
        points = []
        for value in sweep.values:
            changed = nominal if value == sweep.nominal else ask(sweep.take(value))
            points.append({"value": value, **_compared(nominal, changed, classes, resamples)})
        found.append(
            {
                "name": sweep.name,
                "unit": sweep.unit,
                "note": sweep.note,
                "nominal": sweep.nominal,
                "points": points,
            }
        )
    return found
