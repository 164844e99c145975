"""Diagrams: where things lie, and that any number can be drawn."""

import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from edge_app.reporting.plots import (
    ScatterClass,
    SizeBar,
    TimePoint,
    interval_gauge,
    replicate_plot,
    scatter_plot,
    size_distribution,
    time_plot,
)

COLOURS = {"glass": "#cc79a7", "unknown": "#a3a8ae"}


def bar(low: float, high: float, per_ml: float, interval: tuple[float, float], share: float = 0.25) -> SizeBar:
    return SizeBar(
        low_um=low, high_um=high, per_ml=per_ml, interval_low=interval[0], interval_high=interval[1],
        shares={"glass": share, "unknown": 1 - share}, href=f"#bin-{low:g}",
    )  # fmt: skip


def numbers_of(svg: str) -> list[float]:
    root = ET.fromstring(svg)
    found = []
    for element in root.iter():
        for name in ("x", "y", "x1", "y1", "x2", "y2", "width", "height", "cx", "cy"):
            if name in element.attrib and element is not root:
                found.append(float(element.attrib[name]))
    return found


def test_bars_rise_with_the_concentration_and_hold_their_links() -> None:
    bars = [bar(5, 10, 1000, (900, 1100)), bar(10, 20, 100, (80, 125)), bar(20, math.inf, 0, (0, 3.7))]
    svg = size_distribution(bars, colours=COLOURS)
    root = ET.fromstring(svg)
    assert [a.attrib["href"] for a in root.iter("a")] == ["#bin-5"] * 2 + ["#bin-10"] * 2 + ["#bin-20"] * 2
    drawn = [r for r in root.iter("rect") if r.attrib["class"] == "bar"]
    heights = [float(r.attrib["height"]) for r in drawn]
    # A decade apart on a logarithmic axis; the empty bin has its interval only.
    assert len(heights) == 2
    assert heights[0] > heights[1] > 0
    assert len([e for e in root.iter("line") if e.attrib["class"] == "whisker none"]) >= 1


def test_shares_fill_the_whole_height() -> None:
    root = ET.fromstring(size_distribution([bar(5, 10, 10, (5, 20)), bar(10, 20, 1, (0.1, 5))], colours=COLOURS))
    shares = [r for r in root.iter("rect") if r.attrib["class"] == "share"]
    first = [float(r.attrib["height"]) for r in shares[:2]]
    assert sum(first) == pytest.approx(78.0, abs=0.2)
    assert first[0] / sum(first) == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("value", [0.0, 1e-6, 1.0, 1e9])
def test_any_number_can_be_drawn(value: float) -> None:
    high = value + 3.7
    plots = [
        size_distribution([bar(5, 10, value, (0, high))], colours=COLOURS),
        interval_gauge(value, 0.0, high, 6000.0, state="pass"),
        time_plot(
            [TimePoint(t0_s=0, t1_s=1, per_ml=value, interval_low=0, interval_high=high, frames_left_out=1,
                       frames_lost=2)],
            mean_per_ml=value, y_label="per mL",
        ),
        replicate_plot([("1", value, 0.0, high, True), ("2", value, 0.0, high, False)], mean=value, x_label="per mL"),
    ]  # fmt: skip
    for svg in plots:
        assert all(math.isfinite(n) for n in numbers_of(svg))
        assert not re.search(r"nan|inf\b", str(svg))


def test_a_span_of_no_time_and_no_volume() -> None:
    point = TimePoint(t0_s=3, t1_s=3, per_ml=None, interval_low=0, interval_high=0, frames_left_out=4, frames_lost=0)
    svg = time_plot([point], mean_per_ml=0.0, y_label="per mL")
    assert "4 frames left out" in svg
    assert all(math.isfinite(n) for n in numbers_of(svg))


def test_a_dot_for_each_particle() -> None:
    group = ScatterClass(name="glass", colour="#cc79a7", x=np.array([2.0, 20.0]), y=np.array([0.0, 1.0]))
    path = re.search(r'<path d="([^"]+)"', scatter_plot([group], y_label="aspect ratio"))
    dots = re.findall(r"M([\d.]+) ([\d.]+)h0", path.group(1))
    (x0, y0), (x1, y1) = ((float(a), float(b)) for a, b in dots)
    assert x0 < x1
    assert y0 > y1


def test_names_are_escaped() -> None:
    svg = replicate_plot([("<b>&", 1.0, 0.5, 2.0, True)], mean=1.0, x_label="a<b")
    ET.fromstring(svg)
    assert "<b>" not in svg
