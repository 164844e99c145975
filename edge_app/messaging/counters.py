"""What the publisher has counted since the start of the process."""

from dataclasses import dataclass, replace

__all__ = ["DeliveryReport", "PublisherCounters", "Tally"]


@dataclass(frozen=True, kw_only=True)
class PublisherCounters:
    """Counters since the start of the process.

    Attributes
    ----------
    published
        Outbox messages that the broker has acknowledged.
    waiting
        Outbox messages on disk that it has not.
    reconnects
        Links made after the first.
    merged
        Windows that became part of another because too many waited.
    discarded
        Volatile messages (``stats``) made while there was no link.
    refused
        Messages that the broker answered with a refusal; they wait.
    """

    published: int = 0
    waiting: int = 0
    reconnects: int = 0
    merged: int = 0
    discarded: int = 0
    refused: int = 0


@dataclass(frozen=True, kw_only=True)
class DeliveryReport:
    """What became of the outbox: ``delivered`` since the start, ``waiting`` on disk for the next start."""

    delivered: int
    waiting: int


class Tally:
    """Holds the counters: one thread counts, any thread reads a consistent set.

    Examples
    --------
    >>> tally = Tally()
    >>> tally.add(published=2)
    >>> tally.now.published
    2
    """

    def __init__(self) -> None:
        self.now = PublisherCounters()

    def add(self, *, published: int = 0, merged: int = 0, discarded: int = 0, refused: int = 0) -> None:
        """Count so many more."""
        now = self.now
        self.now = replace(
            now,
            published=now.published + published,
            merged=now.merged + merged,
            discarded=now.discarded + discarded,
            refused=now.refused + refused,
        )

    def links(self, made: int) -> None:
        """So many links were made up to now."""
        self.now = replace(self.now, reconnects=made - 1)

    def waits(self, waiting: int) -> None:
        """So many messages wait on disk now."""
        self.now = replace(self.now, waiting=waiting)
