"""Notices that a source gives no frame, while it does not: the loop itself waits in that time."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final

__all__ = ["StallWatch"]

LOOKS_PER_STALL: Final = 10


class StallWatch:
    """Calls back once when a wait for a frame has lasted for some time, and once when it is over; a ``with`` block.

    Nothing that is counted depends on it: windows are cut by the frames' own time, however late these come.

    Parameters
    ----------
    waiting_since
        When the wait in progress began (``time.monotonic``), None while no frame is waited for.
    after_s
        How long a wait is a stall.
    on_stall, on_resume
        Called from the watch's own thread with the seconds waited; the second one also, from the thread that leaves
        the block, for a stall that was over by then and not yet seen.

    Examples
    --------
    >>> heard = []
    >>> with StallWatch(lambda: 0.0, after_s=0.01, on_stall=heard.append, on_resume=heard.append):
    ...     time.sleep(0.1)
    >>> len(heard), heard[0] > 0.01
    (1, True)
    """

    def __init__(
        self,
        waiting_since: Callable[[], float | None],
        *,
        after_s: float,
        on_stall: Callable[[float], None],
        on_resume: Callable[[float], None],
    ) -> None:
        self._waiting_since = waiting_since
        self._after_s = after_s
        self._on_stall = on_stall
        self._on_resume = on_resume
        self._stalled_since: float | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="stall-watch", daemon=True)

    def _look(self) -> None:
        since, now = self._waiting_since(), time.monotonic()
        if self._stalled_since is not None and since != self._stalled_since:
            began, self._stalled_since = self._stalled_since, None
            self._on_resume(now - began)
        if self._stalled_since is None and since is not None and now - since >= self._after_s:
            self._stalled_since = since
            self._on_stall(now - since)

    def _work(self) -> None:
        while not self._ended.wait(self._after_s / LOOKS_PER_STALL):
            self._look()

    def __enter__(self) -> "StallWatch":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        if kind is None and self._stalled_since is not None:
            self._look()
