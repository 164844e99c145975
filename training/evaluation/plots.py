"""Diagrams of the evaluation as inline SVG, in the look of the run's report; the same figures give the same bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup, escape

__all__ = ["BLUE", "GREEN", "GREY", "ORANGE", "Line", "bar_plot", "confusion_plot", "line_plot", "reliability_plot"]

BLUE: Final = "#0072b2"
ORANGE: Final = "#d55e00"
GREEN: Final = "#009e73"
GREY: Final = "#8a96a1"
_ACCENT: Final = (11, 92, 138)


@dataclass(frozen=True, kw_only=True)
class Line:
    """A curve; ``low`` and ``high`` draw a band, ``labels`` are shown when pointed at."""

    name: str
    colour: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    labels: Sequence[str] = ()
    dashed: bool = False


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _line(x0: float, y0: float, x1: float, y1: float, kind: str) -> str:
    return f'<line x1="{_n(x0)}" y1="{_n(y0)}" x2="{_n(x1)}" y2="{_n(y1)}" class="{kind}"/>'


def _text(x: float, y: float, text: str, kind: str = "tick", anchor: str = "middle", turn: float = 0) -> str:
    rotate = f' transform="rotate({turn:g} {_n(x)} {_n(y)})"' if turn else ""
    return f'<text x="{_n(x)}" y="{_n(y)}" class="{kind}" text-anchor="{anchor}"{rotate}>{escape(text)}</text>'


def _svg(width: float, height: float, parts: Iterable[str], label: str) -> Markup:
    return Markup(
        f'<svg class="plot" viewBox="0 0 {_n(width)} {_n(height)}" role="img" aria-label="{escape(label)}">'
        + "".join(parts)
        + "</svg>"
    )


def _steps(low: float, high: float, wanted: int) -> list[float]:
    """Round numbers that cover a range, from just below it to just above."""
    raw = (high - low) / max(1, wanted)
    base = 10.0 ** math.floor(math.log10(raw)) if raw > 0 else 1.0
    step = next(m * base for m in (1, 2, 2.5, 5, 10) if m * base >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [k * step for k in range(first, last + 1)]


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = (high - low) or 1.0

    def place(value: float) -> float:
        return start + (min(max(value, low), high) - low) / span * (end - start)

    return place


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def _shade(share: float, *, wrong: bool) -> str:
    """White to blue; what lies beside the diagonal goes to orange."""
    dark = (188, 84, 26) if wrong else _ACCENT
    part = min(1.0, share) ** 0.7
    return "#" + "".join(f"{round(255 + part * (d - 255)):02x}" for d in dark)


def confusion_plot(classes: Sequence[str], table: Sequence[Sequence[int]], *, colours: Sequence[str]) -> Markup:
    """Rows true class, columns called class then unknown: share of the row in colour, with the numbers.

    Parameters
    ----------
    classes : sequence of str
        C names.
    table : (C, C + 1) counts
    colours : sequence of str
        Of the classes.
    """
    n = len(classes)
    cell_w, cell_h, left, top = min(84.0, 520.0 / (n + 1)), 40.0 if n < 8 else 32.0, 150.0, 74.0
    width, height = left + cell_w * (n + 1) + 10, top + cell_h * n + 26
    parts = [_text(left + cell_w * (n + 1) / 2, 14, "called", "axis")]
    parts.append(_text(14, top + cell_h * n / 2, "true class", "axis", turn=-90))
    for c, name in enumerate((*classes, "unknown")):
        x = left + cell_w * (c + 0.5)
        parts.append(_text(x - 8, top - 10, name, "tick", "start", turn=-28))
    for r, (name, row) in enumerate(zip(classes, table, strict=True)):
        total, y = sum(row), top + cell_h * r
        mark = f'<rect x="{_n(left - 14)}" y="{_n(y + cell_h / 2 - 4.5)}" width="9" height="9" rx="2" '
        parts += [mark + f'fill="{colours[r]}"/>', _text(left - 20, y + cell_h / 2 + 4, name, "axis", "end")]
        for c, count in enumerate(row):
            share = count / total if total else 0.0
            x = left + cell_w * c
            title = f"{name} called {(*classes, 'unknown')[c]}: {count:,d} of {total:,d}"
            light = share > (0.5 if c == r else 0.6)
            parts.append(
                f'<rect x="{_n(x + 1)}" y="{_n(y + 1)}" width="{_n(cell_w - 2)}" height="{_n(cell_h - 2)}" '
                f'fill="{_shade(share, wrong=c != r)}" rx="2"><title>{escape(title)}</title></rect>'
            )
            if count:
                kind = "cell light" if light else "cell"
                parts.append(
                    _text(x + cell_w / 2, y + cell_h / 2 + (0 if cell_h > 34 else 4), f"{100 * share:.1f}", kind)
                )
                if cell_h > 34:
                    parts.append(_text(x + cell_w / 2, y + cell_h / 2 + 12, f"{count:,d}", kind + " count"))
    parts.append(_text(left + cell_w * (n + 1) / 2, height - 6, "percent of the true class, and number of pictures"))
    return _svg(width, height, parts, "Confusion matrix")


def line_plot(
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
    x_ticks: Sequence[tuple[float, str]] = (),
    mark_x: float | None = None,
    mark_y: float | None = None,
    percent: bool = False,
    width: float = 350.0,
    height: float = 230.0,
) -> Markup:
    """Curves with points and bands.

    Parameters
    ----------
    lines : sequence of Line
    x_label, y_label : str
    y_range : (float, float), optional
        Default: from the data, from 0 where that is near.
    x_ticks : sequence of (float, str), optional
        Place and text; default round numbers.
    mark_x, mark_y : float, optional
        Dashed lines: the nominal condition, chance.
    percent : bool
        ``y`` is a fraction, shown in percent.
    width, height : float
    """
    left, right, top, bottom = 52.0, 12.0, 12.0, 42.0
    xs = [v for line in lines for v in line.x]
    ys = [v for line in lines for v in (*line.y, *line.low, *line.high)]
    low, high = y_range if y_range is not None else (min(0.0, *ys), max(*ys, 0.01))
    y_steps = _steps(low, high, 5)
    x = _scale(min(xs), max(xs), left + 8, width - right - 8)
    y = _scale(y_steps[0], y_steps[-1], height - bottom, top)
    base = height - bottom
    decimals = 0 if y_steps[1] - y_steps[0] >= (0.0099 if percent else 0.99) else 1 if percent else 2
    parts = [_text(14, (top + base) / 2, y_label, "axis", turn=-90)]
    for value in y_steps:
        shown = f"{100 * value:.{decimals}f} %" if percent else f"{value:.{decimals}f}"
        parts += [_line(left, y(value), width - right, y(value), "grid")]
        parts += [_text(left - 6, y(value) + 3.5, _minus(shown), anchor="end")]
    if mark_x is not None:
        parts.append(_line(x(mark_x), top, x(mark_x), base, "mean"))
    if mark_y is not None:
        parts.append(_line(left, y(mark_y), width - right, y(mark_y), "mean"))
    ticks = x_ticks or [(v, _minus(f"{v:g}")) for v in _steps(min(xs), max(xs), 6) if min(xs) <= v <= max(xs)]
    last = -1e9
    for place, text in sorted(ticks):
        parts.append(_line(x(place), base, x(place), base + 4, "base"))
        if x(place) - last >= 5.6 * len(text) + 4:
            parts.append(_text(x(place), base + 16, text))
            last = x(place)
    parts += [
        _line(left, base, width - right, base, "base"),
        _text((left + width - right) / 2, height - 8, x_label, "axis"),
    ]
    for line in lines:
        points = [(x(a), y(b)) for a, b in zip(line.x, line.y, strict=True)]
        if line.low and line.high:
            edge = [(x(a), y(b)) for a, b in zip(line.x, line.high, strict=True)]
            edge += [(x(a), y(b)) for a, b in zip(reversed(line.x), reversed(line.low), strict=True)]
            area = " ".join(f"{_n(a)},{_n(b)}" for a, b in edge)
            parts.append(f'<polygon points="{area}" fill="{line.colour}" fill-opacity=".16"/>')
        path = " ".join(f"{_n(a)},{_n(b)}" for a, b in points)
        dash = ' stroke-dasharray="5 4"' if line.dashed else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="{line.colour}" stroke-width="1.8"{dash}/>')
        for k, (a, b) in enumerate(points):
            title = f"<title>{escape(line.labels[k])}</title>" if line.labels else ""
            parts.append(f'<circle cx="{_n(a)}" cy="{_n(b)}" r="3" fill="{line.colour}">{title}</circle>')
    return _svg(width, height, parts, f"{y_label} against {x_label}")


def reliability_plot(bins: Sequence[dict[str, float]], *, colour: str = BLUE, width: float = 350.0) -> Markup:
    """Share called rightly against confidence; the area of a dot is the number of particles."""
    height, left, right, top, bottom = 300.0, 52.0, 12.0, 12.0, 42.0
    x, y = _scale(0, 1, left, width - right), _scale(0, 1, height - bottom, top)
    parts = [_text(14, (top + height - bottom) / 2, "share called rightly", "axis", turn=-90)]
    for value in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        parts += [_line(left, y(value), width - right, y(value), "grid")]
        parts += [_text(left - 6, y(value) + 3.5, f"{value:.1f}", anchor="end")]
        parts += [_text(x(value), height - bottom + 16, f"{value:.1f}")]
    parts.append(_line(x(0), y(0), x(1), y(1), "mean"))
    parts.append(_line(left, height - bottom, width - right, height - bottom, "base"))
    parts.append(_text((left + width - right) / 2, height - 8, "confidence", "axis"))
    most = max((b["particles"] for b in bins), default=1)
    for b in bins:
        cx, cy = x(b["confidence"]), y(b["right"])
        size = 2.5 + 9 * math.sqrt(b["particles"] / most)
        words = f"confidence {b['confidence']:.2f}: right {b['right']:.3f} of {b['particles']:,d} particles"
        parts.append(_line(cx, cy, cx, y(b["confidence"]), "gap"))
        parts.append(
            f'<circle cx="{_n(cx)}" cy="{_n(cy)}" r="{_n(size)}" fill="{colour}" fill-opacity=".75">'
            f"<title>{escape(words)}</title></circle>"
        )
    return _svg(width, height, parts, "Reliability diagram")


def bar_plot(
    names: Sequence[str],
    series: Sequence[tuple[str, str, Sequence[float]]],
    *,
    x_label: str,
    width: float = 720.0,
) -> Markup:
    """Horizontal bars in groups.

    Parameters
    ----------
    names : sequence of str
        Of the groups.
    series : sequence of (name, colour, values)
        Fractions, shown in percent.
    x_label : str
    width : float
    """
    left, right, top, bottom, bar = 150.0, 44.0, 6.0, 40.0, 8.0
    step = bar * len(series) + 10
    height = top + step * len(names) + bottom
    most = max([v for _, _, values in series for v in values] + [0.001])
    steps = _steps(0.0, most, 5)
    x = _scale(0.0, steps[-1], left, width - right)
    base = top + step * len(names)
    decimals = 0 if steps[1] >= 0.0099 else 1
    parts = []
    for value in steps:
        parts += [_line(x(value), top, x(value), base, "grid")]
        parts += [_text(x(value), base + 16, f"{100 * value:.{decimals}f} %")]
    for k, name in enumerate(names):
        y = top + step * k + 5
        parts.append(_text(left - 10, y + bar * len(series) / 2 + 4, name, "axis", "end"))
        for s, (label, colour, values) in enumerate(series):
            words = f"{name}, {label}: {100 * values[k]:.2f} %"
            parts.append(
                f'<rect x="{_n(left)}" y="{_n(y + bar * s)}" width="{_n(max(0.6, x(values[k]) - left))}" '
                f'height="{_n(bar - 1)}" fill="{colour}"><title>{escape(words)}</title></rect>'
            )
    parts += [_line(left, top, left, base, "base"), _text((left + width - right) / 2, height - 6, x_label, "axis")]
    return _svg(width, height, parts, x_label)
