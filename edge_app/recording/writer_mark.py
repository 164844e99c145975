"""Which process writes a record, so that a record in use is never taken for one left behind."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["is_alive", "writer_mark"]


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _started(pid: int) -> int:
    """Start of a process in clock ticks since boot; 0 if there is no such process."""
    try:
        # The name in brackets may hold anything, so the fields are counted from the last bracket.
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="latin-1").rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


def writer_mark() -> dict[str, Any]:
    """Mark of this process: its id, its start and the boot it lives in."""
    pid = os.getpid()
    return {"pid": pid, "started_ticks": _started(pid), "boot_id": _boot_id()}


def is_alive(mark: Mapping[str, Any]) -> bool:
    """Whether the process that left this mark still runs (a process id used again does not count)."""
    if mark.get("boot_id") != _boot_id():
        return False
    started = _started(int(mark.get("pid", 0)))
    return started != 0 and started == mark.get("started_ticks")
