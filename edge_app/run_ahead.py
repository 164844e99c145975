"""One stage of the loop in a thread of its own, in order, with a bounded buffer."""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

__all__ = ["RunAhead"]

T = TypeVar("T")


class RunAhead(Generic[T]):
    """Run an iterator ahead of its consumer, at most ``depth`` items.

    The heavy calls of each stage (OpenCV, numpy, the interpreter, SQLite) release the interpreter's lock, so two
    stages use two cores while the order of items, and with it every result, stays that of a plain loop. An error
    in the stage is raised at the consumer, after the items before it.

    Parameters
    ----------
    items
        The stage, usually a generator.
    depth
        Most items waiting for the consumer.

    Examples
    --------
    >>> list(RunAhead(range(3), depth=2, name="count"))
    [0, 1, 2]
    """

    def __init__(self, items: Iterable[T], *, depth: int, name: str) -> None:
        self._items = items
        self._depth = depth
        self._ready: deque[T] = deque()
        self._change = threading.Condition()
        self._closed = False
        self._ended = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        error: BaseException | None = None
        try:
            for item in self._items:
                with self._change:
                    while len(self._ready) >= self._depth and not self._closed:
                        self._change.wait()
                    if self._closed:
                        break
                    self._ready.append(item)
                    self._change.notify_all()
        except BaseException as caught:  # handed to the consumer, which raises it
            error = caught
        finally:
            close = getattr(self._items, "close", None)
            try:
                if close is not None:
                    close()
            except BaseException as caught:  # the consumer has to hear of the end whatever happens
                error = error or caught
            with self._change:
                self._error = error
                self._ended = True
                self._change.notify_all()

    def _wait(self) -> bool:
        """Wait until an item is there (True) or the stage has ended (False). Needs the lock."""
        while not self._ready and not self._ended:
            self._change.wait()
        return bool(self._ready)

    def __iter__(self) -> Iterator[T]:
        try:
            while True:
                with self._change:
                    if not self._wait():
                        break
                    item = self._ready.popleft()
                    self._change.notify_all()
                yield item
            if self._error is not None:
                raise self._error
        finally:
            self.close()

    def batches(self, *, most: int) -> Iterator[list[T]]:
        """Yield what is ready, at least one item and at most ``most``: full batches when behind, no waiting else."""
        try:
            while True:
                with self._change:
                    if not self._wait():
                        break
                    batch = [self._ready.popleft() for _ in range(min(most, len(self._ready)))]
                    self._change.notify_all()
                yield batch
            if self._error is not None:
                raise self._error
        finally:
            self.close()

    @property
    def waiting(self) -> int:
        """Items ready and not taken."""
        return len(self._ready)

    def close(self) -> None:
        """End the stage after its current item and wait for it; safe to call twice."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join()
