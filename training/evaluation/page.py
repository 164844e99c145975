"""The evaluation as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
from importlib import resources
from typing import Any

import cv2
import jinja2
import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from edge_app import __version__
from edge_app.classification.palette import class_colours
from edge_app.reporting.number_text import class_text, count_text, percent_text
from training.evaluation.plots import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    Line,
    bar_plot,
    confusion_plot,
    line_plot,
    reliability_plot,
)
from training.evaluation.problem import REST
from training.evaluation.study import UNKNOWN_SHARES, Panel, Study
from training.evaluation.true_size import DEPTH_BINS_UM

__all__ = ["comparison_page", "evaluation_page"]

METHOD_COLOURS = {"count": GREY, "acc": ORANGE, "emq": BLUE}


def _colours_of(classes: list[str]) -> dict[str, str]:
    """A colour per class; the rest is grey."""
    return {**class_colours(classes), **({REST: GREY} if REST in classes else {})}


def evaluation_page(study: Study) -> bytes:
    """Draw a study.

    Parameters
    ----------
    study : Study

    Returns
    -------
    bytes
        UTF-8 HTML.
    """
    f = study.figures
    classes = list(f["classes"])
    words = [class_text(c) for c in classes]
    colours = _colours_of(classes)
    timings = {(t["threads"], t["batch"]): t["us_per_crop"] for t in f["speed"]["timings"]}
    context: dict[str, Any] = {
        "title": f"{f['bundle']['name']} {f['bundle']['version']}: evaluation",
        "footer": f"evaluation of {f['bundle']['name']} {f['bundle']['version']}",
        "f": f,
        "colours": colours,
        "fast": timings[1, 32],
        "confusion": confusion_plot(words, f["scores"]["confusion"], colours=[colours[c] for c in classes]),
        "reliability": reliability_plot(f["calibration"]["bins"]),
        "reliability_before": reliability_plot(f["calibration"]["bins_before"], colour=GREY),
        "method_colours": METHOD_COLOURS,
        "mix": _mix(f),
        "open_set": _open_set(f["rejection"]),
        "ten": UNKNOWN_SHARES.index(0.10),
        "grey": GREY,
        "blue": BLUE,
        "green": GREEN,
        "corruption_charts": _corruptions(f["robustness"]) if f.get("robustness") else [],
        "condition_charts": _conditions(f["robustness"]) if f.get("robustness") else [],
        "size_plot": _sizes(f["true_size"]) if f["true_size"] else "",
        "panel_rows": _panel_rows(study.panels),
    }
    return _render("evaluation.html.j2", context)


def comparison_page(study: Study) -> bytes:
    """Draw a comparison of two bundles, UTF-8 HTML.

    Parameters
    ----------
    study : Study
        From `training.evaluation.comparison.compare`.
    """
    f = study.figures
    classes = list(f["classes"])
    colours = _colours_of(classes)
    first, second = f["bundles"]
    title = f"{first['name']} {first['version']} against {second['name']} {second['version']}"
    context = {
        "title": title,
        "footer": "comparison of two classifiers",
        "f": f,
        "colours": colours,
        "confusions": [
            confusion_plot([class_text(c) for c in classes], b["confusion"], colours=[colours[c] for c in classes])
            for b in (first, second)
        ],
        "panel_rows": _panel_rows(study.panels),
    }
    return _render("comparison.html.j2", context)


def _render(template: str, context: dict[str, Any]) -> bytes:
    """Fill a template of this room, with the style of the run's report."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("training.evaluation"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters.update(words=class_text, count=count_text, percent=percent_text, minus=_minus)
    style = _asset("edge_app.reporting", "report.css") + _asset("training.evaluation", "evaluation.css")
    text = environment.get_template(template).render(version=__version__, css=Markup(style), **context)
    return (text.rstrip() + "\n").encode()


def _asset(package: str, name: str) -> str:
    return (resources.files(package) / "templates" / name).read_text(encoding="utf-8")


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def _mix(f: dict[str, Any]) -> Markup | str:
    found = f["prevalence"]["all"]
    if not found:
        return ""
    rows = [c for c, row in enumerate(f["scores"]["per_class"]) if row["pictures"]]
    series = [
        (words, METHOD_COLOURS[method], [found[method]["mae_per_class"][c] for c in rows])
        for method, words in f["prevalence"]["methods"].items()
    ]
    return bar_plot([class_text(f["classes"][c]) for c in rows], series, x_label="mean absolute error of the share")


def _open_set(rejection: dict[str, Any] | None) -> Markup | str:
    if not rejection:
        return ""
    shares = rejection["unknown_shares"]
    lines = [
        Line(
            name=curve["rule"],
            colour=colour,
            x=[100 * s for s in shares],
            y=curve["composition_error"],
            labels=[
                f"{curve['rule']}, {100 * s:g} % unknown: {e:.3f}"
                for s, e in zip(shares, curve["composition_error"], strict=True)
            ],
            dashed=colour == GREY,
        )
        for curve, colour in zip(rejection["curves"], (GREY, BLUE, GREEN), strict=True)
    ]
    return line_plot(lines, x_label="unknown particles in the mix, %", y_label="composition error", height=250)


def _curve(points: list[dict[str, Any]], key: str) -> Line:
    """Macro-F1 with the interval of its loss around it."""
    some = [p for p in points if "macro_f1" in p]
    nominal = [p["macro_f1"] + p["loss"]["value"] if "loss" in p else p["macro_f1"] for p in some]
    return Line(
        name="macro-F1",
        colour=BLUE,
        x=[p[key] for p in some],
        y=[p["macro_f1"] for p in some],
        low=[n - p["loss"]["high"] if "loss" in p else n for n, p in zip(nominal, some, strict=True)],
        high=[n - p["loss"]["low"] if "loss" in p else n for n, p in zip(nominal, some, strict=True)],
        labels=[
            f"{p['value']:g}: macro-F1 {p['macro_f1']:.3f}"
            + (f", {100 * p['loss']['value']:.1f} points lost" if "loss" in p else "")
            for p in some
        ],
    )


def _corruptions(robustness: dict[str, Any]) -> list[dict[str, Any]]:
    charts = []
    for c in robustness["corruptions"]:
        ticks = [(float(p["severity"]), f"{p['value']:g}".replace("-", "\N{MINUS SIGN}")) for p in c["points"]]
        svg = line_plot(
            [_curve(c["points"], "severity")],
            x_label=c["unit"],
            y_label="macro-F1",
            y_range=(0.0, 1.0),
            x_ticks=ticks,
            mark_x=0.0,
        )
        charts.append({"name": c["name"], "svg": svg})
    return charts


def _conditions(robustness: dict[str, Any]) -> list[dict[str, Any]]:
    charts = []
    for c in robustness["conditions"]:
        nominal = next(p for p in c["points"] if p["value"] == c["nominal"])
        seen = [p["detected_too"] / max(1, nominal["pictures"]) for p in c["points"]]
        lines = [_curve(c["points"], "value")]
        if min(seen) < 0.995:
            values = [p["value"] for p in c["points"]]
            labels = [f"{v:g}: {100 * s:.1f} % detected" for v, s in zip(values, seen, strict=True)]
            lines.insert(0, Line(name="detected", colour="#b5bec6", x=values, y=seen, labels=labels))
        svg = line_plot(
            lines,
            x_label=c["unit"],
            y_label="macro-F1",
            y_range=(0.0, 1.0),
            mark_x=c["nominal"],
            x_ticks=[(p["value"], f"{p['value']:g}".replace("-", "\N{MINUS SIGN}")) for p in c["points"]],
        )
        charts.append({"name": c["name"], "svg": svg, "note": c["note"]})
    return charts


def _sizes(figures: dict[str, Any]) -> Markup:
    colours = (ORANGE, GREEN, BLUE, GREY)
    lines = []
    for row, colour in zip(figures["by_size_and_depth"], colours, strict=True):
        columns = [(0.5 * (a + b), row[f"|z| {a:g}-{b:g} um"]) for a, b in DEPTH_BINS_UM]
        known = [(middle, v["bias_percent"]) for middle, v in columns if "bias_percent" in v]
        if known:
            name = f"{row['size_um']} \N{MICRO SIGN}m"
            labels = [f"{name}, |z| about {m:g} \N{MICRO SIGN}m: {b:+.1f} %" for m, b in known]
            lines.append(
                Line(name=name, colour=colour, x=[k[0] for k in known], y=[k[1] for k in known], labels=labels)
            )
    if not lines:
        return Markup("")
    plot = line_plot(lines, x_label="|z|, \N{MICRO SIGN}m", y_label="bias of the size, %", mark_y=0.0, width=720)
    keys = "".join(f'<span><i class="key" style="color:{line.colour}"></i>{line.name}</span>' for line in lines)
    return Markup(f'{plot}<div class="legend">{keys}</div>')


def _png(picture: npt.NDArray[np.uint8]) -> str:
    done, content = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not done:
        raise ValueError(f"a picture of {picture.shape} cannot be written as PNG")
    return "data:image/png;base64," + base64.b64encode(content.tobytes()).decode()


def _panel_rows(panels: tuple[Panel, ...]) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {}
    for panel in panels:
        heat = np.zeros((*panel.importance.shape, 4), np.uint8)
        heat[..., 2], heat[..., 1] = 230, 40  # red over grey keeps the particle's own grey levels readable
        heat[..., 3] = np.rint(190 * np.clip(panel.importance, 0, 1)).astype(np.uint8)
        rows.setdefault(panel.kind, []).append(
            {
                "picture": _png(panel.pixels),
                "heat": _png(heat) if heat.size else "",
                "truth": panel.truth,
                "called": panel.called,
                "confidence": panel.confidence,
                "on_particle": panel.on_particle,
            }
        )
    return rows
