"""Compared with the limits of a pharmacopoeia: pass, fail or not decided yet, and how much more volume decides it.

Flow imaging is none of the methods that these chapters prescribe. A comparison is information, never compliance.
"""

import math
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edge_app.errors import UserError
from edge_app.measurement.concentration import Interval
from edge_app.measurement.four_digits import four_digits
from edge_app.measurement.poisson import poisson_interval

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "SHIPPED_LIMITS",
    "CountingMethod",
    "Limit",
    "LimitTable",
    "Result",
    "Standard",
    "Verdict",
    "compare",
    "deciding_volume_ml",
    "load_limits",
    "overall",
]

SHIPPED_LIMITS: Final = Path(__file__).parent / "limit_tables" / "pharmacopoeias.toml"

Result = Literal["pass", "fail", "inconclusive"]
CountingMethod = Literal["light obscuration", "microscope", "flow imaging"]


class Limit(BaseModel):
    """The most particles at and above a size that the average may have."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: CountingMethod = Field(description="method the limit was written for")
    size_um: float = Field(gt=0)
    maximum: float = Field(gt=0)
    per: Literal["container", "mL"]
    over_ml: float = Field(default=0.0, ge=0, description="for containers of more nominal content than this")
    up_to_ml: float | None = Field(default=None, gt=0, description="and up to this; absent: no upper end")
    unverified: bool = Field(default=False, description="not read in the standard or a quotation of it")

    def applies_to(self, container_ml: float) -> bool:
        """Whether a container of this nominal content is in its scope."""
        return self.over_ml < container_ml and (self.up_to_ml is None or container_ml <= self.up_to_ml)


class Standard(BaseModel):
    """A chapter with its limits and where they were read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(min_length=1)
    name: str = Field(min_length=1)
    title: str
    applies_to: str
    citation: str = Field(min_length=1)
    effective: str = Field(
        default="", pattern=r"^(\d{4}-\d{2}-\d{2})?$", description="date; empty: not known which text is in force"
    )
    effective_unverified: bool = False
    note: str = ""
    limit: tuple[Limit, ...] = Field(min_length=1)

    @property
    def wording(self) -> str:
        """The only words in which a result may be tied to the chapter."""
        return f"compared with the limits of {self.name} (informational, flow imaging)"

    def applicable(self, container_ml: float, *, method: CountingMethod = "light obscuration") -> tuple[Limit, ...]:
        """Limits of a method for a container of this nominal content.

        Raises
        ------
        UserError
            If there is none.
        """
        if not container_ml > 0:
            raise UserError(f"container volume is {container_ml:g} mL, it must be above 0")
        found = tuple(x for x in self.limit if x.method == method and x.applies_to(container_ml))
        if not found:
            methods = ", ".join(sorted({x.method for x in self.limit}))
            raise UserError(f"{self.name} has no limit by {method} for {container_ml:g} mL; it has some by {methods}")
        return found


class LimitTable(BaseModel):
    """Standards by id."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    standard: tuple[Standard, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _ids_differ(self) -> "LimitTable":
        ids = [s.id for s in self.standard]
        if len(set(ids)) != len(ids):
            raise ValueError(f"ids of standards must differ, found {', '.join(ids)}")
        return self

    def __getitem__(self, id_: str) -> Standard:
        for standard in self.standard:
            if id_ in (standard.id, standard.name):
                return standard
        raise UserError(f"no limits named {id_!r}, allowed are {', '.join(s.id for s in self.standard)}")


@lru_cache(maxsize=8)
def load_limits(path: Path = SHIPPED_LIMITS) -> LimitTable:
    """Read a table of limits: the shipped one, or one's own (release limits of a product, say) in the same form.

    Raises
    ------
    UserError
        If the file is missing or not of that form.

    Examples
    --------
    >>> [(x.size_um, x.maximum, x.per) for x in load_limits()["usp-788"].applicable(2.0)]
    [(10.0, 6000.0, 'container'), (25.0, 600.0, 'container')]
    """
    try:
        return LimitTable.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"{path}: limits cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: no TOML ({error})") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(p) for p in first["loc"]) or "file"
        raise UserError(f"{path}: {key}: {first['msg']}") from error


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One limit, and where the interval lies against it.

    Attributes
    ----------
    result
        ``pass``: the whole interval is at or below the limit; ``fail``: all of it is above; else ``inconclusive``.
    interval
        In the unit of the limit.
    extra_volume_ml
        Volume to analyse beyond the present one after which the interval clears the limit if the rate stays as it is;
        0 if decided, None if no volume would (the value is on the limit, or within the systematic uncertainty of it).
    """

    standard: Standard
    limit: Limit
    interval: Interval
    result: Result
    extra_volume_ml: float | None

    @property
    def beyond_volume(self) -> bool:
        """Whether what more volume does not reduce (volume, size scale) holds the limit on its own."""
        i = self.interval
        return self.result == "inconclusive" and 0 < i.systematic >= abs(self.limit.maximum - i.value)

    @property
    def text(self) -> str:
        """One sentence for a report."""
        i, x = self.interval, self.limit
        position = {
            "pass": "the interval lies at or below the limit",
            "fail": "the interval lies above the limit",
            "inconclusive": "not decided, the interval holds the limit",
        }[self.result]
        more = ""
        if self.result == "inconclusive":
            more = (
                "; the uncertainty of volume and size alone holds it, no further volume decides"
                if self.beyond_volume
                else "; no volume decides it at this rate"
                if self.extra_volume_ml is None
                else f"; {self.extra_volume_ml:.3g} mL more would decide it at this rate"
            )
        flag = " (limit not verified)" if x.unverified else ""
        found, low, high = (four_digits(v) for v in (i.value, i.low, i.high))
        return (
            f"{self.standard.wording}: >= {x.size_um:g} um {found} [{low}, {high}] {i.unit} "
            f"against at most {x.maximum:,g}{flag}: {self.result}, {position}{more}"
        )


def deciding_volume_ml(interval: Interval, limit: float) -> float | None:
    """Analysed volume at which the interval would clear a limit of the same unit, were the rate to stay.

    Exact for intervals of counts: the smallest volume whose Poisson interval (with the present dispersion) no longer
    holds the limit. For other intervals both arms shrink with the square root of the volume.

    Returns
    -------
    float or None
        In mL, at most the present volume if it is decided already; None if value and limit are the same, or nearer to
        each other than the interval's systematic part.

    Examples
    --------
    >>> clean = Interval(value=0.0, low=0.0, high=3.689, method="poisson_exact", confidence=0.95, size_um=25.0,
    ...     class_name="all", counted=0, volume_ml=1.0)
    >>> round(deciding_volume_ml(clean, 3.0), 2)
    1.23
    """
    i = interval
    gap = abs(limit - i.value)
    if gap <= i.systematic:
        return None
    # What is left of the gap for the part that shrinks.
    room = math.sqrt(gap**2 - i.systematic**2)
    arm = i.high - i.value if limit > i.value else i.value - i.low
    arm = math.sqrt(max(0.0, arm**2 - i.systematic**2))
    if i.counted == 0:
        return i.volume_ml * arm / room  # the upper end is a number of counts over the volume
    counts = i.counted / i.dispersion  # as many Poisson counts as would be as uncertain

    def arm_of(times: float) -> float:
        n = np.array(counts * times)
        low, high = poisson_interval(n, confidence=i.confidence)
        return float(i.value * (high / n - 1) if limit > i.value else i.value * (1 - low / n))

    # An interval wider than its counts explain (aliquots that scatter, also with the systematic part in it) has only
    # the rule of the square root.
    if i.method in ("difference", "student", "prevalence") or (i.method == "combined" and arm > 1.1 * arm_of(1.0)):
        return i.volume_ml * (arm / room) ** 2

    def clears(times: float) -> bool:
        return arm_of(times) <= room

    below, above = -20.0, 40.0  # log2 of the factor on the volume
    if not clears(2.0**above):
        return None
    while above - below > 1e-6:
        middle = 0.5 * (below + above)
        below, above = (below, middle) if clears(2.0**middle) else (middle, above)
    return float(i.volume_ml * 2.0**above)


def compare(standard: Standard, limit: Limit, interval: Interval, *, container_ml: float) -> Verdict:
    """Compare a concentration with a limit.

    The chapters say "does not exceed", so a value on the limit is within it. With a central 95 % interval, ``pass``
    where the truth lies above the limit and ``fail`` where it does not are each wrong in at most 2.5 % of all runs.

    Parameters
    ----------
    interval
        Per mL, of all particles at and above the limit's size.
    container_ml
        Nominal content of a container.

    Raises
    ------
    UserError
        If the interval is of another size or not per mL.
    """
    if interval.size_um != limit.size_um or interval.unit != "per mL":
        raise UserError(
            f"interval of {interval.size_um:g} um {interval.unit} cannot be compared with a limit for "
            f"{limit.size_um:g} um: one per mL of that size is needed"
        )
    per_container = limit.per == "container"
    i = interval.scaled(container_ml, unit="per container") if per_container else interval
    result: Result = "pass" if i.high <= limit.maximum else "fail" if i.low > limit.maximum else "inconclusive"
    extra: float | None = 0.0
    if result == "inconclusive":
        volume = deciding_volume_ml(i, limit.maximum)
        extra = None if volume is None else max(0.0, volume - i.volume_ml)
    return Verdict(standard=standard, limit=limit, interval=i, result=result, extra_volume_ml=extra)


def overall(verdicts: tuple[Verdict, ...] | list[Verdict]) -> Result:
    """Of several limits: ``fail`` if one fails, ``pass`` if all pass."""
    results = {v.result for v in verdicts}
    if not results:
        raise ValueError("no verdict to sum up")
    return "fail" if "fail" in results else "inconclusive" if "inconclusive" in results else "pass"
