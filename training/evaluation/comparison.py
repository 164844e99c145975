"""Two bundles on the same pictures: which is better, and may it be chance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from edge_app.classification.backends import open_backend
from edge_app.classification.bundle import Bundle
from edge_app.classification.classifier import Classifier
from edge_app.classification.crops import CropGeometry
from edge_app.errors import UserError
from training.evaluation.calibration import expected_calibration_error
from training.evaluation.crop_figures import SIZE_BINS_UM
from training.evaluation.intervals import FEW_GROUPS, GroupTables, difference
from training.evaluation.photographs import FolderSource, SimulatedSource
from training.evaluation.prevalence import mix_errors
from training.evaluation.problem import Answers, Problem
from training.evaluation.speed import speed_figures
from training.evaluation.study import Panel, Study

__all__ = ["SCHEMA", "McNemar", "compare", "mcnemar"]

SCHEMA: Final = "mfi.comparison/1"
Bools = npt.NDArray[np.bool_]
_PANELS: Final = 10


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """Pictures that only one of two got right, and the chance of so uneven a split if both were as good."""

    both_right: int
    only_first: int
    only_second: int
    both_wrong: int
    p_value: float


def mcnemar(first: Bools, second: Bools) -> McNemar:
    """Exact McNemar test.

    Parameters
    ----------
    first, second : ndarray of bool (n,)
        Whether each was right, on the same pictures.

    References
    ----------
    Q. McNemar, Psychometrika 12 (1947) 153; exact: binomial with p = 1/2 on the pictures where they differ.

    Examples
    --------
    >>> a = np.array([True] * 8 + [False] * 2)
    >>> round(mcnemar(a, ~a).p_value, 4)
    0.1094
    """
    one, two = int((first & ~second).sum()), int((~first & second).sum())
    p = float(binomtest(one, one + two, 0.5).pvalue) if one + two else 1.0
    return McNemar(
        both_right=int((first & second).sum()),
        only_first=one,
        only_second=two,
        both_wrong=int((~first & ~second).sum()),
        p_value=p,
    )


def compare(
    first: Bundle,
    second: Bundle,
    source_of: Callable[[CropGeometry], SimulatedSource | FolderSource],
    *,
    resamples: int = 2000,
    report: Callable[[str], None] = lambda line: None,
) -> Study:
    """Measure two bundles on the same pictures.

    Only the classes that both have are told apart; every other label is the rest for both.

    Parameters
    ----------
    first, second : Bundle
    source_of : callable
        Geometry -> source: each bundle has its own window.
    resamples : int
        Of the groups.
    report : callable
        Takes a line of progress.

    Returns
    -------
    Study
        Figures, and pictures that one called rightly and the other not.
    """
    shared = tuple(name for name in first.classes if name in second.classes)
    if not shared:
        raise UserError(
            f"bundles {first.description.name} ({', '.join(first.classes)}) and {second.description.name} "
            f"({', '.join(second.classes)}) have no class in common"
        )
    asked = []
    for bundle in (first, second):
        report(f"classifying with {bundle.description.name} {bundle.description.version}")
        source = source_of(bundle.geometry)
        problem = Problem(bundle, source.labels, known=shared)
        photographs = source.photographs()
        classifier = Classifier(bundle, open_backend(bundle).backend)
        asked.append((problem, problem.answers(photographs, classifier.classify(photographs.crops.crops))))
    # Windows of another size or margin could lose a picture to one of the two.
    _, rows_a, rows_b = np.intersect1d(asked[0][1].row, asked[1][1].row, return_indices=True)
    if not len(rows_a):
        raise UserError(f"{source.name}: no picture that both bundles can read")
    a, b = asked[0][1].take(rows_a), asked[1][1].take(rows_b)
    problem = asked[0][0]
    n = len(problem.classes)

    def tables(answers: Answers) -> GroupTables:
        return GroupTables(answers.truth, answers.called, answers.group, classes=n, resamples=resamples)

    table_a, table_b = tables(a), tables(b)
    gain = difference(table_b, table_a, lambda s: s.macro_f1)[0]
    class_gains = difference(table_b, table_a, lambda s: s.f1)
    paired = mcnemar(a.called == a.truth, b.called == b.truth)
    groups = len(np.unique(a.group))
    figures: dict[str, Any] = {
        "schema": SCHEMA,
        "data": {
            "name": source.name,
            "simulated": isinstance(source, SimulatedSource),
            "pictures": len(a),
            "groups": groups,
            "few_groups": groups < FEW_GROUPS,
            "rest_labels": list(problem.rest_labels),
        },
        "classes": list(problem.classes),
        "bundles": [_bundle_figures(p, x, t) for (p, _), x, t in zip(asked, (a, b), (table_a, table_b), strict=True)],
        "macro_f1_gain": gain.rounded(),
        "better": None if gain.low <= 0 <= gain.high else "second" if gain.low > 0 else "first",
        "mcnemar": {
            "both_right": paired.both_right,
            "only_first": paired.only_first,
            "only_second": paired.only_second,
            "both_wrong": paired.both_wrong,
            "p_value": paired.p_value,
        },
        "per_class": [{"pictures": int((a.truth == c).sum()), "f1_gain": class_gains[c].rounded()} for c in range(n)],
        "by_size_um": _by_size(a, b, tables),
    }
    return Study(figures=figures, panels=_disputed(a, b, problem))


def _bundle_figures(problem: Problem, answers: Answers, table: GroupTables) -> dict[str, Any]:
    d = problem.bundle.description
    mix = None
    if len(np.unique(answers.truth)) > 1:
        found = mix_errors(
            answers.truth,
            answers.called,
            answers.probabilities,
            confusion=np.maximum(problem.confusion, 1e-6),
            assumed_prior=problem.assumed_prior,
        )
        mix = round(float(found.mae("emq").mean()), 4)
    return {
        "name": d.name,
        "version": d.version,
        "model_sha256": problem.bundle.model_sha256,
        "network": d.training.get("network"),
        "macro_f1": table.interval(lambda s: s.macro_f1)[0].rounded(),
        "balanced_accuracy": table.interval(lambda s: s.balanced_accuracy)[0].rounded(),
        "accuracy": table.interval(lambda s: s.accuracy)[0].rounded(),
        "f1": [r.rounded() for r in table.interval(lambda s: s.f1)],
        "confusion": table.table.tolist(),
        "unknown_share": round(float((answers.called == len(problem.classes)).mean()), 4),
        "ece": round(expected_calibration_error(answers.confidence, answers.best == answers.truth), 4),
        "prevalence_mae_emq": mix,
        "speed": speed_figures(problem.bundle, answers.photographs.crops.crops),
    }


def _by_size(a: Answers, b: Answers, tables: Callable[[Answers], GroupTables]) -> dict[str, Any]:
    size = a.photographs.crops.ecd_um
    found: dict[str, Any] = {}
    if not np.isfinite(size).any():
        return found
    for low, high in SIZE_BINS_UM:
        rows = np.flatnonzero((size >= low) & (size < high))
        if len(rows):
            one, two = tables(a.take(rows)), tables(b.take(rows))
            found[f"{low:g}-{high:g}"] = {
                "pictures": len(rows),
                "macro_f1": [t.interval(lambda s: s.macro_f1)[0].rounded() for t in (one, two)],
                "gain": difference(two, one, lambda s: s.macro_f1)[0].rounded(),
            }
    return found


def _disputed(a: Answers, b: Answers, problem: Problem) -> tuple[Panel, ...]:
    """Pictures that one called rightly and the other not, the surest errors first."""
    names = (*problem.classes, "unknown")
    right_a, right_b = a.called == a.truth, b.called == b.truth
    panels = []
    for kind, rows, wrong in (
        ("only the first is right", np.flatnonzero(right_a & ~right_b), b),
        ("only the second is right", np.flatnonzero(~right_a & right_b), a),
    ):
        surest = rows[np.argsort(-wrong.confidence[rows], kind="stable")][:_PANELS]
        panels += [
            Panel(
                kind=kind,
                pixels=a.photographs.crops.pixels[i, ..., 0],
                importance=np.zeros((0, 0), np.float32),
                truth=names[int(a.truth[i])],
                called=names[int(wrong.called[i])],
                confidence=float(wrong.confidence[i]),
                on_particle=None,
            )
            for i in surest.tolist()
        ]
    return tuple(panels)
