"""The broker of our own."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from edge_app.errors import UserError
from edge_app.messaging.embedded_broker import EmbeddedBroker, find_embedded_broker


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_starts_is_found_and_ends(tmp_path):
    broker = EmbeddedBroker(port=0, state_dir=tmp_path)
    assert find_embedded_broker(tmp_path) is None
    broker.start()
    assert broker.running
    assert answers(broker.port)
    assert find_embedded_broker(tmp_path) == broker.url
    port = broker.port
    broker.stop()
    broker.stop()
    assert not broker.running
    assert not answers(port)
    assert find_embedded_broker(tmp_path) is None


def test_port_that_is_taken_is_replaced_by_a_free_one():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wanted = taken.getsockname()[1]
        with EmbeddedBroker(port=wanted) as broker:
            assert broker.port != wanted
            assert answers(broker.port)


def test_wanted_port_is_used_again_at_once():
    with EmbeddedBroker(port=0) as first:
        port = first.port
        socket.create_connection(("127.0.0.1", port)).close()
    with EmbeddedBroker(port=port) as second:
        assert second.port == port


def test_listens_on_this_machine_alone():
    with EmbeddedBroker(port=0) as broker:
        other = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
        for address in other - {"127.0.0.1"}:
            with socket.socket() as probe:
                probe.settimeout(1.0)
                assert probe.connect_ex((address, broker.port)) != 0


def test_ends_with_a_parent_that_is_killed(until):
    code = (
        "import time; from edge_app.messaging.embedded_broker import EmbeddedBroker\n"
        "b = EmbeddedBroker(port=0); b.start(); print(b.port, flush=True); time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    port = int(parent.stdout.readline())
    assert answers(port)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    until(lambda: not answers(port), timeout_s=10)


def test_broker_that_cannot_start_is_one_clear_line(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/true")
    began = time.monotonic()
    with pytest.raises(UserError, match="embedded broker did not start"):
        EmbeddedBroker(port=0).start()
    assert time.monotonic() - began < 5.0
