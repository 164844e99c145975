"""All sections of the evaluation of one bundle, as plain figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edge_app.classification.backends import open_backend
from edge_app.classification.bundle import Bundle
from edge_app.classification.classifier import Classifier
from edge_app.classification.rejection import decide
from edge_app.errors import UserError
from training.evaluation.background_only import without_particle
from training.evaluation.calibration import at_temperature, expected_calibration_error, reliability
from training.evaluation.crop_figures import SIZE_BINS_UM
from training.evaluation.float_network import float_network, float_probabilities
from training.evaluation.importance import importance_maps, share_on_particle
from training.evaluation.intervals import FEW_GROUPS, GroupTables, scores_of_tables
from training.evaluation.particle_masks import mask_ecd_um
from training.evaluation.photographs import FolderSource, Photographs, SimulatedSource
from training.evaluation.prevalence import METHODS, mix_errors
from training.evaluation.problem import Answers, Problem
from training.evaluation.rejection import choose_rejection, composition_errors
from training.evaluation.repeatability import repeatability_figures
from training.evaluation.robustness import corruption_figures, sweep_figures, worst_at
from training.evaluation.speed import speed_figures
from training.evaluation.true_size import DEPTH_BINS_UM, true_size_figures

__all__ = ["EVERYTHING", "FIELD_BINS", "SCHEMA", "UNKNOWN_SHARES", "Panel", "Study", "StudyOptions", "study"]

SCHEMA: Final = "mfi.evaluation/1"
F4 = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

#: Distance from the middle of the frame, half diagonals.
FIELD_BINS: Final = ((0.0, 0.35), (0.35, 0.65), (0.65, 1.01))
UNKNOWN_SHARES: Final = (0.0, 0.02, 0.05, 0.08, 0.10, 0.15, 0.20)
#: Crops that are corrupted again and again, and those that Grad-CAM looks at.
_CORRUPTED: Final = 2500
_EXPLAINED: Final = 600
_PANELS: Final = 10


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """How much is measured."""

    resamples: int = 1000
    mixes: int = 200
    repeats: int = 10
    timed_calls: int = 30
    sweeps: bool = True


EVERYTHING: Final = StudyOptions()


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A crop, and what decided on it."""

    kind: str
    pixels: npt.NDArray[np.uint8]
    importance: F4
    truth: str
    called: str
    confidence: float
    on_particle: float | None


@dataclass(frozen=True, kw_only=True)
class Study:
    """Everything that was measured: ``figures`` for JSON, ``panels`` for the page."""

    figures: dict[str, Any]
    panels: tuple[Panel, ...]


Source = SimulatedSource | FolderSource


def study(
    bundle: Bundle,
    source: Source,
    *,
    unknown: Photographs | None = None,
    options: StudyOptions = EVERYTHING,
    report: Callable[[str], None] = lambda line: None,
) -> Study:
    """Measure a bundle.

    Parameters
    ----------
    bundle : Bundle
    source : SimulatedSource or FolderSource
        Pictures that the bundle was not made of; cut for its geometry.
    unknown : Photographs, optional
        Particles of none of its classes.
    options : StudyOptions
    report : callable
        Takes a line of progress.

    Returns
    -------
    Study
    """
    classifier = Classifier(bundle, open_backend(bundle).backend)
    problem = Problem(bundle, source.labels)
    n = len(problem.classes)

    def ask(photographs: Photographs) -> Answers:
        return problem.answers(photographs, classifier.classify(photographs.crops.crops))

    report("classifying")
    answers = ask(source.photographs())
    if not len(answers):
        raise UserError(f"{source.name}: no particle was detected in any picture")
    size_um, size_kind = _sizes(answers, bundle)
    d = bundle.description
    figures: dict[str, Any] = {
        "schema": SCHEMA,
        "bundle": {
            "name": d.name,
            "version": d.version,
            "model_sha256": bundle.model_sha256,
            "classes": list(bundle.classes),
            "network": d.training.get("network"),
            "temperature": d.temperature,
            "minimum_probability": d.rejection.minimum_probability,
        },
        "data": {
            "name": source.name,
            "simulated": isinstance(source, SimulatedSource),
            "pictures": len(answers),
            "groups": len(np.unique(answers.group)),
            "few_groups": len(np.unique(answers.group)) < FEW_GROUPS,
            "labels": list(source.labels),
            "rest_labels": list(problem.rest_labels),
            "size": size_kind,
        },
        "classes": list(problem.classes),
        "backend": f"{classifier.backend.name} {classifier.backend.version}",
    }
    figures["scores"] = _scores(answers, size_um, n, options)
    figures["scores"]["macro_f1_without_place"] = None
    if isinstance(source, SimulatedSource) and "field_known" in bundle.geometry.context:
        blind = ask(source.without_place())
        figures["scores"]["macro_f1_without_place"] = _interval(blind, n, options)
    report("calibration, class mix")
    figures["calibration"] = _calibration(answers, problem)
    figures["prevalence"] = _prevalence(answers, problem, size_um, options)
    figures["rejection"] = _rejection(answers, problem, None if unknown is None else ask(unknown))
    if options.sweeps:
        report("robustness")
        figures["robustness"] = _robustness(source, answers, ask, n)
    report("background only, repeatability")
    figures["background_only"] = _background_only(answers, ask, n, options)
    taken, words = source.repeats(options.repeats)
    of_row = np.full(int(answers.row.max()) + 1, np.nan)
    of_row[answers.row] = size_um
    several = [p.take(np.flatnonzero(p.row < len(of_row))) for p in taken]
    figures["repeatability"] = {
        "what_differs": words,
        **repeatability_figures(several, ask, ecd_um=of_row, bins=SIZE_BINS_UM),
    }
    figures["true_size"] = true_size_figures(answers, bins=((5.0, 8.0), (8.0, 15.0), (15.0, 30.0), (30.0, 70.0)))
    report("float network")
    model = float_network(bundle)
    panels: tuple[Panel, ...] = ()
    figures["int8"] = figures["importance"] = None
    if model is not None:
        # Simulated views are told their place; of pictures from elsewhere it is seldom known.
        told = np.isfinite(answers.photographs.crops.field_radius)
        all_ways = ~told if "field_known" in bundle.geometry.context else np.zeros(len(answers), bool)
        figures["int8"] = _int8(answers, model, problem, all_ways=all_ways)
        figures["importance"], panels = _importance(answers, model, problem)
    report("speed")
    figures["speed"] = speed_figures(bundle, answers.photographs.crops.crops, calls=options.timed_calls)
    return Study(figures=figures, panels=panels)


def _sizes(answers: Answers, bundle: Bundle) -> tuple[F4, str]:
    """Size by which particles are binned: the true one, else what the network reads, else the mask's."""
    crops = answers.photographs.crops
    if np.isfinite(crops.ecd_um).any():
        return crops.ecd_um, "true size"
    if answers.classification.ecd_um is not None:
        return answers.classification.ecd_um, "size read by the network"
    size = mask_ecd_um(
        crops.pixels, crops.box_px, window_px=bundle.geometry.window_px, um_per_px=bundle.geometry.um_per_px
    )
    return size, "diameter of the mask, halo included"


def _tables(answers: Answers, n: int, options: StudyOptions) -> GroupTables:
    return GroupTables(answers.truth, answers.called, answers.group, classes=n, resamples=options.resamples)


def _interval(answers: Answers, n: int, options: StudyOptions) -> dict[str, float | None]:
    return _tables(answers, n, options).interval(lambda s: s.macro_f1)[0].rounded()


def _part(answers: Answers, rows: Bools, n: int, options: StudyOptions) -> dict[str, Any]:
    some = answers.take(np.flatnonzero(rows))
    if not len(some):
        return {"pictures": 0}
    tables = _tables(some, n, options)
    return {
        "pictures": len(some),
        "macro_f1": tables.interval(lambda s: s.macro_f1)[0].rounded(),
        "balanced_accuracy": tables.interval(lambda s: s.balanced_accuracy)[0].rounded(),
        "unknown_share": round(float((some.called == n).mean()), 4),
    }


def _scores(answers: Answers, size_um: F4, n: int, options: StudyOptions) -> dict[str, Any]:
    tables = _tables(answers, n, options)
    each = {
        name: tables.interval(lambda s, name=name: getattr(s, name))  # type: ignore[misc]
        for name in ("precision", "recall", "f1")
    }
    table = tables.table
    without = scores_of_tables(
        GroupTables(answers.truth, answers.best, answers.group, classes=n, resamples=1).table
    ).macro_f1
    figures: dict[str, Any] = {
        "confusion": table.tolist(),
        "macro_f1": tables.interval(lambda s: s.macro_f1)[0].rounded(),
        "balanced_accuracy": tables.interval(lambda s: s.balanced_accuracy)[0].rounded(),
        "accuracy": tables.interval(lambda s: s.accuracy)[0].rounded(),
        "macro_f1_without_rejection": round(float(without), 4),
        "unknown_share": round(float((answers.called == n).mean()), 4),
        "per_class": [
            {"pictures": int(table[c].sum()), **{name: found[c].rounded() for name, found in each.items()}}
            for c in range(n)
        ],
        "by_group": [],
    }
    figures["from_5_um"] = _part(answers, size_um >= 5, n, options)
    figures["by_size_um"] = {
        f"{low:g}-{high:g}": _part(answers, (size_um >= low) & (size_um < high), n, options)
        for low, high in SIZE_BINS_UM
    }
    radius = answers.photographs.crops.field_radius
    figures["by_field_radius"] = (
        {
            f"{low:g}-{min(high, 1):g}": _part(answers, (radius >= low) & (radius < high) & (size_um >= 5), n, options)
            for low, high in FIELD_BINS
        }
        if np.isfinite(radius).any()
        else {}
    )
    depth = answers.photographs.crops.depth_um
    figures["by_depth_um"] = (
        {
            f"{low:g}-{high:g}": _part(answers, (depth >= low) & (depth < high) & (size_um >= 5), n, options)
            for low, high in DEPTH_BINS_UM
        }
        if np.isfinite(depth).any()
        else {}
    )
    names, index = np.unique(answers.group, return_inverse=True)
    if len(names) <= 60:
        right = answers.called == answers.truth
        figures["by_group"] = [
            {
                "group": str(name),
                "pictures": int((index == k).sum()),
                "right": round(float(right[index == k].mean()), 4),
            }
            for k, name in enumerate(names.tolist())
        ]
    return figures


def _calibration(answers: Answers, problem: Problem) -> dict[str, Any]:
    d = problem.bundle.description
    right = answers.best == answers.truth
    before = problem.folded(
        at_temperature(answers.classification.probabilities, temperature=d.temperature, log_prior=d.log_prior, new=1.0)
    )
    return {
        "temperature": d.temperature,
        "ece_before": round(expected_calibration_error(before.max(axis=1), before.argmax(axis=1) == answers.truth), 4),
        "ece": round(expected_calibration_error(answers.confidence, right), 4),
        "mean_confidence": round(float(answers.confidence.mean()), 4),
        "right_share": round(float(right.mean()), 4),
        "bins": [asdict(b) for b in reliability(answers.confidence, right)],
        "bins_before": [asdict(b) for b in reliability(before.max(axis=1), before.argmax(axis=1) == answers.truth)],
    }


def _prevalence(answers: Answers, problem: Problem, size_um: F4, options: StudyOptions) -> dict[str, Any]:
    def errors(rows: Bools, mixes: int) -> dict[str, Any] | None:
        some = answers.take(np.flatnonzero(rows))
        if len(np.unique(some.truth)) < 2:
            return None
        found = mix_errors(
            some.truth,
            some.called,
            some.probabilities,
            confusion=np.maximum(problem.confusion, 1e-6),
            assumed_prior=problem.assumed_prior,
            mixes=mixes,
        )
        present = np.bincount(some.truth, minlength=len(problem.classes)) > 0
        return {
            method: {
                "mae": round(float(found.mae(method)[present].mean()), 4),
                "rae": round(float(found.rae(method)[present].mean()), 4),
                "mae_per_class": np.round(found.mae(method), 4).tolist(),
                "rae_per_class": np.round(found.rae(method), 4).tolist(),
            }
            for method in METHODS
        }

    whole = errors(np.ones(len(answers), bool), options.mixes)
    return {
        "samples": options.mixes,
        "particles_per_sample": 500,
        "methods": dict(METHODS),
        "all": whole,
        "by_size_um": {
            f"{low:g}-{high:g}": errors((size_um >= low) & (size_um < high), max(20, options.mixes // 4))
            for low, high in SIZE_BINS_UM
        },
    }


def _rejection(answers: Answers, problem: Problem, unknown: Answers | None) -> dict[str, Any] | None:
    """Half of the groups choose the thresholds, the other half measure them; of particles from 5 um."""
    if unknown is None or problem.has_rest or len(np.unique(unknown.group)) < 2:
        return None

    def halves(a: Answers) -> tuple[Answers, Answers]:
        names = np.unique(a.group)
        first = np.isin(a.group, names[::2])
        return a.take(np.flatnonzero(first)), a.take(np.flatnonzero(~first))

    n = len(problem.classes)
    bundle = problem.bundle
    answers, unknown = (a.take(np.flatnonzero(_sizes(a, bundle)[0] >= SIZE_BINS_UM[0][0])) for a in (answers, unknown))
    (known_a, known_b), (unknown_a, unknown_b) = halves(answers), halves(unknown)
    if not min(len(a) for a in (known_a, known_b, unknown_a, unknown_b)):
        return None
    rule, _ = choose_rejection(
        known_a.probabilities,
        known_a.truth,
        unknown_a.probabilities,
        known_novelty=known_a.classification.novelty,
        unknown_novelty=unknown_a.classification.novelty,
        highest=0.9,
    )
    chosen = [
        decide(a.probabilities, rejection=rule, novelty=a.classification.novelty).class_index.astype(np.int64)
        for a in (known_b, unknown_b)
    ]
    calls = [(known_b.best, unknown_b.best), (known_b.called, unknown_b.called), (chosen[0], chosen[1])]
    curve = composition_errors(known_b.truth, calls, classes=n, unknown_shares=UNKNOWN_SHARES)
    at = UNKNOWN_SHARES.index(0.10)
    bundle_rule = problem.bundle.description.rejection
    names = ("no rejection", "the bundle's rule", "threshold chosen on the other half")
    return {
        "unknown_pictures": len(unknown_b),
        "unknown_groups": len(np.unique(unknown_b.group)),
        "bundle_minimum_probability": bundle_rule.minimum_probability,
        "chosen_minimum_probability": rule.minimum_probability,
        "unknown_shares": list(UNKNOWN_SHARES),
        "curves": [
            {
                "rule": name,
                "composition_error": np.round(row, 4).tolist(),
                "known_rejected": round(float((of_known == n).mean()), 4),
                "unknown_rejected": round(float((of_unknown == n).mean()), 4),
            }
            for name, row, (of_known, of_unknown) in zip(names, curve, calls, strict=True)
        ],
        "gain_at_10_percent": round(float(1 - curve[1, at] / curve[0, at]), 4) if curve[0, at] > 0 else None,
        "gain_at_10_percent_chosen": round(float(1 - curve[2, at] / curve[0, at]), 4) if curve[0, at] > 0 else None,
        "called": {
            name: round(float(share), 4)
            for name, share in zip(
                (*problem.classes, "unknown"),
                np.bincount(unknown_b.called, minlength=n + 1) / len(unknown_b),
                strict=True,
            )
        },
    }


def _robustness(source: Source, answers: Answers, ask: Callable[[Photographs], Answers], n: int) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    rows = np.sort(rng.permutation(len(answers))[:_CORRUPTED])
    corruptions = corruption_figures(answers.photographs.take(rows), ask, classes=n)
    return {
        "corrupted_pictures": len(rows),
        "corruptions": corruptions,
        "worst_at_severity_2": worst_at(corruptions, 2),
        "conditions": sweep_figures(source.sweeps(), ask, classes=n),
    }


def _background_only(
    answers: Answers, ask: Callable[[Photographs], Answers], n: int, options: StudyOptions
) -> dict[str, Any]:
    photographs = answers.photographs
    empty = ask(photographs.with_pixels(without_particle(photographs.crops.pixels, answers.group)))
    # Rejection is set aside: what is asked is whether the likeliest class follows the truth.
    tables = GroupTables(empty.truth, empty.best, empty.group, classes=n, resamples=options.resamples)
    found = tables.interval(lambda s: s.balanced_accuracy)[0]
    chance = 1 / int((tables.table.sum(axis=1) > 0).sum())
    return {
        "balanced_accuracy": found.rounded(),
        "chance": round(chance, 4),
        "at_chance": bool(found.low <= chance + 0.02),
        "unknown_share": round(float((empty.called == n).mean()), 4),
        "called": np.bincount(empty.best, minlength=n).tolist(),
    }


def _int8(answers: Answers, model: Any, problem: Problem, *, all_ways: Bools) -> dict[str, Any]:
    n = len(problem.classes)
    own = float_probabilities(model, problem.bundle, answers.photographs.crops, all_ways=all_ways)
    as_float = problem.folded(own).argmax(axis=1)

    def score(called: npt.NDArray[np.integer]) -> float:
        table = GroupTables(answers.truth, called, answers.group, classes=n, resamples=1).table
        return float(scores_of_tables(table).macro_f1)

    return {
        "same_class": round(float((as_float == answers.best).mean()), 4),
        "macro_f1_float": round(score(as_float), 4),
        "macro_f1_int8": round(score(answers.best), 4),
        "loss_points": round(100 * (score(as_float) - score(answers.best)), 3),
        "largest_probability_difference": round(float(np.abs(own - answers.classification.probabilities).max()), 4),
    }


def _importance(answers: Answers, model: Any, problem: Problem) -> tuple[dict[str, Any] | None, tuple[Panel, ...]]:
    rng = np.random.default_rng(9)
    some = np.sort(rng.permutation(len(answers))[:_EXPLAINED])
    own = answers.classification.probabilities.argmax(axis=1)
    crops = answers.photographs.crops
    maps = importance_maps(model, crops.take(some), own[some])
    if maps is None:
        return None, ()
    share = share_on_particle(maps, crops.pixels[some])
    right, sure = answers.best == answers.truth, answers.confidence
    order = rng.permutation(len(answers))
    picks = {
        # One after the other from each class, so that a panel does not show one class only.
        "right": _in_turn(order[right[order]], answers.truth, _PANELS),
        "wrong": np.flatnonzero(~right)[np.argsort(-sure[~right], kind="stable")][:_PANELS],
        "least certain": np.argsort(sure, kind="stable")[:_PANELS],
    }
    panels = []
    names = (*problem.classes, "unknown")
    for kind, rows in picks.items():
        found = importance_maps(model, crops.take(rows), own[rows]) if len(rows) else np.zeros((0, 1, 1), np.float32)
        assert found is not None
        for i, heat in zip(rows.tolist(), found, strict=True):
            one = share_on_particle(heat[None], crops.pixels[i : i + 1])
            panels.append(
                Panel(
                    kind=kind,
                    pixels=crops.pixels[i, ..., 0],
                    importance=heat,
                    truth=names[int(answers.truth[i])],
                    called=names[int(answers.best[i])],
                    confidence=float(sure[i]),
                    on_particle=one.on_particle if one.crops else None,
                )
            )
    figures = {
        "crops": share.crops,
        "share_on_particle": round(share.on_particle, 4),
        "share_within_2_px": round(share.near_particle, 4),
        "area_of_particle": round(share.area, 4),
    }
    return figures, tuple(panels)


def _in_turn(rows: npt.NDArray[np.integer], label: npt.NDArray[np.integer], count: int) -> npt.NDArray[np.integer]:
    """The first of each label, then the second of each, ..."""
    seen: dict[int, int] = {}
    rank = np.empty(len(rows), np.int64)
    for k, i in enumerate(rows.tolist()):
        rank[k] = seen.get(int(label[i]), 0)
        seen[int(label[i])] = int(rank[k]) + 1
    return rows[np.lexsort((label[rows], rank))][:count]
