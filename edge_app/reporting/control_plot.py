"""Control charts of verifications, as small diagrams in the style of the report."""

from markupsafe import Markup, escape

from edge_app.measurement.control_chart import ControlChart
from edge_app.measurement.four_digits import four_digits
from edge_app.reporting.svg import Scale, figure, line, number, rect, text

__all__ = ["control_plot"]

_WIDTH = 350.0
_HEIGHT = 112.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 8.0, 62.0, 10.0, 22.0


def _short(value: float) -> str:
    return four_digits(value).replace("-", "\N{MINUS SIGN}")


def control_plot(chart: ControlChart) -> Markup:
    """One quantity over the verifications: centre, control limits, and each value; a failed one is a red square.

    Points are evenly spaced in the order of time; the first and the last day stand below.
    """
    known = [*chart.values, *(v for v in (chart.low, chart.high) if v is not None)]
    low, high = min(known), max(known)
    pad = 0.1 * (high - low) or 0.05 * abs(high) or 1.0
    right, base = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    y = Scale(low - pad, high + pad, base, _TOP, log=False)
    step = (right - _LEFT) / len(chart.values)
    x = [_LEFT + step * (i + 0.5) for i in range(len(chart.values))]
    parts = []
    if chart.low is not None and chart.high is not None and chart.centre is not None:
        parts.append(rect(_LEFT, y(chart.high), right - _LEFT, y(chart.low) - y(chart.high), "control-band"))
        parts.append(line(_LEFT, y(chart.centre), right, y(chart.centre), "mean"))
        room = y(chart.low) - y(chart.high) >= 22
        for value, shown in ((chart.high, True), (chart.centre, room), (chart.low, True)):
            if shown:
                parts.append(text(right + 6, y(value) + 3.5, _short(value), anchor="start"))
    else:
        # Without limits the smallest and the largest value say what the course means.
        for value in sorted({min(chart.values), max(chart.values)}):
            parts.append(line(_LEFT, y(value), right, y(value), "grid"))
            parts.append(text(right + 6, y(value) + 3.5, _short(value), anchor="start"))
    path = " ".join(f"{number(a)},{number(y(b))}" for a, b in zip(x, chart.values, strict=True))
    parts.append(f'<polyline points="{path}" class="control-path"/>')
    for at, value, passed, time in zip(x, chart.values, chart.passed, chart.times, strict=True):
        words = f"<title>{escape(time)}: {escape(_short(value))}</title>"
        if passed is False:
            box = rect(at - 3.6, y(value) - 3.6, 7.2, 7.2, "control-failed")
            parts.append(box.replace("/>", f">{words}</rect>"))
        else:
            parts.append(f'<circle cx="{number(at)}" cy="{number(y(value))}" r="2.6" class="point">{words}</circle>')
    parts.append(line(_LEFT, base, right, base, "base"))
    parts.append(text(_LEFT, base + 15, chart.times[0][:10], anchor="start"))
    if len(chart.times) > 1:
        parts.append(text(right, base + 15, chart.times[-1][:10], anchor="end"))
    return figure(_HEIGHT, parts, label=f"Control chart of {chart.name}", width=_WIDTH)
