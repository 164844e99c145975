"""Diagrams as inline SVG: every bar is a link, nothing is loaded, the same data give the same bytes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

from edge_app.reporting.number_text import (
    bin_text,
    class_text,
    decimals_for,
    interval_text,
    per_ml_text,
    percent_text,
    size_text,
)
from edge_app.reporting.svg import (
    LEFT,
    RIGHT,
    WIDTH,
    Scale,
    decade_text,
    decades,
    figure,
    line,
    number,
    rect,
    round_steps,
    size_ticks,
    text,
    thinned,
)

__all__ = [
    "ScatterClass",
    "SizeBar",
    "TimePoint",
    "interval_gauge",
    "replicate_plot",
    "scatter_plot",
    "size_distribution",
    "time_plot",
]


@dataclass(frozen=True, kw_only=True)
class SizeBar:
    """One bin of the size distribution.

    Attributes
    ----------
    low_um, high_um
        Edges; the last bin of a grid has no upper end (``inf``).
    per_ml, interval_low, interval_high
        Concentration in the bin with its 95 % interval.
    shares
        Class -> share of the bin's particles, in the order they are stacked.
    href
        Where the bar leads.
    """

    low_um: float
    high_um: float
    per_ml: float
    interval_low: float
    interval_high: float
    shares: Mapping[str, float]
    href: str

    @property
    def name(self) -> str:
        """The bin in words."""
        return bin_text(self.low_um, self.high_um)


@dataclass(frozen=True, kw_only=True)
class ScatterClass:
    """Points of one class; ``x`` is size in um, ``y`` in 0..1, shape (n,)."""

    name: str
    colour: str
    x: npt.NDArray[np.floating]
    y: npt.NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class TimePoint:
    """One span of the run."""

    t0_s: float
    t1_s: float
    per_ml: float | None
    interval_low: float
    interval_high: float
    frames_left_out: int
    frames_lost: int


def size_distribution(bars: Sequence[SizeBar], *, colours: Mapping[str, str]) -> Markup:
    """Concentration per bin with 95 % intervals over the share of each class; every bar is a link.

    Parameters
    ----------
    bars
        Adjacent bins by rising size.
    colours
        Class -> colour.
    """
    top, middle, gap, low_panel = 14.0, 236.0, 18.0, 78.0
    height = top + middle + gap + low_panel + 38.0
    last = bars[-1].high_um
    end_um = bars[-1].low_um * 1.4 if math.isinf(last) else last
    x = Scale(bars[0].low_um, end_um, LEFT, WIDTH - RIGHT, log=True)
    highs = [b.interval_high for b in bars if b.interval_high > 0]
    least = [b.per_ml for b in bars if b.per_ml > 0] or [h for h in highs if math.isfinite(h)]
    powers = decades(min(least, default=1.0) / 2, max([*highs, 1.0]))
    if len(powers) < 2:
        powers.append(powers[-1] * 10)
    y = Scale(powers[0], powers[-1], top + middle, top, log=True)
    base = top + middle
    parts = [text(15, top + middle / 2, "particles per mL in each bin", "axis", turn=True)]
    for value in powers:
        parts += [line(LEFT, y(value), WIDTH - RIGHT, y(value), "grid")]
        parts += [text(LEFT - 6, y(value) + 3.5, decade_text(value), anchor="end")]
    share_top = base + gap
    share = Scale(0.0, 1.0, share_top + low_panel, share_top, log=False)
    for value, label in ((0.0, "0 %"), (0.5, "50 %"), (1.0, "100 %")):
        parts += [line(LEFT, share(value), WIDTH - RIGHT, share(value), "grid")]
        parts += [text(LEFT - 6, share(value) + 3.5, label, anchor="end")]
    for bar in bars:
        parts += _size_bar(bar, x, y, share, end_um)
        parts += _shares(bar, x, share, colours, end_um)
    axis_y = share_top + low_panel
    parts += [line(LEFT, base, WIDTH - RIGHT, base, "base"), line(LEFT, axis_y, WIDTH - RIGHT, axis_y, "base")]
    for tick in thinned(size_ticks(bars[0].low_um, end_um), x):
        parts += [line(x(tick), axis_y, x(tick), axis_y + 4, "base"), text(x(tick), axis_y + 16, size_text(tick))]
    parts += [text((LEFT + WIDTH - RIGHT) / 2, axis_y + 33, "equivalent circular diameter, \N{MICRO SIGN}m", "axis")]
    return figure(height, parts, label="Size distribution with 95 % intervals, and share of each class by size")


def _size_bar(bar: SizeBar, x: Scale, y: Scale, share: Scale, end_um: float) -> list[str]:
    left, right = x(bar.low_um), x(min(bar.high_um, end_um))
    centre, floor = (left + right) / 2, y(y.low)
    title = f"{bar.name}: {per_ml_text(bar.per_ml)} per mL ({interval_text(bar.interval_low, bar.interval_high)})"
    parts = [f'<a href="{escape(bar.href)}"><title>{escape(title)}</title>']
    # The whole column is the link, so that a low bar is as easy to hit as a high one.
    parts += [rect(left, y(y.high), right - left, share(0.0) - y(y.high), "hit")]
    if bar.per_ml > 0:
        parts += [rect(left + 0.8, y(bar.per_ml), max(right - left - 1.6, 0.8), floor - y(bar.per_ml), "bar")]
    kind = "whisker" if bar.per_ml > 0 else "whisker none"
    upper, lower = y(bar.interval_high), y(bar.interval_low) if bar.interval_low > 0 else floor
    parts += [line(centre, upper, centre, lower, kind), line(centre - 4, upper, centre + 4, upper, kind)]
    if bar.interval_low > y.low:
        parts += [line(centre - 4, lower, centre + 4, lower, kind)]
    return [*parts, "</a>"]


def _shares(bar: SizeBar, x: Scale, share: Scale, colours: Mapping[str, str], end_um: float) -> list[str]:
    left, right = x(bar.low_um), x(min(bar.high_um, end_um))
    parts, done = [f'<a href="{escape(bar.href)}">'], 0.0
    for name, part in bar.shares.items():
        if part > 0:
            y0, y1 = share(done + part), share(done)
            title = f"<title>{escape(f'{bar.name}: {class_text(name)} {percent_text(part)}')}</title>"
            box = rect(left + 0.8, y0, max(right - left - 1.6, 0.8), y1 - y0, "share", colours[name])
            parts.append(box.replace("/>", f">{title}</rect>"))
            done += part
    return [*parts, "</a>"]


def interval_gauge(
    value: float, low: float, high: float, limit: float, *, state: str, inner: tuple[float, float] | None = None
) -> Markup:
    """Where a value and its interval lie against a limit, on a logarithmic axis around the limit.

    Parameters
    ----------
    value, low, high
        In the unit of the limit.
    limit
        Drawn at two thirds.
    state
        ``pass``, ``fail`` or ``inconclusive``; decides the colour.
    inner
        Interval of the count alone, drawn within the whole one.
    """
    width, height = 240.0, 36.0
    scale = Scale(limit / 1000.0, limit * 30.0, 4.0, width - 4.0, log=True)
    middle = 13.0
    left, right, at = (scale(max(v, limit / 1000.0)) for v in (low, high, value))
    parts = [
        rect(4, middle - 3, width - 8, 6, "gauge-rail"),
        rect(left, middle - 3, max(right - left, 2.0), 6, f"gauge-range {state}"),
    ]
    if inner is not None:
        first, last = (scale(max(v, limit / 1000.0)) for v in inner)
        parts.append(rect(first, middle - 3, max(last - first, 1.0), 6, f"gauge-inner {state}"))
    parts += [
        f'<circle cx="{number(at)}" cy="{number(middle)}" r="4" class="gauge-dot {state}"/>',
        line(scale(limit), 3, scale(limit), 23, "gauge-limit"),
        text(scale(limit), height - 0.5, "limit", "gauge-text"),
    ]
    label = f"{per_ml_text(value)} ({interval_text(low, high)}) against a limit of {per_ml_text(limit)}"
    return Markup(
        f'<svg class="gauge" viewBox="0 0 {number(width)} {number(height)}" role="img" aria-label="{escape(label)}">'
        + "".join(parts)
        + "</svg>"
    )


def scatter_plot(points: Sequence[ScatterClass], *, y_label: str) -> Markup:
    """Size against a shape between 0 and 1, a dot per particle.

    Parameters
    ----------
    points
        Drawn in this order, so that rare classes come last and on top.
    """
    top, panel = 12.0, 250.0
    sizes = np.concatenate([p.x for p in points]) if points else np.empty(0)
    low = float(sizes.min()) if sizes.size else 1.0
    high = max(float(sizes.max()) if sizes.size else 10.0, low * 1.5)
    x = Scale(low * 0.95, high * 1.05, LEFT, WIDTH - RIGHT, log=True)
    y = Scale(0.0, 1.0, top + panel, top, log=False)
    parts = [text(15, top + panel / 2, y_label, "axis", turn=True)]
    for value in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        parts += [line(LEFT, y(value), WIDTH - RIGHT, y(value), "grid")]
        parts += [text(LEFT - 6, y(value) + 3.5, f"{value:.1f}", anchor="end")]
    for group in points:
        # One path per class: a round cap on a line of no length is a dot, at a tenth of a circle's bytes.
        dots = "".join(
            f"M{number(x(a))} {number(y(b))}h0" for a, b in zip(group.x.tolist(), group.y.tolist(), strict=True)
        )
        parts.append(f'<path d="{dots}" class="dots" stroke="{group.colour}"/>')
    base = top + panel
    parts.append(line(LEFT, base, WIDTH - RIGHT, base, "base"))
    for tick in thinned(size_ticks(x.low, x.high), x):
        parts += [line(x(tick), base, x(tick), base + 4, "base"), text(x(tick), base + 16, size_text(tick))]
    parts += [text((LEFT + WIDTH - RIGHT) / 2, base + 33, "equivalent circular diameter, \N{MICRO SIGN}m", "axis")]
    return figure(top + panel + 38, parts, label=f"Size against {y_label}, a dot per particle")


def time_plot(points: Sequence[TimePoint], *, mean_per_ml: float, y_label: str) -> Markup:
    """Concentration over the run with intervals, frames left out and lost below it."""
    top, panel, strip = 12.0, 130.0, 16.0
    start, end = points[0].t0_s, max(points[-1].t1_s, points[0].t0_s + 1e-3)
    x = Scale(start, end, LEFT, WIDTH - RIGHT, log=False)
    steps = round_steps(max([p.interval_high for p in points if p.per_ml is not None] + [mean_per_ml]))
    y = Scale(0.0, steps[-1], top + panel, top, log=False)
    parts = [text(15, top + panel / 2, y_label, "axis", turn=True)]
    for value in steps:
        parts += [line(LEFT, y(value), WIDTH - RIGHT, y(value), "grid")]
        parts += [text(LEFT - 6, y(value) + 3.5, f"{value:,.{decimals_for(steps[-1]) if value else 0}f}", anchor="end")]
    parts.append(line(LEFT, y(mean_per_ml), WIDTH - RIGHT, y(mean_per_ml), "mean"))
    base = top + panel
    for p in points:
        middle = (x(p.t0_s) + x(p.t1_s)) / 2
        if p.per_ml is not None:
            parts.append(line(middle, y(p.interval_low), middle, y(p.interval_high), "whisker"))
            parts.append(f'<circle cx="{number(middle)}" cy="{number(y(p.per_ml))}" r="2.6" class="point"/>')
        width = max(x(p.t1_s) - x(p.t0_s) - 0.6, 1.2)
        for missing, kind in ((p.frames_left_out, "left-out"), (p.frames_lost, "lost")):
            if missing:
                words = f"{missing} frames {'left out' if kind == 'left-out' else 'lost'}"
                box = rect(x(p.t0_s), base + (3 if kind == "left-out" else 10), width, 6, kind)
                parts.append(box.replace("/>", f"><title>{words}</title></rect>"))
    parts.append(line(LEFT, base, WIDTH - RIGHT, base, "base"))
    step = round_steps(end - start, 6)[1]
    for k in range(math.ceil(start / step - 1e-9), math.floor(end / step + 1e-9) + 1):
        parts.append(text(x(k * step), base + strip + 14, f"{k * step:g}"))
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, base + strip + 30, "time in the run, s", "axis"))
    return figure(base + strip + 36, parts, label="Concentration over the time of the run")


def replicate_plot(rows: Sequence[tuple[str, float, float, float, bool]], *, mean: float, x_label: str) -> Markup:
    """A line per replicate with its interval, and the mean of those that count.

    Parameters
    ----------
    rows
        Label, value, interval (low, high), whether it counts.
    """
    top, step, left = 8.0, 18.0, 150.0
    high = max([mean, *(r[3] for r in rows)])
    steps = round_steps(high if high > 0 else 1.0)
    x = Scale(0.0, steps[-1], left, WIDTH - RIGHT - 16, log=False)
    base = top + step * len(rows)
    parts = [line(x(v), top, x(v), base, "grid") for v in steps]
    parts += [text(x(v), base + 15, f"{v:,.{decimals_for(steps[-1]) if v else 0}f}") for v in steps]
    parts.append(line(x(mean), top, x(mean), base, "mean"))
    for i, (label, value, low, up, counts) in enumerate(rows):
        middle = top + step * (i + 0.5)
        kind = "" if counts else " none"
        parts += [
            text(left - 10, middle + 3.5, label, anchor="end"),
            line(x(low), middle, x(up), middle, "whisker" + kind),
        ]
        parts.append(f'<circle cx="{number(x(value))}" cy="{number(middle)}" r="3.6" class="point{kind}"/>')
    parts += [
        line(left, base, WIDTH - RIGHT - 16, base, "base"),
        text((left + WIDTH) / 2, base + 31, x_label, "axis"),
    ]
    return figure(base + 36, parts, label="Replicates with 95 % intervals")
