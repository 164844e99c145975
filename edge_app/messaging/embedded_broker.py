"""A broker on 127.0.0.1 for a machine that has none: a child process, so that it shares no lock with the loop.

The child ends with its parent, however that ends, but not before it has handed out the parent's will.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from edge_app.errors import UserError

__all__ = ["EmbeddedBroker", "find_embedded_broker"]

HOST: Final = "127.0.0.1"
_LINGER_S: Final = 0.4
"""Time for messages that were acknowledged to reach the subscribers, and for the will of a killed parent."""


class EmbeddedBroker:
    """Start and stop the broker.

    Parameters
    ----------
    port
        Wanted port; another free one is taken if it is in use or 0.
    state_dir
        Where ``broker.json`` is kept, by which ``edge-app watch`` finds the port; None: nowhere.

    Examples
    --------
    >>> with EmbeddedBroker(port=0) as broker:
    ...     broker.url.startswith("mqtt://127.0.0.1:")
    True
    """

    def __init__(self, *, port: int = 1883, state_dir: Path | None = None) -> None:
        self.port = 0
        self._wanted = port
        self._note = None if state_dir is None else state_dir / "broker.json"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Address for other programs on this machine."""
        return f"mqtt://{HOST}:{self.port}"

    @property
    def running(self) -> bool:
        """Whether the child lives."""
        return self._process is not None and self._process.poll() is None

    def start(self, *, timeout_s: float = 15.0) -> None:
        """Start the child and wait until it accepts connections.

        Raises
        ------
        UserError
            If it does not come up, for example because ``amqtt`` is not installed.
        """
        # A session of its own: Ctrl-C must reach the program, which then ends the broker last.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edge_app.messaging.embedded_broker", "--port", str(self._wanted)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        line = self._process.stdout.readline().decode().split() if ready else []
        if len(line) != 2 or line[0] != "ready":
            self.stop()
            raise UserError(
                f"mqtt.url: the embedded broker did not start ({' '.join(line) or 'no answer'}); "
                'give the URL of a broker, or "off"'
            )
        self.port = int(line[1])
        if self._note is not None:
            with contextlib.suppress(OSError):
                self._note.parent.mkdir(parents=True, exist_ok=True)
                text = json.dumps({"port": self.port, "pid": self._process.pid})
                self._note.write_text(text + "\n", encoding="utf-8")

    def stop(self, *, timeout_s: float = 5.0) -> None:
        """End the child; safe to call twice."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
        if self._note is not None and find_embedded_broker(self._note.parent) in (None, self.url):
            self._note.unlink(missing_ok=True)

    def __enter__(self) -> "EmbeddedBroker":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def find_embedded_broker(state_dir: Path) -> str | None:
    """URL of the embedded broker that was started last on this machine, None if there is none."""
    try:
        return f"mqtt://{HOST}:{int(json.loads((state_dir / 'broker.json').read_text(encoding='utf-8'))['port'])}"
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _free_port(wanted: int) -> int:
    """The wanted port if nothing listens there, else a free one."""
    for port in (wanted, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            # As the broker itself does, else a port that was used a minute ago would seem taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no free port")


async def _serve(wanted: int) -> int:
    from amqtt.broker import Broker
    from amqtt.errors import BrokerError

    for attempt in range(5):
        port = _free_port(wanted if attempt == 0 else 0)
        broker = Broker(
            {
                "listeners": {"default": {"type": "tcp", "bind": f"{HOST}:{port}"}},
                "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
            }
        )
        try:
            await broker.start()
        except BrokerError:
            # Taken between the look and the start.
            continue
        break
    else:
        print("no free port", flush=True)
        return 1
    print(f"ready {port}", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, _wait_for_parent)
    await asyncio.sleep(_LINGER_S)
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(broker.shutdown(), 3.0)
    return 0


def _wait_for_parent() -> None:
    """Return when the parent closes the pipe, which its death does too."""
    while os.read(sys.stdin.fileno(), 4096):
        time.sleep(0)


def main() -> int:
    """Serve until standard input ends; says ``ready PORT`` on standard output."""
    parser = argparse.ArgumentParser(description="MQTT broker on the loopback interface")
    parser.add_argument("--port", type=int, default=1883)
    port: int = parser.parse_args().port
    logging.disable(logging.CRITICAL)
    # It ends when its parent has ended, which may still have results to hand out after the same signal.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return asyncio.run(_serve(port))
    except ImportError as error:
        print(f"missing {error.name}", flush=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
