"""The report: records in, one HTML file out that needs nothing else."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

import jinja2
import numpy as np
from markupsafe import Markup

from edge_app import __version__
from edge_app.errors import UserError
from edge_app.measurement.concentration import Interval, difference, interval_per_ml
from edge_app.measurement.histogram import REPORTING_EDGES_UM
from edge_app.measurement.limits import LimitTable, Standard, compare, load_limits
from edge_app.measurement.limits import Verdict as LimitVerdict
from edge_app.measurement.pixel_guideline import pixel_guideline
from edge_app.measurement.replicates import Replicates, replicates
from edge_app.measurement.uncertainty import Budget, InputUncertainties, local_exponent, uncertainty_budget
from edge_app.measurement.window import REJECTION_REASONS
from edge_app.reporting.number_text import (
    NO_VALUE,
    bin_text,
    class_text,
    count_text,
    duration_text,
    interval_text,
    per_ml_text,
    percent_text,
    size_text,
    volume_text,
)
from edge_app.reporting.plots import (
    SizeBar,
    interval_gauge,
    replicate_plot,
    scatter_plot,
    size_distribution,
    time_plot,
)
from edge_app.reporting.run_facts import Flag, RunFacts, read_run

__all__ = ["Comparison", "ReportSignature", "build_report"]

REPORT_METHOD: Final = "light obscuration"
"""Method whose limits are compared with: the one that counts in a liquid, as flow imaging does."""
_MAIN_SIZES_UM: Final = (10.0, 25.0)
"""Sizes of the pharmacopoeias' limits: the ones that get a budget and a diagram of aliquots."""


@dataclass(frozen=True, kw_only=True)
class ReportSignature:
    """Who signs the report, as it is printed in it."""

    name: str
    meaning: str
    time: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A standard and each of its limits; sizes below the reporting limit are named, not compared."""

    standard: Standard
    method: str
    verdicts: tuple[LimitVerdict, ...]
    below_reporting: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class _ReplicateSize:
    """Aliquots at one size."""

    size_um: float
    all: tuple[Interval, ...]
    summary: Replicates


@dataclass(frozen=True, kw_only=True)
class _BlankSize:
    """Sample and blank at one size, and what is left."""

    size_um: float
    sample: Interval
    blank: Interval
    rest: Interval


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
        read_run(path, number=i, container_ml=container_ml, pictures=pictures) for i, path in enumerate(runs, start=1)
    ]
    ids = [f.run_id for f in facts]
    if len(set(ids)) != len(ids):
        raise UserError(f"the same run is named twice: {', '.join(sorted({i for i in ids if ids.count(i) > 1}))}")
    multiple = len(facts) > 1
    blank_facts = None if blank is None else read_run(blank, number=0, pictures=False)
    sizes = _replicate_sizes(facts, discard_first=discard_first) if multiple else []
    used = facts[1:] if discard_first else facts
    standards = [(limit_table or load_limits())[name] for name in limits]
    context = {
        "version": __version__,
        "title": _title(facts),
        "footer": _css_string(", ".join(ids) if len(ids) < 3 else f"{ids[0]} and {len(ids) - 1} more"),
        "alarm": _css_string(
            " - ".join(dict.fromkeys(x.title for f in facts for x in f.flags if x.severity == "error")).upper()
        ),
        "runs": [_View(f) for f in facts],
        "multiple": multiple,
        "flags": _common_flags(facts),
        "container_ml": container_ml,
        "comparisons": _comparisons(facts, sizes, standards, container_ml),
        "no_limits": _no_limits(facts, limits),
        "no_pictures": "No picture is in this record."
        if pictures
        else "Left out of this report; the record keeps them.",
        "discard_first": discard_first,
        "replicate_sizes": sizes,
        "blank": blank_facts,
        "blank_sizes": [] if blank_facts is None else _blank_sizes(facts, sizes, blank_facts),
        "replicate_note": sizes[0].summary.note if sizes else "",
        "replicate_plots": [
            _replicate_plot(s, ids, discard_first=discard_first) for s in sizes if s.size_um in _MAIN_SIZES_UM
        ],
        "volume_ml": sum(f.total.volume_ml for f in used),
        "frames": sum(f.total.frames for f in used),
        "counted": sum(f.total.particles for f in used),
        "interval_note": _interval_note(facts[0]),
        "signature": signature,
        "reasons": REJECTION_REASONS,
        "css": Markup(_asset("report.css")),
        "js": Markup(_asset("report.js")),
    }
    text = _environment().get_template("report.html.j2").render(context)
    return (text.rstrip() + "\n").encode()


class _View:
    """A run as the template sees it: its facts and a few words made of them."""

    def __init__(self, facts: RunFacts) -> None:
        self._facts = facts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._facts, name)

    @property
    def bundle_name(self) -> str:
        bundle = self._facts.meta.get("bundle") or {}
        return str(bundle.get("name") or "none")

    @property
    def bundle_note(self) -> str:
        bundle = self._facts.meta.get("bundle") or {}
        words = [f"version {bundle['version']}"] if bundle.get("version") else []
        words += [f"{bundle['backend']} {bundle.get('backend_version', '')}".strip()] if bundle.get("backend") else []
        return ", ".join(words)

    @property
    def scatter_shown(self) -> int:
        return sum(len(g.x) for g in self._facts.scatter)


def _asset(name: str) -> str:
    return (resources.files("edge_app.reporting") / "templates" / name).read_text(encoding="utf-8")


def _css_string(text: str) -> Markup:
    """Text that can stand between quotes in a style sheet: everything but plain characters becomes an escape."""
    return Markup("".join(c if c.isascii() and (c.isalnum() or c in " -_,.") else f"\\{ord(c):x} " for c in text))


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


def _replicate_sizes(facts: Sequence[RunFacts], *, discard_first: bool) -> list[_ReplicateSize]:
    limit = max(f.reporting_limit_um for f in facts)
    empty = [f.run_id for f in facts if f.series is None]
    if empty:
        raise UserError(f"{', '.join(empty)}: nothing was analysed, no mean can be made")
    sizes = []
    for size_um in REPORTING_EDGES_UM:
        if size_um < limit:
            continue
        aliquots = tuple(interval_per_ml(f.series, size_um) for f in facts if f.series is not None)
        sizes.append(
            _ReplicateSize(size_um=size_um, all=aliquots, summary=replicates(aliquots, discard_first=discard_first))
        )
    return sizes


def _blank_sizes(facts: Sequence[RunFacts], sizes: Sequence[_ReplicateSize], blank: RunFacts) -> list[_BlankSize]:
    """Sample (of several runs: their mean) less blank at each reported size."""
    if blank.run_id in {f.run_id for f in facts}:
        raise UserError(f"{blank.run_id}: is the sample and its own blank")
    series = facts[0].series
    if blank.series is None or series is None:
        empty = blank.run_id if blank.series is None else facts[0].run_id
        raise UserError(f"{empty}: nothing was analysed, no blank can be taken off")
    means = {s.size_um: s.summary.mean for s in sizes}
    limit = max(f.reporting_limit_um for f in (*facts, blank))
    found = []
    for size_um in REPORTING_EDGES_UM:
        if size_um >= limit:
            sample = means[size_um] if len(facts) > 1 else interval_per_ml(series, size_um)
            other = interval_per_ml(blank.series, size_um)
            found.append(_BlankSize(size_um=size_um, sample=sample, blank=other, rest=difference(sample, other)))
    return found


def _comparisons(
    facts: Sequence[RunFacts],
    sizes: Sequence[_ReplicateSize],
    standards: Sequence[Standard],
    container_ml: float | None,
) -> list[Comparison]:
    first = facts[0]
    if container_ml is None or first.series is None:
        return []
    found = []
    for standard in standards:
        verdicts, below = [], []
        for limit in standard.applicable(container_ml, method=REPORT_METHOD):
            if limit.size_um < max(f.reporting_limit_um for f in facts):
                below.append(limit.size_um)
                continue
            if len(facts) > 1:
                mean = next((s.summary.mean for s in sizes if s.size_um == limit.size_um), None)
                if mean is None:
                    raise UserError(f"{standard.name}: limit at {limit.size_um:g} um is none of the reporting sizes")
                interval = mean
            else:
                interval = interval_per_ml(first.series, limit.size_um)
            verdicts.append(compare(standard, limit, interval, container_ml=container_ml))
        found.append(
            Comparison(
                standard=standard,
                method=REPORT_METHOD,
                verdicts=tuple(verdicts),
                below_reporting=tuple(below),
            )
        )
    return found


def _no_limits(facts: Sequence[RunFacts], limits: Sequence[str]) -> str:
    if limits and facts[0].series is None:
        return "Nothing was analysed: there is nothing to compare with a limit."
    return "No limits were chosen for this report: the numbers stand for themselves."


def _interval_note(facts: RunFacts) -> str:
    if not facts.table.methods:
        return "No volume was analysed."
    return f"Intervals: {'; '.join(facts.table.methods)}."


# -- filters ---------------------------------------------------------------------------------------------------------


def _interval(interval: Interval) -> str:
    return interval_text(interval.low, interval.high)


def _when(text: str) -> str:
    """ISO time as a reader writes it, to the second."""
    return text.replace("T", " ").split(".")[0].removesuffix("Z") + " UTC" if text else NO_VALUE


def _when_short(text: str) -> str:
    return _when(text).removesuffix(" UTC")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""


def _size_plain(size_um: float) -> str:
    """A size that is no round number by design: two decimals at most."""
    return f"{size_um:.2f}".rstrip("0").rstrip(".")


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


def _number(value: float) -> str:
    return f"{value:.3g}" if value and abs(value) < 1 else per_ml_text(value)


def _unit(text: str) -> str:
    return {"um": "\N{MICRO SIGN}m", "mm2": "mm\N{SUPERSCRIPT TWO}"}.get(text, text)


def _probability(value: float | None) -> str:
    if value is None:
        return NO_VALUE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _position(verdict: LimitVerdict) -> str:
    if verdict.result == "pass":
        return "interval at or below the limit"
    if verdict.result == "fail":
        return "interval above the limit"
    if verdict.extra_volume_ml is None:
        return "no volume decides it at this rate"
    return f"{volume_text(verdict.extra_volume_ml)} more would decide it at this rate"


def _gauge(verdict: LimitVerdict) -> Markup:
    i = verdict.interval
    return interval_gauge(i.value, i.low, i.high, verdict.limit.maximum, state=verdict.result)


def _size_plot(run: _View) -> Markup:
    return size_distribution([row.bar for row in run.bins], colours=run.colours)


def _shape_plot(run: _View) -> Markup:
    return scatter_plot(run.scatter, y_label="aspect ratio")


def _over_time(run: _View) -> Markup:
    return time_plot(run.time, mean_per_ml=run.time_mean, y_label="per mL")


def _replicate_plot(size: _ReplicateSize, ids: Sequence[str], *, discard_first: bool) -> Markup:
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


def _budgets(run: _View) -> list[Budget]:
    """Budgets of all particles at and above 10 and 25 um."""
    if run.series is None:
        return []
    calibration, lost = run.calibration, 0.0 if run.coincidence is None else run.coincidence.lost_share
    field = run.field_mm
    found = []
    for size_um in _MAIN_SIZES_UM:
        if size_um < run.reporting_limit_um:
            continue
        inputs = InputUncertainties()
        known = None if calibration is None else calibration.uncertainty_um(np.array([size_um]))
        if calibration is not None and known is not None:
            # The certificate states k = 2.
            inputs = InputUncertainties(size_um=float(known[0]) / 2.0, basis=f"certificate {calibration.id}")
        elif run.calibration_state == "valid":
            inputs = InputUncertainties(basis="assumed, the calibration states none")
        found.append(
            uncertainty_budget(
                interval_per_ml(run.series, size_um),
                exponent=local_exponent(run.series, size_um),
                inputs=inputs,
                frame_area_mm2=None if field is None else field[0] * field[1],
                depth_um=None if calibration is None else calibration.depth_um,
                lost_share=lost,
            )
        )
    return found


def _budget_text(budget: Budget) -> str:
    relative = f" ({percent_text(budget.expanded / budget.value)})" if budget.value > 0 else ""
    return f"{per_ml_text(budget.value)} \N{PLUS-MINUS SIGN} {per_ml_text(budget.expanded)} per mL{relative}, k = 2"


def _trace(run: _View) -> list[tuple[str, str, bool]]:
    """Rows of name, value and whether it is a hash or a code."""
    meta, identity, info, audit = run.meta, run.identity, run.info, run.audit
    bundle, software = meta.get("bundle") or {}, meta.get("software") or {}
    state = f"verified: OK, {count_text(run.audit_entries)} entries" if audit.ok else f"BROKEN: {audit.first_broken}"
    rows = [
        ("run", run.run_id, True),
        ("record", run.path.name, True),
        ("state", f"{run.state}{', ' + _when(run.ended) if run.ended else ''}", False),
        ("source", str(info.get("uri", NO_VALUE)), True),
        ("frames, SHA-256", str(meta.get("frames_sha256") or "not kept"), True),
        ("settings, SHA-256", run.settings_sha256, True),
        ("model", f"{bundle.get('name', NO_VALUE)} {bundle.get('version', '')}".strip(), False),
        ("model, SHA-256", str(identity.get("model_sha256", NO_VALUE)), True),
        ("calibration", str(identity.get("calibration_id", NO_VALUE)), True),
        ("calibration, SHA-256", str(identity.get("calibration_sha256", NO_VALUE)), True),
        ("pipeline id", str(identity.get("pipeline_id", NO_VALUE)), True),
        *((f"step {k}", str(step), True) for k, step in enumerate(identity.get("steps") or (), start=1)),
        ("audit chain", state, False),
        ("audit chain, head", run.audit_head, True),
        ("software of the run", ", ".join(f"{k} {v}" for k, v in sorted(software.items())) or NO_VALUE, False),
        ("software of the report", f"edge-app {__version__}", False),
    ]
    details = info.get("details") or {}
    extra = [(k, v) for k, v in sorted(details.items()) if isinstance(v, (str, int, float)) and k != "instrument"]
    return rows + [(f"source, {key.replace('_', ' ')}", str(value), False) for key, value in extra]


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("edge_app.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=False,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        per_ml=per_ml_text, interval=_interval, count=count_text, percent=percent_text, size=size_text,
        size2=_size_plain, volume=volume_text, words=class_text, when=_when, when_short=_when_short, sentence=_sentence,
        number=_number, unit=_unit, probability=_probability, position=_position, gauge=_gauge, size_plot=_size_plot,
        shape_plot=_shape_plot, over_time=_over_time, bin_name=_bin_name, bar_interval=_bar_interval, budgets=_budgets,
        budget_text=_budget_text, trace=_trace, pixels=_pixels, duration=duration_text,
    )  # fmt: skip
    return environment
