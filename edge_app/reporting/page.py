"""The pages' environment: templates, style, and the words that numbers are put in."""

from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from edge_app.measurement.concentration import Interval
from edge_app.measurement.uncertainty import Budget
from edge_app.reporting.number_text import (
    NO_VALUE,
    age_text,
    class_text,
    count_text,
    duration_text,
    interval_text,
    per_ml_text,
    percent_text,
    size_text,
    volume_text,
)

__all__ = ["asset", "css_string", "number_text", "page_environment", "when_text"]


def asset(name: str) -> Markup:
    """A style sheet or script of the pages, to be put into them."""
    return Markup((resources.files("edge_app.reporting") / "templates" / name).read_text(encoding="utf-8"))


def css_string(text: str) -> Markup:
    """Text that can stand between quotes in a style sheet: everything but plain characters becomes an escape."""
    return Markup("".join(c if c.isascii() and (c.isalnum() or c in " -_,.") else f"\\{ord(c):x} " for c in text))


def page_environment(filters: Mapping[str, Callable[..., Any]] | None = None) -> jinja2.Environment:
    """Templates with the filters that all pages share, and a page's own."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("edge_app.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=False,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        age=age_text, per_ml=per_ml_text, interval=_interval, count=count_text, percent=percent_text, size=size_text,
        size2=_size_plain, volume=volume_text, words=class_text, when=when_text, when_short=_when_short,
        sentence=_sentence, number=number_text, unit=_unit, probability=_probability, budget_text=_budget_text,
        duration=duration_text, micro=_micro, **(filters or {}),
    )  # fmt: skip
    return environment


def when_text(text: str) -> str:
    """ISO time as a reader writes it, to the second."""
    return text.replace("T", " ").split(".")[0].removesuffix("Z") + " UTC" if text else NO_VALUE


def number_text(value: float) -> str:
    """A number of any kind with three digits.

    Examples
    --------
    >>> number_text(0.3), number_text(0.09), number_text(0.000989), number_text(45.0), number_text(0.0)
    ('0.300', '0.0900', '0.000989', '45.0', '0')
    """
    if value and abs(value) < 1:
        return f"{value:#.3g}".replace("-", "\N{MINUS SIGN}")
    return per_ml_text(value)


def _interval(interval: Interval) -> str:
    return interval_text(interval.low, interval.high)


def _when_short(text: str) -> str:
    return when_text(text).removesuffix(" UTC")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""


def _size_plain(size_um: float) -> str:
    """A size that is no round number by design: two decimals at most."""
    return f"{size_um:.2f}".rstrip("0").rstrip(".")


def _unit(text: str) -> str:
    return {"um": "\N{MICRO SIGN}m", "mm2": "mm\N{SUPERSCRIPT TWO}"}.get(text, text)


def _micro(text: str) -> str:
    """Text of a program for a reader: um and >= as they are printed."""
    return (
        text.replace(" um", " \N{MICRO SIGN}m")
        .replace(">=", "\N{GREATER-THAN OR EQUAL TO}")
        .replace("<=", "\N{LESS-THAN OR EQUAL TO}")
    )


def _probability(value: float | None) -> str:
    if value is None:
        return NO_VALUE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _budget_text(budget: Budget) -> str:
    relative = f" ({percent_text(budget.expanded / budget.value)})" if budget.value > 0 else ""
    return f"{per_ml_text(budget.value)} \N{PLUS-MINUS SIGN} {per_ml_text(budget.expanded)} per mL{relative}, k = 2"
