"""What this machine has, and what the program would use of it."""

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import click
import numpy as np
import psutil

from edge_app import __version__
from edge_app.errors import UserError

__all__ = ["Finding", "doctor", "examine"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the examination.

    ``state``: ``ok``, ``absent`` (not needed for the default set-up), ``warning`` or ``error`` (the main job
    cannot run).
    """

    part: str
    state: Literal["ok", "absent", "warning", "error"]
    text: str


def _machine() -> Iterator[Finding]:
    memory = psutil.virtual_memory()
    yield Finding(
        part="machine",
        state="ok" if memory.total > 1e9 else "warning",
        text=f"{platform.machine()}, {os.cpu_count()} cores, {memory.total / 2**30:.1f} GiB memory "
        f"({memory.available / 2**30:.1f} free), {platform.system()} {platform.release()}",
    )
    supported = (3, 10) <= sys.version_info[:2] <= (3, 13)
    yield Finding(
        part="python",
        state="ok" if supported else "warning",
        text=f"{platform.python_version()} (supported: 3.10 to 3.13, tested: 3.11), edge-app {__version__}",
    )


def _back_ends() -> Iterator[Finding]:
    from edge_app.classification.backends import available_backends, open_backend
    from edge_app.classification.bundle import Bundle

    bundle = Bundle.load(None)
    description = bundle.description
    yield Finding(
        part="bundle",
        state="ok",
        text=f"{description.name} {description.version}, {len(bundle.classes)} classes, "
        f"{len(bundle.model) / 1024:.0f} KiB, SHA-256 {bundle.model_sha256[:12]}",
    )
    for status in available_backends():
        if status.problem:
            yield Finding(part=f"back end {status.name}", state="absent", text=status.problem)
            continue
        backend = open_backend(bundle, preference=status.name, threads=1).backend
        window = description.input.window_px
        pixels = np.full((64, window, window, 1), 32, np.int8)
        context = np.zeros((64, len(description.input.context)), np.int8)
        backend.infer(pixels, context)
        started = time.perf_counter()
        backend.infer(pixels, context)
        us = (time.perf_counter() - started) / 64 * 1e6
        yield Finding(
            part=f"back end {status.name}",
            state="ok",
            text=f"{backend.version}, {us:.0f} us per particle on one thread",
        )


def _cameras() -> Iterator[Finding]:
    devices = sorted(str(p) for p in Path("/dev").glob("video*"))
    yield Finding(
        part="camera",
        state="ok" if devices else "absent",
        text=", ".join(devices) if devices else "no /dev/video*: folders, exports, videos and the simulator still work",
    )


def _broker() -> Iterator[Finding]:
    here = importlib.util.find_spec("amqtt") is not None
    yield Finding(
        part="embedded broker",
        state="ok" if here else "error",
        text=f"amqtt {importlib.metadata.version('amqtt')}" if here else "amqtt is missing",
    )
    mosquitto = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    yield Finding(
        part="mosquitto",
        state="ok" if mosquitto else "absent",
        text="installed" if mosquitto else "not installed (only the tests and a site broker need it)",
    )


def _storage(folder: Path) -> Iterator[Finding]:
    usage = shutil.disk_usage(folder)
    yield Finding(
        part="disk",
        state="ok" if usage.free > 2e9 else "warning" if usage.free > 2e8 else "error",
        text=f"{usage.free / 2**30:.1f} of {usage.total / 2**30:.1f} GiB free in {folder}",
    )
    probe = folder / f".edge-app-probe-{os.getpid()}"
    started = time.perf_counter()
    try:
        with probe.open("wb") as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
        ms = (time.perf_counter() - started) * 1e3
        yield Finding(
            part="disk sync", state="ok" if ms < 200 else "warning", text=f"a synchronised write takes {ms:.1f} ms"
        )
    except OSError as error:
        yield Finding(part="disk sync", state="error", text=f"{folder} cannot be written ({error.strerror})")
    finally:
        probe.unlink(missing_ok=True)


def _clock() -> Iterator[Finding]:
    now = time.time()
    synchronised = Path("/run/systemd/timesync/synchronized").exists()
    text = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < 1.7e9:
        yield Finding(part="clock", state="error", text=f"{text}: was never set, records would carry a wrong date")
    else:
        note = "synchronised by systemd-timesyncd" if synchronised else "synchronisation not known"
        yield Finding(part="clock", state="ok", text=f"{text}, {note}")


def examine(folder: Path) -> list[Finding]:
    """Look at every part; a part that fails becomes a finding and does not hide the others."""
    parts: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("machine", _machine),
        ("back end", _back_ends),
        ("camera", _cameras),
        ("broker", _broker),
        ("disk", lambda: _storage(folder)),
        ("clock", _clock),
    ]
    findings: list[Finding] = []
    for name, look in parts:
        try:
            findings.extend(look())
        except (UserError, OSError, ImportError) as error:
            findings.append(Finding(part=name, state="error", text=str(error)))
    return findings


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), default=Path(), help="Where run records would go.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def doctor(folder: Path, as_json: bool) -> None:
    """Say what this machine has: back ends, camera, broker, disk, clock.

    Ends with exit code 1 if the main job could not run here.

    Example: edge-app doctor --json
    """
    if not folder.is_dir():
        raise UserError(f"--folder {folder}: not a folder")
    findings = examine(folder)
    if as_json:
        ok = all(f.state != "error" for f in findings)
        click.echo(json.dumps({"ok": ok, "findings": [asdict(f) for f in findings]}))
    else:
        from rich.console import Console
        from rich.table import Table

        styles = {"ok": "green", "absent": "dim", "warning": "yellow", "error": "bold red"}
        table = Table(box=None, pad_edge=False, show_header=False)
        for f in findings:
            table.add_row(f.part, f"[{styles[f.state]}]{f.state}[/]", f.text)
        Console().print(table)
    if any(f.state == "error" for f in findings):
        raise click.exceptions.Exit(1)
