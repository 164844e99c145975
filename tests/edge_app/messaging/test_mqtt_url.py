"""Broker addresses as users write them."""

import pytest

from edge_app.errors import UserError
from edge_app.messaging.link import tls_context
from edge_app.messaging.mqtt_url import PASSWORD_VARIABLE, broker_address
from edge_app.messaging.settings import MqttSettings


@pytest.fixture(autouse=True)
def _no_password(monkeypatch):
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mqtt://localhost", ("localhost", 1883, "tcp", False)),
        ("mqtt://127.0.0.1:1884", ("127.0.0.1", 1884, "tcp", False)),
        ("mqtt://[::1]:1884", ("::1", 1884, "tcp", False)),
        ("mqtts://broker.lab.example", ("broker.lab.example", 8883, "tcp", True)),
        ("mqtt://results@broker.lab.example", ("broker.lab.example", 1883, "tcp", False)),
        ("mqtt://broker.lab.example?allow_insecure=1", ("broker.lab.example", 1883, "tcp", False)),
        ("ws://localhost:9001/mqtt", ("localhost", 9001, "websockets", False)),
        ("wss://broker.lab.example/live", ("broker.lab.example", 443, "websockets", True)),
    ],
)
def test_forms(url, expected):
    address = broker_address(url)
    assert (address.host, address.port, address.transport, address.tls) == expected


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("broker.lab.example", "is no broker"),
        ("http://broker", "is no broker"),
        ("mqtt://", "is no broker"),
        ("mqtt://localhost:x", "cannot be read"),
        ("mqtt://localhost:99999", "cannot be read"),
        ("mqtt://localhost:0", "must be 1 to 65535"),
        ("mqtt://[::1", "cannot be read"),
        ("mqtt://localhost?tls=1", "unknown option 'tls'"),
        ("mqtt://broker.lab.example", "open to the network"),
        ("ws://10.0.0.1", "open to the network"),
    ],
)
def test_what_cannot_be_used_is_one_line_that_names_the_key(url, words):
    with pytest.raises(UserError, match=r"mqtt\.url") as caught:
        broker_address(url)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_open_link_can_be_allowed():
    assert broker_address("mqtt://10.0.0.1", MqttSettings(allow_insecure=True)).host == "10.0.0.1"


def test_password_comes_from_url_environment_or_file_in_this_order(tmp_path, monkeypatch):
    file = tmp_path / "password"
    file.write_text("from-file\n")
    settings = MqttSettings(username="results", password_file=file)
    assert broker_address("mqtts://broker.example", settings).password == "from-file"
    monkeypatch.setenv(PASSWORD_VARIABLE, "from-environment")
    assert broker_address("mqtts://broker.example", settings).password == "from-environment"
    address = broker_address("mqtts://someone:p%40ss@broker.example", settings)
    assert (address.username, address.password) == ("someone", "p@ss")


def test_password_is_never_shown(monkeypatch):
    address = broker_address("mqtts://results:secret@broker.example")
    assert "secret" not in str(address) + repr(address)
    assert str(address) == "mqtts://results@broker.example:8883"
    for bad in ("mqtt://u:secret@host:x", "http://u:secret@host", "mqtt://u:sec@secret@[::1"):
        with pytest.raises(UserError) as caught:
            broker_address(bad)
        assert "secret" not in str(caught.value)


def test_files_that_are_not_there_are_named(tmp_path):
    missing = tmp_path / "missing.pem"
    with pytest.raises(UserError, match=r"mqtt\.ca_file.*missing\.pem"):
        broker_address("mqtts://broker.example", MqttSettings(ca_file=missing))
    with pytest.raises(UserError, match=r"mqtt\.password_file.*missing\.pem"):
        broker_address("mqtts://u@broker.example", MqttSettings(password_file=missing))
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    with pytest.raises(UserError, match="needed together"):
        broker_address("mqtts://broker.example", MqttSettings(client_cert_file=broken))
    with pytest.raises(UserError, match="certificate or key cannot be read"):
        tls_context(broker_address("mqtts://broker.example", MqttSettings(ca_file=broken)))
