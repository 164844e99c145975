"""The report: records in, one HTML file out that needs nothing else."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from markupsafe import Markup

from edge_app import __version__
from edge_app.errors import UserError
from edge_app.measurement.control_chart import ControlChart, charts_of
from edge_app.measurement.limits import LimitTable, Standard, load_limits
from edge_app.measurement.pixel_guideline import pixel_guideline
from edge_app.measurement.uncertainty import BudgetRow
from edge_app.measurement.verification_history import Entry
from edge_app.measurement.window import REJECTION_REASONS
from edge_app.reporting.aliquots import AliquotSize, aliquot_sizes, blank_sizes
from edge_app.reporting.budgets import MAIN_SIZES_UM, SizeResult, class_uncertainties, mean_result, size_result
from edge_app.reporting.control_plot import control_plot
from edge_app.reporting.flags import Flag, failed_checks
from edge_app.reporting.limit_comparison import LimitComparison, LimitRow, compare_with_limits
from edge_app.reporting.number_text import bin_text, count_text, interval_text, size_text, volume_text
from edge_app.reporting.page import asset, css_string, number_text, page_environment
from edge_app.reporting.plots import (
    SizeBar,
    interval_gauge,
    replicate_plot,
    scatter_plot,
    size_distribution,
    time_plot,
)
from edge_app.reporting.run_facts import RunFacts, read_run
from edge_app.reporting.trace import trace_rows

__all__ = ["ReportSignature", "build_report"]


@dataclass(frozen=True, kw_only=True)
class ReportSignature:
    """Who signs the report, as it is printed in it."""

    name: str
    meaning: str
    time: str


def build_report(
    runs: Sequence[Path],
    *,
    limits: Sequence[str] = (),
    container_ml: float | None = None,
    discard_first: bool = False,
    limit_table: LimitTable | None = None,
    signature: ReportSignature | None = None,
    pictures: bool = True,
    blank: Path | None = None,
    history: Sequence[Entry] | None = None,
    on_error_flag: Callable[[Flag], None] | None = None,
) -> bytes:
    """Make the report of a run, or of several aliquots of one sample.

    The bytes depend on the records and on these parameters alone.

    Parameters
    ----------
    runs
        Records, or folders of records (the newest of each is taken), in the order in which they were measured.
    limits
        Ids of standards to compare with, for example ``usp-788``; needs ``container_ml``.
    container_ml
        Nominal content of a container, mL.
    discard_first
        Leave the first aliquot out of the mean, as USP <787> and <788> do.
    limit_table
        Standards to choose from (default: the shipped ones).
    signature
        Printed in the signature block.
    pictures
        False: leave the pictures out, where they may not be handed on.
    blank
        Record of a blank: its concentrations and the differences get a table of their own; no other number changes.
    history
        Verifications of the instrument (``read_history``), instead of those that each record kept at its start.
    on_error_flag
        Told each flag that the report shows in red.

    Returns
    -------
    bytes
        UTF-8 HTML.

    Raises
    ------
    UserError
        If a record cannot be read or does not go with the others, or limits and container do not go together.
    """
    if not runs:
        raise UserError("no run to report on")
    if container_ml is not None and not (math.isfinite(container_ml) and container_ml > 0):
        raise UserError(f"container volume is {container_ml:g} mL, it must be above 0")
    if limits and container_ml is None:
        raise UserError("limits depend on the container: give its nominal content with --container-ml")
    if discard_first and len(runs) < 2:
        raise UserError("the first of 1 aliquots is discarded: none is left")
    facts = [
        read_run(path, number=i, container_ml=container_ml, pictures=pictures, history=history)
        for i, path in enumerate(runs, start=1)
    ]
    ids = [f.run_id for f in facts]
    if len(set(ids)) != len(ids):
        raise UserError(f"the same run is named twice: {', '.join(sorted({i for i in ids if ids.count(i) > 1}))}")
    multiple = len(facts) > 1
    blank_facts = None if blank is None else read_run(blank, number=0, pictures=False)
    sizes = aliquot_sizes(facts, discard_first=discard_first) if multiple else []
    used = facts[1:] if discard_first else facts
    standards = [(limit_table or load_limits())[name] for name in limits]
    means = {s.size_um: mean_result(s.summary.mean, used) for s in sizes}
    flags = _common_flags(facts)
    for flag in flags:
        if flag.severity == "error" and on_error_flag is not None:
            on_error_flag(flag)
    context = {
        "version": __version__,
        "title": _title(facts),
        "footer": css_string(", ".join(ids) if len(ids) < 3 else f"{ids[0]} and {len(ids) - 1} more"),
        "alarm": css_string(
            " - ".join(dict.fromkeys(x.title for f in facts for x in f.flags if x.severity == "error")).upper()
        ),
        "runs": [_View(f) for f in facts],
        "multiple": multiple,
        "flags": flags,
        "grave": list(dict.fromkeys(flag.title for flag in flags if flag.severity == "error")),
        "container_ml": container_ml,
        "comparisons": _comparisons(facts, means, standards, container_ml),
        "mean_results": list(means.values()),
        "no_limits": _no_limits(facts, limits),
        "no_pictures": "No picture is in this record."
        if pictures
        else "Left out of this report; the record keeps them.",
        "no_background": "No picture of the background is in this record."
        if pictures
        else "The picture of the background is left out of this report; the record keeps it.",
        "discard_first": discard_first,
        "replicate_sizes": sizes,
        "blank": blank_facts,
        "blank_sizes": [] if blank_facts is None else blank_sizes(facts, sizes, blank_facts),
        "replicate_note": sizes[0].summary.note if sizes else "",
        "replicate_plots": [
            _replicate_plot(s, ids, discard_first=discard_first) for s in sizes if s.size_um in MAIN_SIZES_UM
        ],
        "volume_ml": sum(f.total.volume_ml for f in used),
        "frames": sum(f.total.frames for f in used),
        "counted": sum(f.total.particles for f in used),
        "interval_note": _interval_note(facts[0]),
        "signature": signature,
        "reasons": REJECTION_REASONS,
        "css": asset("report.css"),
        "js": asset("report.js"),
    }
    text = page_environment(_FILTERS).get_template("report.html.j2").render(context)
    return (text.rstrip() + "\n").encode()


_SETS: Final = {"test": "particles that it was not taught", "heldout": "by optics that it was not taught either"}
"""Sets of pictures of the shipped network, as a reader calls them."""


class _View:
    """A run as the template sees it: its facts and a few words made of them."""

    def __init__(self, facts: RunFacts) -> None:
        self.facts = facts

    def __getattr__(self, name: str) -> Any:
        return getattr(self.facts, name)

    @property
    def bundle_name(self) -> str:
        bundle = self.facts.meta.get("bundle") or {}
        return str(bundle.get("name") or "none")

    @property
    def bundle_note(self) -> str:
        bundle = self.facts.meta.get("bundle") or {}
        words = [f"version {bundle['version']}"] if bundle.get("version") else []
        words += [f"{bundle['backend']} {bundle.get('backend_version', '')}".strip()] if bundle.get("backend") else []
        return ", ".join(words)

    @property
    def accuracy_sizes(self) -> list[str]:
        """Size ranges at which the classifier was measured, as they stand in its bundle."""
        sizes = dict.fromkeys(size for scores in self.accuracy.values() for size in scores)
        return sorted(sizes, key=lambda size: [float(n) for n in re.findall(r"[\d.]*\d", size)])

    @property
    def accuracy(self) -> Mapping[str, Mapping[str, float]]:
        """Set of pictures -> size range -> macro-F1; empty where the record has none."""
        measured = (self.facts.meta.get("bundle") or {}).get("measured") or {}
        sets = measured.get("macro_f1_by_size_um", {})
        # The record's JSON is canonical, which puts names in the order of the alphabet.
        return {_SETS.get(name, name): sets[name] for name in sorted(sets, key=lambda name: (name != "test", name))}

    @property
    def taught_on(self) -> str:
        """Where the training pictures came from, empty where it is not known."""
        measured = (self.facts.meta.get("bundle") or {}).get("measured") or {}
        return str(measured.get("taught_on") or "")

    @property
    def scatter_shown(self) -> int:
        return sum(len(g.x) for g in self.facts.scatter)


def _title(facts: Sequence[RunFacts]) -> str:
    names = list(dict.fromkeys(f.sample for f in facts if f.sample))
    return ", ".join(names) if names else (facts[0].run_id if len(facts) == 1 else "Aliquots of a sample")


def _common_flags(facts: Sequence[RunFacts]) -> list[Flag]:
    """Flags for the first page: of a single run its own; of several each once."""
    found = list(dict.fromkeys(flag for f in facts for flag in f.flags))
    samples = {f.sample for f in facts}
    if len(samples) > 1:
        named = ", ".join(repr(s) if s else "none" for s in sorted(samples))
        found.insert(
            0, Flag(severity="warning", title="Different samples", text=f"The runs name different samples: {named}.")
        )
    if len({f.identity.get("pipeline_id") for f in facts}) > 1:
        text = (
            "The runs were not analysed with the same settings, model and calibration: their mean is of unlike things."
        )
        found.insert(0, Flag(severity="warning", title="Different analysis", text=text))
    return found


def _comparisons(
    facts: Sequence[RunFacts],
    means: dict[float, SizeResult],
    standards: Sequence[Standard],
    container_ml: float | None,
) -> list[LimitComparison]:
    first = facts[0]
    if container_ml is None or first.series is None:
        return []
    return compare_with_limits(
        standards,
        container_ml=container_ml,
        reporting_limit_um=max(f.reporting_limit_um for f in facts),
        result_at=means.get if len(facts) > 1 else lambda size_um: size_result(first, size_um),
    )


def _no_limits(facts: Sequence[RunFacts], limits: Sequence[str]) -> str:
    if limits and facts[0].series is None:
        return "Nothing was analysed: there is nothing to compare with a limit."
    return "No limits were chosen for this report: the numbers stand for themselves."


def _interval_note(facts: RunFacts) -> str:
    if not facts.table.methods:
        return "No volume was analysed."
    return f"Intervals: {'; '.join(facts.table.methods)}."


# -- filters ---------------------------------------------------------------------------------------------------------


def _pixels(run: _View) -> str:
    """The guideline on pixels per particle, empty where frame size or scale are not known."""
    width, height = run.info.get("width_px"), run.info.get("height_px")
    if run.calibration is None or not width or not height:
        return ""
    found = pixel_guideline(
        um_per_px=run.calibration.um_per_px,
        frame_width_px=int(width),
        frame_height_px=int(height),
        reporting_from_um=round(run.reporting_limit_um, 2),
    )
    return found.text.replace(" um", " \N{MICRO SIGN}m")


def _position(row: LimitRow) -> str:
    verdict = row.verdict
    if verdict.result == "pass":
        return "interval at or below the limit"
    if verdict.result == "fail":
        return "interval above the limit"
    if verdict.beyond_volume:
        return "volume and size scale alone reach the limit: no further volume decides, a better calibration may"
    if verdict.extra_volume_ml is None:
        return "no volume decides it at this rate"
    return f"{volume_text(verdict.extra_volume_ml)} more would decide it at this rate"


def _gauge(row: LimitRow) -> Markup:
    i = row.verdict.interval
    return interval_gauge(
        i.value, i.low, i.high, row.verdict.limit.maximum, state=row.verdict.result,
        inner=(row.counting_low, row.counting_high),
    )  # fmt: skip


def _counting(row: LimitRow) -> str:
    return interval_text(row.counting_low, row.counting_high)


def _budget_value(row: BudgetRow) -> str:
    """A number of things whole, everything else with three digits."""
    return count_text(round(row.value)) if row.unit == "particles" else number_text(row.value)


def _results(run: _View) -> list[SizeResult | None]:
    """All particles at each size of the table; None where it is not reported."""
    return [size_result(run.facts, size_um) for size_um in run.table.sizes_um]


def _main_results(run: _View) -> list[SizeResult]:
    """All particles at the sizes of the pharmacopoeias."""
    return [r for r in (size_result(run.facts, s) for s in MAIN_SIZES_UM) if r is not None]


def _by_class(run: _View, size_um: float) -> Any:
    return class_uncertainties(run.facts, size_um)


def _charts(run: _View) -> list[ControlChart]:
    """Control charts of the verifications known to the run; from two on, since one point shows no course."""
    return [c for c in charts_of(run.verification.history) if len(c.values) > 1]


def _size_plot(run: _View) -> Markup:
    return size_distribution([row.bar for row in run.bins], colours=run.colours)


def _shape_plot(run: _View) -> Markup:
    return scatter_plot(run.scatter, y_label="aspect ratio")


def _over_time(run: _View) -> Markup:
    return time_plot(run.time, mean_per_ml=run.time_mean, y_label="per mL")


def _replicate_plot(size: AliquotSize, ids: Sequence[str], *, discard_first: bool) -> Markup:
    rows = [
        (f"{k} \N{MIDDLE DOT} {run_id[:16]}", a.value, a.low, a.high, not (discard_first and k == 1))
        for k, (a, run_id) in enumerate(zip(size.all, ids, strict=True), start=1)
    ]
    label = f"particles \N{GREATER-THAN OR EQUAL TO} {size_text(size.size_um)} \N{MICRO SIGN}m per mL"
    return replicate_plot(rows, mean=size.summary.mean.value, x_label=label)


def _bin_name(run: _View, index: int) -> str:
    edges = run.total.histogram.edges_um
    return bin_text(edges[index], edges[index + 1])


def _bar_interval(bar: SizeBar) -> str:
    return interval_text(bar.interval_low, bar.interval_high)


_FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    "pixels": _pixels, "position": _position, "gauge": _gauge, "counting": _counting, "results": _results,
    "main_results": _main_results, "by_class": _by_class, "charts": _charts, "control_plot": control_plot,
    "size_plot": _size_plot, "shape_plot": _shape_plot, "over_time": _over_time, "bin_name": _bin_name,
    "bar_interval": _bar_interval, "budget_value": _budget_value, "trace": trace_rows, "failed_checks": failed_checks,
}  # fmt: skip
