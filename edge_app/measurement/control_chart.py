"""Control charts of verifications over time: individuals with moving-range limits, as text and as SVG."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from xml.sax.saxutils import escape

import numpy as np

from edge_app.measurement.four_digits import four_digits

__all__ = ["ControlChart", "charts_of", "charts_svg", "charts_text"]

D2: Final = 1.128
"""Mean range of two normal values over their standard deviation."""
FEWEST: Final = 5
"""Values before limits are drawn."""
RUN: Final = 8
"""So many values in a row on one side of the centre are a shift (Western Electric)."""
SPARKS: Final = "▁▂▃▄▅▆▇█"
PANEL_WIDTH: Final = 760
PANEL_HEIGHT: Final = 150


@dataclass(frozen=True, kw_only=True)
class ControlChart:
    """One quantity over time.

    Attributes
    ----------
    name, unit
        As in the checks.
    times, values, passed
        One entry per verification that has the quantity.
    centre, low, high
        Mean and control limits (3 sigma by the mean moving range) of all values but the last; None with fewer than
        5 of those.
    signal
        What is out of control in the last value, None if nothing is.
    """

    name: str
    unit: str
    times: tuple[str, ...]
    values: tuple[float, ...]
    passed: tuple[bool | None, ...]
    centre: float | None
    low: float | None
    high: float | None
    signal: str | None


def charts_of(history: Sequence[Mapping[str, Any]]) -> list[ControlChart]:
    """A chart for each numeric check of a history, in the order of their first appearance.

    Examples
    --------
    >>> def line(i, value):
    ...     check = {"name": "noise", "unit": "%", "value": value, "passed": True}
    ...     return {"time": f"2026-01-0{i}", "checks": [check]}
    >>> chart = charts_of([line(i + 1, v) for i, v in enumerate([1.0, 1.1, 0.9, 1.0, 1.1, 2.0])])[0]
    >>> chart.signal
    'beyond 3 sigma'
    """
    rows: dict[tuple[str, str], list[tuple[str, float, bool | None]]] = {}
    for entry in history:
        for check in entry["checks"]:
            # What is left of the calibration's time falls steadily and says nothing of the instrument.
            if check["value"] is not None and check["unit"] != "days":
                key = str(check["name"]), str(check["unit"])
                rows.setdefault(key, []).append((str(entry["time"]), float(check["value"]), check["passed"]))
    return [_chart(name, unit, found) for (name, unit), found in rows.items()]


def _chart(name: str, unit: str, found: Sequence[tuple[str, float, bool | None]]) -> ControlChart:
    times, values, passed = (tuple(column) for column in zip(*found, strict=True))
    centre = low = high = None
    signal = None
    before = np.array(values[:-1])
    if len(before) >= FEWEST:
        centre = float(before.mean())
        sigma = float(np.abs(np.diff(before)).mean()) / D2
        low, high = centre - 3 * sigma, centre + 3 * sigma
        last = np.array(values[-RUN:]) - centre
        if not low <= values[-1] <= high:
            signal = "beyond 3 sigma"
        elif len(last) == RUN and ((last > 0).all() or (last < 0).all()):
            signal = f"{RUN} in a row on one side"
    return ControlChart(
        name=name, unit=unit, times=times, values=values, passed=passed, centre=centre, low=low, high=high,
        signal=signal,
    )  # fmt: skip


def charts_text(charts: Sequence[ControlChart], *, last: int = 40) -> str:
    """Charts as lines of text: a bar per verification, the last value, the control limits and any signal."""
    lines = []
    width = max((len(c.name) for c in charts), default=0)
    for c in charts:
        shown = np.array(c.values[-last:])
        bottom, top = min(shown.min(), c.low or shown.min()), max(shown.max(), c.high or shown.max())
        level = np.zeros(len(shown)) if top <= bottom else (shown - bottom) / (top - bottom)
        bars = "".join(SPARKS[int(v)] for v in np.minimum(level * len(SPARKS), len(SPARKS) - 1))
        limits = "" if c.low is None or c.high is None else f"  limits {four_digits(c.low)} to {four_digits(c.high)}"
        lines.append(
            f"{c.name.ljust(width)}  {bars}  {four_digits(c.values[-1])} {c.unit}{limits}"
            + (f"  SIGNAL: {c.signal}" if c.signal else "")
        )
    return "\n".join(lines)


def charts_svg(charts: Sequence[ControlChart]) -> str:
    """Charts as one SVG, a panel each: values in order of time, centre and control limits, failed checks in red."""
    height = PANEL_HEIGHT * len(charts) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {PANEL_WIDTH} {height}" width="{PANEL_WIDTH}" '
        f'height="{height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{PANEL_WIDTH}" height="{height}" fill="#fff"/>',
    ]
    for i, chart in enumerate(charts):
        parts += _panel(chart, top=PANEL_HEIGHT * i + 10)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(c: ControlChart, *, top: int) -> list[str]:
    left, right, upper, lower = 70, PANEL_WIDTH - 20, top + 22, top + PANEL_HEIGHT - 26
    known = [*c.values, *(v for v in (c.low, c.high) if v is not None)]
    smallest, largest = min(known), max(known)
    pad = 0.08 * (largest - smallest) or abs(largest) * 0.05 or 1.0

    def y(value: float) -> float:
        return lower - (value - smallest + pad) / (largest - smallest + 2 * pad) * (lower - upper)

    def x(i: int) -> float:
        return left + (right - left) * (i + 0.5) / len(c.values)

    title = escape(f"{c.name}, {c.unit}" if c.unit else c.name)
    parts = [f'<text x="{left}" y="{top + 12}" font-weight="bold">{title}</text>']
    for value, dash, colour in ((c.centre, "", "#7a8794"), (c.low, "5 4", "#c0392b"), (c.high, "5 4", "#c0392b")):
        if value is not None:
            parts.append(
                f'<line x1="{left}" x2="{right}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="{colour}" '
                f'stroke-dasharray="{dash}"/><text x="{left - 6}" y="{y(value) + 4:.1f}" text-anchor="end" '
                f'fill="{colour}">{four_digits(value)}</text>'
            )
    path = " ".join(f"{x(i):.1f},{y(v):.1f}" for i, v in enumerate(c.values))
    parts.append(f'<polyline points="{path}" fill="none" stroke="#2c5f8a"/>')
    for i, (value, passed, time) in enumerate(zip(c.values, c.passed, c.times, strict=True)):
        colour = "#c0392b" if passed is False else "#2c5f8a"
        parts.append(
            f'<circle cx="{x(i):.1f}" cy="{y(value):.1f}" r="3.5" fill="{colour}">'
            f"<title>{escape(time)}: {value:.5g}</title></circle>"
        )
    parts.append(f'<text x="{left}" y="{lower + 18}" fill="#7a8794">{escape(c.times[0])}</text>')
    parts.append(f'<text x="{right}" y="{lower + 18}" text-anchor="end" fill="#7a8794">{escape(c.times[-1])}</text>')
    if c.signal:
        parts.append(f'<text x="{right}" y="{top + 12}" text-anchor="end" fill="#c0392b">{escape(c.signal)}</text>')
    return parts
