"""What a listener knows of every device, put together from the messages it has seen."""

import json
import threading
import time
from collections import deque
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from edge_app.messaging.topics import parse_topic

__all__ = ["Board", "DeviceState"]

Body = Mapping[str, Any]


@dataclass
class DeviceState:
    """The newest message of each kind; None for what has not come yet.

    Attributes
    ----------
    total
        Newest ``histogram/total``; holds the whole run also for a listener that came late.
    window
        Newest window.
    windows_seen
        Number of windows that came, each counted once whatever the number of its copies.
    events
        Newest events, the last one last.
    seen_at
        ``time.monotonic()`` of the last message.
    """

    site: str
    device: str
    status: Body | None = None
    info: Body | None = None
    run: Body | None = None
    total: Body | None = None
    window: Body | None = None
    summary: Body | None = None
    stats: Body | None = None
    events: "deque[Body]" = field(default_factory=lambda: deque(maxlen=5))
    windows_seen: int = 0
    seen_at: float = field(default_factory=time.monotonic)

    @property
    def name(self) -> str:
        """``site/device``."""
        return f"{self.site}/{self.device}"

    @property
    def state(self) -> str:
        """Its state; ``unknown`` before the first status."""
        return "unknown" if self.status is None else str(self.status.get("state", "unknown"))

    @property
    def run_id(self) -> str | None:
        """The run that is shown: the one of the newest total, else of the newest run or status message."""
        for body in (self.total, self.run, self.status):
            if body is not None and body.get("run_id"):
                return str(body["run_id"])
        return None

    @property
    def particles_per_s(self) -> float | None:
        """Particles counted per second of the frames' own time in the newest window; None where there is none."""
        if self.window is None or self.window.get("run_id") != self.run_id:
            return None
        span = float(self.window["t1_s"]) - float(self.window["t0_s"])
        return float(self.window["n"]) / span if span > 0 else None


class Board:
    """Takes messages in any order, also late, doubled and foreign ones, and says what is known now.

    Examples
    --------
    >>> board = Board()
    >>> board.take("mfi/1/lab/d1/status", b'{"schema":"mfi.status/1","state":"ready","boot_id":"b","since":""}')
    True
    >>> [d.state for d in board.devices()]
    ['ready']
    """

    def __init__(self, *, site: str | None = None, device: str | None = None) -> None:
        self._site = site
        self._device = device
        self._devices: dict[tuple[str, str], DeviceState] = {}
        self._keys: dict[tuple[str, str], tuple[str, int]] = {}
        self._event_ids: dict[tuple[str, str], deque[str]] = {}
        self._lock = threading.Lock()

    def take(self, topic: str, payload: bytes) -> bool:
        """Take a message; False if it is not news: foreign, not readable, a copy, or a `lost` of an earlier start."""
        place = parse_topic(topic)
        if place is None:
            return False
        site, device, kind = place
        if (self._site not in (None, site)) or (self._device not in (None, device)):
            return False
        try:
            body = json.loads(payload)
        except ValueError:
            return False
        if not isinstance(body, dict) or not str(body.get("schema", "")).startswith("mfi."):
            return False
        with self._lock:
            state = self._devices.setdefault((site, device), DeviceState(site=site, device=device))
            state.seen_at = time.monotonic()
            try:
                return self._store(state, kind, body)
            except (KeyError, TypeError, ValueError):
                return False

    def devices(self) -> list[DeviceState]:
        """Copies of all devices, by name."""
        with self._lock:
            found = [copy(state) for _, state in sorted(self._devices.items())]
            for state in found:
                state.events = deque(state.events, maxlen=state.events.maxlen)
            return found

    def _store(self, state: DeviceState, kind: str, body: dict[str, Any]) -> bool:
        if kind == "status":
            current = state.info or state.status
            if body["state"] == "lost" and current is not None and current.get("boot_id") != body["boot_id"]:
                return False
            state.status = body
            return True
        if kind == "histogram":
            return self._store_window(state, body)
        if kind == "event":
            return self._store_event(state, body)
        if kind == "total":
            known = state.total
            if known is not None and known["run_id"] == body["run_id"] and known["last_seq"] >= body["last_seq"]:
                return False
            # Runs are named by their time: the leftovers of an earlier run do not hide the one in progress.
            if known is not None and known["run_id"] > body["run_id"] and body.get("replayed"):
                return False
        setattr(state, kind, body)
        return True

    def _store_window(self, state: DeviceState, body: dict[str, Any]) -> bool:
        place, key = (state.site, state.device), (str(body["run_id"]), int(body["seq"]))
        newest = self._keys.get(place)
        if newest is not None and key[0] == newest[0] and key[1] <= newest[1]:
            return False
        if newest is not None and key[0] < newest[0] and body.get("replayed"):
            return False
        state.windows_seen = state.windows_seen + 1 if newest is not None and newest[0] == key[0] else 1
        self._keys[place] = key
        state.window = body
        return True

    def _store_event(self, state: DeviceState, body: dict[str, Any]) -> bool:
        seen = self._event_ids.setdefault((state.site, state.device), deque(maxlen=50))
        if body["id"] in seen:
            return False
        seen.append(body["id"])
        state.events.append(body)
        return True
