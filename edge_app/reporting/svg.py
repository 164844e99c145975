"""Parts of diagrams: scales, ticks and the few SVG elements that they are drawn with."""

import math
from collections.abc import Iterable, Sequence
from typing import Final

from markupsafe import Markup, escape

__all__ = [
    "LEFT",
    "RIGHT",
    "WIDTH",
    "Scale",
    "decade_text",
    "decades",
    "figure",
    "line",
    "number",
    "rect",
    "round_steps",
    "size_ticks",
    "text",
    "thinned",
]

WIDTH: Final = 720.0
"""Of a diagram, in its own units; the page scales it."""
LEFT: Final = 62.0
RIGHT: Final = 12.0
"""Margins of the panel."""


class Scale:
    """Value -> place, linear or logarithmic; values beyond the ends are drawn at them."""

    def __init__(self, low: float, high: float, start: float, end: float, *, log: bool) -> None:
        self.low, self.high, self.log = low, high, log
        self._a, self._b = self._map(low), self._map(high)
        self._start, self._end = start, end

    def _map(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def __call__(self, value: float) -> float:
        """Place of a value."""
        value = min(max(value, self.low), self.high)
        return self._start + (self._map(value) - self._a) / (self._b - self._a) * (self._end - self._start)


def number(value: float) -> str:
    """A coordinate: one decimal, no trailing zero."""
    return f"{value:.1f}".removesuffix(".0")


def line(x0: float, y0: float, x1: float, y1: float, kind: str) -> str:
    """A line of a class of the style sheet."""
    return f'<line x1="{number(x0)}" y1="{number(y0)}" x2="{number(x1)}" y2="{number(y1)}" class="{kind}"/>'


def text(x: float, y: float, words: str, kind: str = "tick", anchor: str = "middle", turn: bool = False) -> str:
    """Words at a place, turned upwards where asked."""
    rotate = f' transform="rotate(-90 {number(x)} {number(y)})"' if turn else ""
    return f'<text x="{number(x)}" y="{number(y)}" class="{kind}" text-anchor="{anchor}"{rotate}>{escape(words)}</text>'


def rect(x: float, y: float, width: float, height: float, kind: str, fill: str = "") -> str:
    """A rectangle of a class of the style sheet, or of a colour of its own."""
    colour = f' fill="{fill}"' if fill else ""
    place = f'x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}"'
    return f'<rect {place} class="{kind}"{colour}/>'


def figure(height: float, parts: Iterable[str], *, label: str, width: float = WIDTH) -> Markup:
    """A whole diagram with its description for those who do not see it."""
    return Markup(
        f'<svg class="plot" viewBox="0 0 {number(width)} {number(height)}" role="img" aria-label="{escape(label)}">'
        + "".join(parts)
        + "</svg>"
    )


def decades(low: float, high: float) -> list[float]:
    """Powers of ten from at or below ``low`` to at or above ``high``."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    return [10.0**k for k in range(first, last + 1)]


def decade_text(value: float) -> str:
    """A power of ten; from a million on with a raised exponent, since there is no room for so many digits."""
    if value >= 1e6:
        raised = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
        return "10" + "".join(raised[int(d)] for d in str(round(math.log10(value))))
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def round_steps(high: float, wanted: int = 4) -> list[float]:
    """Round numbers from 0 to just above ``high``."""
    if high <= 0:
        return [0.0, 1.0]
    raw = high / wanted
    base = 10.0 ** math.floor(math.log10(raw))
    step = next(m * base for m in (1, 2, 2.5, 5, 10) if m * base >= raw * 0.999)
    return [k * step for k in range(math.ceil(high / step) + 1)]


def size_ticks(low_um: float, high_um: float) -> list[float]:
    """Round sizes within a range, um."""
    return [t for t in (1, 2, 3, 5, 7, 10, 15, 20, 25, 30, 40, 50, 70, 100, 150, 200, 300) if low_um <= t <= high_um]


def thinned(ticks: Sequence[float], scale: Scale, gap: float = 26.0) -> list[float]:
    """Ticks that do not touch each other; those of the reporting sizes go first."""
    kept: list[float] = []
    for tick in sorted(ticks, key=lambda t: (t not in (2, 5, 10, 25, 50, 70), t)):
        if all(abs(scale(tick) - scale(k)) >= gap for k in kept):
            kept.append(tick)
    return sorted(kept)
