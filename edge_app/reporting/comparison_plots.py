"""Diagrams of two runs: size distributions on top of each other, effects, and composition."""

import math
from collections.abc import Sequence
from typing import Final

from markupsafe import Markup, escape

from edge_app.measurement.comparability import DescriptorComparison
from edge_app.measurement.concentration import Interval
from edge_app.reporting.comparison import ClassShare, descriptor_text
from edge_app.reporting.number_text import bin_text, class_text, interval_text, per_ml_text, size_text
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
    size_ticks,
    text,
    thinned,
)

__all__ = ["composition_plot", "effect_plot", "overlay_plot"]

SIDES: Final = ("first", "second")
_EFFECTS: Final = ((0.147, "negligible"), (0.33, "small"), (0.474, "medium"))


def overlay_plot(edges_um: Sequence[float], bins: tuple[Sequence[Interval], Sequence[Interval]]) -> Markup:
    """Particles per mL in each size bin of both runs, with 95 % intervals, logarithmic.

    Parameters
    ----------
    edges_um
        Edges of the bins; the last is infinite.
    bins
        Interval of each bin, per run.
    """
    last = max((i for run in bins for i, b in enumerate(run) if b.value > 0), default=0)
    shown = [run[: last + 1] for run in bins]
    edges = list(edges_um[: last + 2])
    if math.isinf(edges[-1]):
        edges[-1] = edges[-2] * 1.4
    top, panel = 14.0, 250.0
    base = top + panel
    values = [b.value for run in shown for b in run if b.value > 0]
    highs = [b.high for run in shown for b in run if b.value > 0]
    powers = decades(min(values, default=1.0) / 2, max([*highs, 1.0]))
    if len(powers) < 2:
        powers.append(powers[-1] * 10)
    x = Scale(edges[0], edges[-1], LEFT, WIDTH - RIGHT, log=True)
    y = Scale(powers[0], powers[-1], base, top, log=True)
    parts = [text(15, top + panel / 2, "particles per mL in each bin", "axis", turn=True)]
    for power in powers:
        parts.append(line(LEFT, y(power), WIDTH - RIGHT, y(power), "grid"))
        parts.append(text(LEFT - 6, y(power) + 3.5, decade_text(power), anchor="end"))
    for side, run, shift in zip(SIDES, shown, (-0.17, 0.17), strict=True):
        parts += _steps(side, run, edges, x, y, shift)
    parts.append(line(LEFT, base, WIDTH - RIGHT, base, "base"))
    for tick in thinned(size_ticks(edges[0], edges[-1]), x):
        parts += [line(x(tick), base, x(tick), base + 4, "base"), text(x(tick), base + 16, size_text(tick))]
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, base + 33, "equivalent circular diameter, \N{MICRO SIGN}m", "axis"))
    return figure(base + 38, parts, label="Size distributions of both runs with 95 % intervals")


def _steps(side: str, run: Sequence[Interval], edges: Sequence[float], x: Scale, y: Scale, shift: float) -> list[str]:
    places = []
    for i, found in enumerate(run):
        level = number(y(found.value) if found.value > 0 else y(y.low))
        places += [f"{number(x(edges[i]))},{level}", f"{number(x(edges[i + 1]))},{level}"]
    parts = [f'<polyline points="{" ".join(places)}" class="step {side}"/>']
    for i, found in enumerate(run):
        if found.value <= 0:
            continue
        left, right = x(edges[i]), x(edges[i + 1])
        # Side by side in the bin, so that neither interval hides the other.
        at = (left + right) / 2 + shift * (right - left)
        low = y(found.low) if found.low > 0 else y(y.low)
        words = f"{bin_text(edges[i], edges[i + 1])}, {side} run: {per_ml_text(found.value)} per mL"
        words += f" ({interval_text(found.low, found.high)})"
        parts.append(line(at, y(found.high), at, low, f"arm {side}"))
        parts.append(_mark(side, at, y(found.value), words))
    return parts


def _mark(side: str, x: float, y: float, words: str) -> str:
    """A dot of the first run, a square of the second: they stay apart without colour."""
    title = f"<title>{escape(words)}</title>"
    if side == "first":
        return f'<circle cx="{number(x)}" cy="{number(y)}" r="3" class="mark first">{title}</circle>'
    return rect(x - 2.7, y - 2.7, 5.4, 5.4, "mark second").replace("/>", f">{title}</rect>")


def effect_plot(descriptors: Sequence[DescriptorComparison]) -> Markup:
    """Effect of each descriptor from -1 to 1, over bands of what is called negligible, small, medium and large."""
    top, step, left = 22.0, 24.0, 132.0
    base = top + step * len(descriptors)
    x = Scale(-1.0, 1.0, left, WIDTH - RIGHT, log=False)
    parts = []
    for i, (end, name) in enumerate(reversed(_EFFECTS)):
        parts.append(rect(x(-end), top, x(end) - x(-end), base - top, f"effect-band band-{i}"))
        if name != "medium":
            parts.append(text((x(end) + x(0 if name == "negligible" else 0.147)) / 2, top - 7, name))
    parts.append(text((x(0.474) + x(0.33)) / 2, top - 7, "medium"))
    parts.append(text((x(1.0) + x(0.474)) / 2, top - 7, "large"))
    parts.append(line(x(0), top, x(0), base, "base"))
    for i, d in enumerate(descriptors):
        middle = top + step * (i + 0.5)
        side = "first" if d.effect > 0 else "second"
        words = f"{descriptor_text(d.name)}: effect {d.effect:+.2f}, {d.effect_name}"
        start, end = sorted((x(0), x(d.effect)))
        parts += [
            text(left - 10, middle + 3.5, descriptor_text(d.name), anchor="end"),
            rect(start, middle - 4, max(end - start, 0.5), 8, f"effect {side}"),
            _mark(side, x(d.effect), middle, words),
        ]
    for value in (-1.0, -0.5, 0.0, 0.5, 1.0):
        parts.append(text(x(value), base + 15, f"{value:g}".replace("-", "\N{MINUS SIGN}")))
    parts.append(text((x(-1) + x(0)) / 2, base + 32, "\N{LEFTWARDS ARROW} larger in the second run", "axis"))
    parts.append(text((x(0) + x(1)) / 2, base + 32, "larger in the first run \N{RIGHTWARDS ARROW}", "axis"))
    return figure(base + 38, parts, label="Effect of each descriptor")


def composition_plot(classes: Sequence[ClassShare]) -> Markup:
    """Share of each class in both runs with 95 % intervals."""
    top, step, left = 6.0, 24.0, 132.0
    base = top + step * len(classes)
    highest = max((s for c in classes for s in (c.first[2], c.second[2])), default=1.0)
    end = min(1.0, math.ceil(highest * 10 + 1e-9) / 10)
    x = Scale(0.0, end, left, WIDTH - RIGHT - 8, log=False)
    parts = []
    ticks = round(end * 10)
    for k in range(0, ticks + 1, 1 if ticks <= 6 else 2):
        parts.append(line(x(k / 10), top, x(k / 10), base, "grid"))
        parts.append(text(x(k / 10), base + 15, f"{10 * k} %"))
    for i, c in enumerate(classes):
        middle = top + step * (i + 0.5)
        parts.append(text(left - 10, middle + 3.5, class_text(c.class_name), anchor="end"))
        for side, (share, low, high), offset in zip(SIDES, (c.first, c.second), (-4.5, 4.5), strict=True):
            words = f"{class_text(c.class_name)}, {side} run: {100 * share:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
            parts.append(line(x(low), middle + offset, x(high), middle + offset, f"arm {side}"))
            parts.append(_mark(side, x(share), middle + offset, words))
    parts.append(line(left, base, WIDTH - RIGHT - 8, base, "base"))
    parts.append(text((left + WIDTH) / 2, base + 32, "share of the particles, as called", "axis"))
    return figure(base + 38, parts, label="Share of each class in both runs with 95 % intervals")
