"""Commands besides `run`: what they say and how they end."""

import json
from pathlib import Path

import pytest

COMMANDS = [
    "calibrate", "verify", "run", "demo", "watch", "classify",
    "reanalyse", "report", "export", "bench", "doctor", "config",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(app, command: str) -> None:
    assert f"edge-app {command}" in app(command, "--help").stdout


def test_help_lists_every_command(app) -> None:
    text = app("--help").stdout
    assert all(f"\n  {command}" in text for command in COMMANDS)


@pytest.mark.parametrize("arguments", [["nonsense"], ["run"], ["export", "x", "--table", "nothing", "-o", "y"]])
def test_wrong_use_ends_with_2(app, arguments: list[str]) -> None:
    app(*arguments, code=2)


def test_doctor_finds_what_the_main_job_needs(app) -> None:
    report = json.loads(app("doctor", "--json").stdout)
    states = {finding["part"]: finding["state"] for finding in report["findings"]}
    assert report["ok"]
    assert states["back end litert"] == "ok"
    assert {"machine", "python", "camera", "embedded broker", "disk", "clock"} <= states.keys()


def test_doctor_ends_with_1_where_nothing_can_be_written(app) -> None:
    done = app("doctor", "--folder", "/proc", code=1)
    assert "error" in done.stdout


def test_password_of_the_broker_is_neither_shown_nor_recorded(app, tmp_path: Path) -> None:
    settings = tmp_path / "s.toml"
    settings.write_text('[mqtt]\nurl = "mqtts://lab:very-secret@127.0.0.1:1"\nflush_s = 0\n')
    assert "very-secret" not in app("config", "show", settings).stdout
    done = app("run", "sim:?seed=1", "--frames", 3, "--out", tmp_path / "r", "--config", settings, "--json")
    assert "very-secret" not in done.stdout + done.stderr
    for file in (tmp_path / "r").iterdir():
        assert b"very-secret" not in file.read_bytes()


def test_export_of_a_folder_without_a_record(app, tmp_path: Path) -> None:
    done = app("export", tmp_path, "-o", tmp_path / "x.csv", code=2)
    assert len(done.stderr.strip().splitlines()) == 1
    assert str(tmp_path) in done.stderr
