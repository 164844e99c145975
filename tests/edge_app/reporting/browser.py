"""A headless Chromium, driven over its own protocol: what a page logs, what it asks the network for, what it shows."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from edge_app.reporting.pdf import find_browser

SECONDS = 60.0


class Page:
    """One tab."""

    def __init__(self, link: ClientConnection) -> None:
        self._link = link
        self._number = 0
        self._session: str | None = None
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._events: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Runtime", "Log", "Network", "Page"):
            self._call(f"{domain}.enable")

    def _read(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._link.recv(timeout=SECONDS))
        name, values = message.get("method", ""), message.get("params", {})
        if name == "Runtime.exceptionThrown":
            self.problems.append(str(values["exceptionDetails"]))
        elif name == "Runtime.consoleAPICalled":
            self.problems.append(str(values["args"]))
        elif name == "Log.entryAdded":
            self.problems.append(values["entry"]["text"])
        elif name == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"])
        self._events.append(name)
        return message

    def _call(self, method: str, **values: Any) -> Any:
        self._number += 1
        number = self._number
        order: dict[str, Any] = {"id": number, "method": method, "params": values}
        if self._session is not None:
            order["sessionId"] = self._session
        self._link.send(json.dumps(order))
        while True:
            message = self._read()
            if message.get("id") == number:
                if "error" in message:
                    raise AssertionError(f"{method}: {message['error']}")
                return message["result"]

    def open(self, path: Path) -> None:
        """Load a file and wait until everything in it is there."""
        self._events.clear()
        self._call("Page.navigate", url=path.as_uri())
        while "Page.loadEventFired" not in self._events:
            self._read()

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression."""
        found = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise AssertionError(found["exceptionDetails"])
        return found["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + SECONDS
        while not self.evaluate(expression):
            assert time.monotonic() < end, f"{expression} never came true"
            time.sleep(0.02)

    def on_a_screen(self, *, width_px: int, height_px: int) -> None:
        """Lay the page out for a screen of this size."""
        self._call("Emulation.setEmulatedMedia", media="screen")
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width_px, height=height_px, deviceScaleFactor=1, mobile=False
        )

    def as_printed(self, *, width_px: int, height_px: int) -> None:
        """Lay the page out as for print, on a sheet of this inner size."""
        self._call("Emulation.setEmulatedMedia", media="print")
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width_px, height=height_px, deviceScaleFactor=1, mobile=False
        )


@contextmanager
def open_browser() -> Iterator[Page]:
    """A Chromium of its own, ended afterwards."""
    program = find_browser()
    assert program is not None
    folder = Path(tempfile.mkdtemp(prefix="report-browser-"))
    command = [
        str(program), "--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-port=0",
        f"--user-data-dir={folder}", "about:blank",
    ]  # fmt: skip
    if os.geteuid() == 0:
        command.insert(1, "--no-sandbox")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        told, end = folder / "DevToolsActivePort", time.monotonic() + SECONDS
        while not told.is_file() or len(told.read_text().split()) < 2:
            assert process.poll() is None, "Chromium ended at its start"
            assert time.monotonic() < end, "Chromium opened no port"
            time.sleep(0.05)
        port, place = told.read_text().split()
        with connect(f"ws://127.0.0.1:{port}{place}", max_size=None, proxy=None) as link:
            yield Page(link)
    finally:
        process.terminate()
        process.wait(SECONDS)
        shutil.rmtree(folder, ignore_errors=True)
