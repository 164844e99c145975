"""What went wrong with single files of a source: counted by reason, told in one line each, never raised."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

__all__ = ["MESSAGES_KEPT", "Problems"]

MESSAGES_KEPT: Final = 100
"""Lines kept per source: enough to see what is wrong, bounded when a whole disk is broken."""


@dataclass
class Problems:
    """Counts by reason, and the first lines.

    Examples
    --------
    >>> problems = Problems()
    >>> problems.add("truncated", "frame_7.png: PNG ends before its last chunk")
    >>> dict(problems.counts), problems.messages
    ({'truncated': 1}, ['frame_7.png: PNG ends before its last chunk'])
    """

    counts: Counter[str] = field(default_factory=Counter)
    messages: list[str] = field(default_factory=list)
    _told: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    def add(self, reason: str, message: str, *, times: int = 1) -> None:
        """Count ``reason`` and keep the line while there is room."""
        self.counts[reason] += times
        if len(self.messages) < MESSAGES_KEPT:
            self.messages.append(message)

    def add_once(self, reason: str, message: str) -> None:
        """Count ``reason``, but keep a line that was told before only once.

        Examples
        --------
        >>> problems = Problems()
        >>> for _ in range(3):
        ...     problems.add_once("no_collage", "run_000001.tif cannot be read")
        >>> dict(problems.counts), problems.messages
        ({'no_collage': 3}, ['run_000001.tif cannot be read'])
        """
        if message in self._told:
            self.counts[reason] += 1
        else:
            self._told.add(message)
            self.add(reason, message)
