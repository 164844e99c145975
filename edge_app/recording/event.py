"""Something that happened during a run and that its reader must know."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Event", "RecordedEvent", "Severity"]

Severity = Literal["info", "warning", "error"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """A happening to be recorded.

    Attributes
    ----------
    kind
        Short name, for example ``backend_fallback``.
    message
        One line for a person.
    severity
        ``info``, ``warning`` or ``error``.
    time_s
        Time in the run, from the frames; None if it belongs to no frame.
    details
        Anything else, as JSON.
    """

    kind: str
    message: str
    severity: Severity = "info"
    time_s: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RecordedEvent(Event):
    """An event as it stands in the record: with its number, the wall clock (UTC) and its window."""

    id: int
    time: str
    seq: int | None
