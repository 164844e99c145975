"""The comparison of two runs as one HTML file, in the style of the report."""

from collections.abc import Callable
from typing import Any

from edge_app import __version__
from edge_app.classification.palette import class_colours
from edge_app.reporting.comparison import RunComparison, descriptor_text
from edge_app.reporting.comparison_plots import composition_plot, effect_plot, overlay_plot
from edge_app.reporting.page import asset, css_string, page_environment

__all__ = ["comparison_page"]


def comparison_page(comparison: RunComparison) -> bytes:
    """Write the page; the same comparison gives the same bytes.

    Returns
    -------
    bytes
        UTF-8 HTML that loads nothing.
    """
    a, b = comparison.runs
    names = [c.class_name for c in comparison.classes]
    context = {
        "version": __version__,
        "c": comparison,
        "runs": comparison.runs,
        "title": f"{a.sample or a.run_id} against {b.sample or b.run_id}",
        "footer": css_string(f"{a.run_id} against {b.run_id}"),
        "colours": class_colours(names),
        "overlay": overlay_plot(comparison.edges_um, comparison.bins),
        "effects": effect_plot(comparison.populations.descriptors),
        "composition": composition_plot(comparison.classes) if comparison.classes else "",
        "css": asset("report.css"),
    }
    filters: dict[str, Callable[..., Any]] = {"descriptor": descriptor_text, "signed": _signed, "points": _points}
    text = page_environment(filters).get_template("comparison.html.j2").render(context)
    return (text.rstrip() + "\n").encode()


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")


def _points(value: float) -> str:
    """A difference of shares in percentage points."""
    return f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}")
