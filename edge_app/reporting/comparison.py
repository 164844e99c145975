"""Two runs side by side: populations, concentrations and composition, each with its effect before any p-value."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edge_app.errors import UserError
from edge_app.measurement.comparability import DESCRIPTORS, compare_populations
from edge_app.measurement.comparability import Comparison as PopulationComparison
from edge_app.measurement.concentration import CountSeries, Interval, difference, interval_per_ml
from edge_app.measurement.histogram import REPORTING_EDGES_UM
from edge_app.measurement.poisson import CONFIDENCE, normal_quantile
from edge_app.recording.pictures import sample_keys
from edge_app.recording.record_reader import open_record
from edge_app.reporting.budgets import size_result
from edge_app.reporting.flags import Flag
from edge_app.reporting.number_text import class_text, interval_text, per_ml_text, size_text
from edge_app.reporting.run_facts import RunFacts, read_run

__all__ = [
    "SCHEMA",
    "ClassShare",
    "RunComparison",
    "SizeComparison",
    "compare_runs",
    "comparison_tree",
    "descriptor_text",
]

SCHEMA: Final = "mfi.comparison/1"
LARGEST_SAMPLE: Final = 1000
FEWEST_WINDOWS: Final = 8
"""Windows in each run from which they are what is permuted; below, frames are."""

_WORDS: Final = {
    "ecd_um": "size", "aspect_ratio": "aspect ratio", "circularity": "circularity", "solidity": "solidity",
    "intensity_mean": "mean intensity", "intensity_std": "spread of intensity", "edge_gradient": "edge gradient",
}  # fmt: skip


def descriptor_text(name: str) -> str:
    """A descriptor as a reader writes it."""
    return _WORDS.get(name, name.replace("_", " "))


@dataclass(frozen=True, kw_only=True)
class SizeComparison:
    """Concentrations at and above a size.

    Attributes
    ----------
    first, second
        Intervals of the counts, or with volume and size scale in them where the runs have different calibrations.
    rest
        First less second.
    """

    size_um: float
    first: Interval
    second: Interval
    rest: Interval

    @property
    def shown(self) -> bool:
        """Whether the interval of the difference leaves 0 out."""
        return self.rest.low > 0 or self.rest.high < 0


@dataclass(frozen=True, kw_only=True)
class ClassShare:
    """Share of a class among the particles compared, of each run, with 95 % intervals."""

    class_name: str
    counts: tuple[int, int]
    first: tuple[float, float, float]
    second: tuple[float, float, float]
    rest: tuple[float, float, float]

    @property
    def shown(self) -> bool:
        """Whether the interval of the difference leaves 0 out."""
        return self.rest[1] > 0 or self.rest[2] < 0


@dataclass(frozen=True, kw_only=True)
class RunComparison:
    """Everything that is said of two runs.

    Attributes
    ----------
    unlike
        What makes them hard to compare; stands before any number.
    from_um, class_name
        Particles compared: at and above this size, of this class (``all``).
    permuted
        What was permuted whole: ``windows`` or ``frames``.
    sizes_um, size_series
        Edges of the bins from ``from_um``, and per run the interval in each.
    """

    runs: tuple[RunFacts, RunFacts]
    unlike: tuple[Flag, ...]
    from_um: float
    class_name: str
    permuted: str
    populations: PopulationComparison
    sizes: tuple[SizeComparison, ...]
    classes: tuple[ClassShare, ...]
    edges_um: tuple[float, ...]
    bins: tuple[tuple[Interval, ...], tuple[Interval, ...]]
    same_calibration: bool

    @property
    def conclusion(self) -> tuple[str, ...]:
        """Plain sentences: what differs and by how much, what that rests on, and what it does not say."""
        return (_population_words(self), _concentration_words(self), _class_words(self), *_caveats(self))


def compare_runs(
    first: Path,
    second: Path,
    *,
    class_name: str = "all",
    from_um: float | None = None,
    permutations: int = 999,
    seed: int = 0,
) -> RunComparison:
    """Compare two runs: two lots, two instruments, the same lot a year later.

    Parameters
    ----------
    first, second
        Records, or folders of records (the newest of each is taken).
    class_name
        Compare the shape and size of this class alone.
    from_um
        Smallest size compared, an edge of the histogram; default: the larger of the two reporting limits.
    permutations, seed
        Of the tests.

    Raises
    ------
    UserError
        If a record cannot be read, nothing was analysed in it, it has too few particles, or the two were counted in
        different bins.
    """
    a, b = (read_run(path, number=i, pictures=False) for i, path in enumerate((first, second), start=1))
    if a.run_id == b.run_id:
        raise UserError(f"{a.run_id}: is compared with itself; name two runs")
    if a.series is None or b.series is None:
        empty = a.run_id if a.series is None else b.run_id
        raise UserError(f"{empty}: nothing was analysed, it cannot be compared")
    if a.series.edges_um != b.series.edges_um:
        raise UserError(f"{a.run_id} and {b.run_id} were counted in different size bins: reanalyse one of them")
    floor = _floor((a, b), a.series.edges_um, from_um)
    if class_name != "all":
        for run in (a, b):
            if class_name not in run.classes:
                raise UserError(f"{run.run_id}: has no class {class_name!r}, allowed are all, {', '.join(run.classes)}")
    windows = all(len(run.series.volume_ml) >= FEWEST_WINDOWS for run in (a, b) if run.series is not None)
    tables = [_descriptors(run, floor, class_name, windows=windows) for run in (a, b)]
    populations = compare_populations(
        tables[0][0],
        tables[1][0],
        groups=(tables[0][1], tables[1][1]),
        permutations=permutations,
        largest_sample=2 * LARGEST_SAMPLE,
        seed=seed,
    )
    same = a.identity.get("calibration_sha256") == b.identity.get("calibration_sha256")
    start = a.series.edges_um.index(floor)
    edges = a.series.edges_um[start:]
    return RunComparison(
        runs=(a, b),
        unlike=_unlike(a, b),
        from_um=floor,
        class_name=class_name,
        permuted="windows" if windows else "frames",
        populations=populations,
        sizes=tuple(_sizes(a, b, floor, class_name, same_calibration=same)),
        classes=tuple(_shares(a, b, a.series, b.series, floor)),
        edges_um=edges,
        bins=(_bins(a.series, edges, class_name), _bins(b.series, edges, class_name)),
        same_calibration=same,
    )


def _floor(runs: tuple[RunFacts, RunFacts], edges_um: Sequence[float], asked: float | None) -> float:
    least = max(run.reporting_limit_um for run in runs)
    allowed = [e for e in edges_um if e >= least and e > 0 and math.isfinite(e)]
    if asked is None:
        return allowed[0]
    if asked not in allowed:
        shown = ", ".join(f"{e:g}" for e in allowed[:12])
        raise UserError(f"smallest size is {asked:g} um, allowed are {shown} and on ({least:g} um is reported)")
    return asked


def _descriptors(
    run: RunFacts, from_um: float, class_name: str, *, windows: bool
) -> tuple[dict[str, npt.NDArray[np.generic]], npt.NDArray[np.integer[Any]]]:
    """Descriptors and group of the particles compared: a fixed, even sample of at most 1,000 of a run."""
    with open_record(run.path) as record:
        recorded = record.particles()
    p = recorded.particles
    chosen = (p.weight > 0) & (p.ecd_um >= np.float32(from_um))
    if class_name != "all":
        chosen &= recorded.class_index == recorded.classes.index(class_name)
    rows = np.flatnonzero(chosen)
    if len(rows) > LARGEST_SAMPLE:
        keys = sample_keys(p.frame[rows], p.x_px[rows], p.y_px[rows])
        rows = rows[np.sort(np.argsort(keys, kind="stable")[:LARGEST_SAMPLE])]
    group = recorded.window if windows else p.frame
    return {name: getattr(p, name)[rows] for name in DESCRIPTORS}, group[rows]


def _sizes(
    a: RunFacts, b: RunFacts, from_um: float, class_name: str, *, same_calibration: bool
) -> list[SizeComparison]:
    found = []
    for size_um in REPORTING_EDGES_UM:
        if size_um < from_um or a.series is None or b.series is None:
            continue
        pair = [interval_per_ml(s, size_um, class_name=class_name) for s in (a.series, b.series)]
        if not same_calibration and class_name == "all":
            results = [size_result(run, size_um) for run in (a, b)]
            pair = [i if r is None else r.combined for i, r in zip(pair, results, strict=True)]
        found.append(SizeComparison(size_um=size_um, first=pair[0], second=pair[1], rest=difference(*pair)))
    return found


def _shares(a: RunFacts, b: RunFacts, first: CountSeries, second: CountSeries, from_um: float) -> list[ClassShare]:
    """Composition as called; intervals by Wilson's score, its counts lowered by the scatter over time."""
    names = list(dict.fromkeys((*a.classes, *b.classes)))
    sides = []
    for series in (first, second):
        whole = interval_per_ml(series, from_um)
        counts = {n: interval_per_ml(series, from_um, class_name=n).counted for n in names if n in series.classes}
        sides.append((counts, whole.counted, whole.dispersion))
    found = []
    for name in names:
        shares = [_wilson(counts.get(name, 0), total, dispersion) for counts, total, dispersion in sides]
        (p, p_low, p_high), (q, q_low, q_high) = shares
        # Newcombe's interval of a difference of shares.
        rest = (p - q, p - q - math.hypot(p - p_low, q_high - q), p - q + math.hypot(p_high - p, q - q_low))
        both = (sides[0][0].get(name, 0), sides[1][0].get(name, 0))
        if any(both):
            found.append(ClassShare(class_name=name, counts=both, first=shares[0], second=shares[1], rest=rest))
    return found


def _wilson(count: int, total: int, dispersion: float) -> tuple[float, float, float]:
    """Share with its score interval.

    Examples
    --------
    >>> [round(v, 3) for v in _wilson(10, 100, 1.0)]
    [0.1, 0.055, 0.174]
    """
    if total == 0:
        return 0.0, 0.0, 1.0
    z = float(normal_quantile((1 + CONFIDENCE) / 2))
    n, p = total / max(dispersion, 1.0), count / total
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return p, max(0.0, centre - half), min(1.0, centre + half)


def _bins(series: CountSeries, edges_um: Sequence[float], class_name: str) -> tuple[Interval, ...]:
    ends = [*edges_um[1:-1], None]
    return tuple(
        interval_per_ml(series, low, upper_um=high, class_name=class_name)
        for low, high in zip(edges_um[:-1], ends, strict=True)
    )


def _unlike(a: RunFacts, b: RunFacts) -> tuple[Flag, ...]:
    """What was not the same for both, besides the sample."""
    found = []
    if a.identity.get("calibration_sha256") != b.identity.get("calibration_sha256"):
        names = [f.calibration.id if f.calibration else "none" for f in (a, b)]
        text = (
            f"The runs were sized with different calibrations ({names[0]} and {names[1]}): a difference in size or "
            "concentration may be one of the scales. Intervals of concentrations hold volume and size scale here."
        )
        found.append(Flag(severity="warning", title="Two calibrations", text=text))
    if a.identity.get("model_sha256") != b.identity.get("model_sha256"):
        text = "The runs were classified by different models: a difference in composition may be one of the models."
        found.append(Flag(severity="warning", title="Two models", text=text))
    steps = [[s for s in f.identity.get("steps") or () if not str(s).startswith("classifier")] for f in (a, b)]
    changed = [f"{x} and {y}" for x, y in zip(*steps, strict=False) if x != y]
    if changed or len(steps[0]) != len(steps[1]):
        text = f"The runs were not analysed with the same settings: {'; '.join(changed) or 'steps differ in number'}."
        found.append(Flag(severity="warning", title="Two pipelines", text=text))
    if a.instrument != b.instrument:
        text = (
            f"The runs come from different instruments ({a.instrument} and {b.instrument}): optics, focus and sampling "
            "are compared together with the sample."
        )
        found.append(Flag(severity="warning", title="Two instruments", text=text))
    for run in (a, b):
        grave = [f for f in run.flags if f.severity == "error"]
        found += [Flag(severity="error", title=f.title, text=f"{run.run_id}: {f.text}") for f in grave]
    return tuple(found)


# -- words -----------------------------------------------------------------------------------------------------------


def _population_words(c: RunComparison) -> str:
    p, worst = c.populations, c.populations.largest
    what = "particles" if c.class_name == "all" else f"particles called {class_text(c.class_name)}"
    size = (
        f"The largest difference between the {what} of the two runs is {worst.effect_name}: "
        f"{descriptor_text(worst.name)}, median {worst.median_first:.3g} in the first and {worst.median_second:.3g} "
        f"in the second (effect {abs(worst.effect):.2f} of 1)."
    )
    if p.shown:
        return f"{size} Chance alone hardly makes the populations as different as they are ({p.p_text})."
    return f"{size} Chance alone makes populations as different as these ({p.p_text}): no difference is shown."


def _concentration_words(c: RunComparison) -> str:
    row = next((s for s in c.sizes if s.size_um == 10.0), c.sizes[0] if c.sizes else None)
    if row is None:
        return "No concentration is reported for both runs."
    values = f"{per_ml_text(row.first.value)} against {per_ml_text(row.second.value)} per mL"
    verdict = "they differ" if row.shown else "no difference is shown"
    return (
        f"At and above {size_text(row.size_um)} \N{MICRO SIGN}m there are {values}, a difference of "
        f"{per_ml_text(row.rest.value)} (95 % interval {interval_text(row.rest.low, row.rest.high)}): {verdict}."
    )


def _class_words(c: RunComparison) -> str:
    if not c.classes:
        return "No particle was called in either run."
    worst = max(c.classes, key=lambda s: abs(s.rest[0]))
    points = [f"{100 * v:+.1f}".replace("-", "\N{MINUS SIGN}") for v in worst.rest]
    verdict = "" if worst.shown else ", which is within chance"
    return (
        f"The composition differs most in {class_text(worst.class_name)}: {100 * worst.first[0]:.1f} % against "
        f"{100 * worst.second[0]:.1f} % of the particles, {points[0]} points ({points[1]} to {points[2]}){verdict}."
    )


def _caveats(c: RunComparison) -> tuple[str, ...]:
    words = (
        "A small p-value says that a difference is not chance, not that it matters: whether an effect of this size "
        "matters is for the product to say."
        if c.populations.shown
        else "That no difference is shown does not prove the runs alike; smaller differences than the ones named as "
        "chance's in the tables cannot be seen with this many particles."
    )
    more = (
        "One run of each tells nothing of the scatter between preparations, aliquots or days: compare several before "
        "two lots or instruments are called different."
    )
    return words, more


def comparison_tree(c: RunComparison) -> dict[str, Any]:
    """The comparison as JSON values."""

    def interval(i: Interval) -> dict[str, Any]:
        return {"value": i.value, "low": i.low, "high": i.high, "method": i.method}

    p = c.populations
    return {
        "schema": SCHEMA,
        "runs": [
            {
                "run_id": f.run_id, "record": f.path.name, "sample": f.sample, "started": f.started,
                "pipeline": f.identity.get("pipeline_id"), "calibration": f.identity.get("calibration_id"),
                "calibration_state": f.calibration_state, "calibration_age_days": f.calibration_age_days,
                "verification": f.verification.result, "audit_head": f.audit_head,
            }
            for f in c.runs
        ],
        "unlike": [{"title": f.title, "text": f.text} for f in c.unlike],
        "from_um": c.from_um,
        "class": c.class_name,
        "populations": {
            "effect": p.mmd_effect, "effect_by_chance": p.mmd_chance, "mmd_squared": p.mmd_squared,
            "p_value": p.p_value, "permuted": c.permuted, "permutations": p.permutations, "seed": p.seed,
            "compared": [p.first, p.second],
            "descriptors": [{**asdict(d), "effect_name": d.effect_name} for d in p.descriptors],
        },
        "per_ml": [
            {
                "size_um": s.size_um, "first": interval(s.first), "second": interval(s.second),
                "difference": interval(s.rest), "shown": s.shown,
            }
            for s in c.sizes
        ],
        "composition": [
            {
                "class": s.class_name, "counts": list(s.counts), "first": list(s.first), "second": list(s.second),
                "difference": list(s.rest), "shown": s.shown,
            }
            for s in c.classes
        ],
        "conclusion": list(c.conclusion),
    }  # fmt: skip
