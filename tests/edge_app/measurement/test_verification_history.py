"""Verifications over time: what is kept, what is known at a moment, and how it is shown."""

import json
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from edge_app.cli.verify import verify
from edge_app.errors import UserError
from edge_app.measurement.certificate import Check
from edge_app.measurement.suitability import Suitability
from edge_app.measurement.verification_history import append_history, history_for_record, read_history, state_at

START = datetime(2026, 3, 1, 8, tzinfo=timezone.utc)


def verification(day: float, *, noise: float = 1.0, passed: bool = True) -> Suitability:
    check = Check(name="noise", value=noise, unit="%", limit="to 2.5", passed=passed)
    time = (START + timedelta(days=day)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Suitability(
        time=time, who="A. Analyst", calibration_id="cal-1", calibration_state="valid", lot="44021", checks=(check,)
    )


def written(folder: Path, *entries: Suitability) -> Path:
    path = folder / "history.jsonl"
    for entry in entries:
        append_history(path, entry)
    return path


@given(
    days=st.lists(st.floats(0, 100, allow_nan=False).map(lambda d: round(d, 3)), unique=True, max_size=12),
    at=st.floats(-10, 110).map(lambda d: round(d, 3) + 0.0004),
)
def test_what_is_known_at_a_moment_is_what_came_before_it(days: list[float], at: float) -> None:
    history = [verification(d, passed=int(d) % 2 == 0).tree() for d in sorted(days)]
    found = state_at(history, START + timedelta(days=at))
    before = [d for d in sorted(days) if d <= at]
    if not before:
        assert found.result == "missing"
        assert found.last is None
    else:
        assert found.age_days == pytest.approx(at - before[-1], abs=1e-6)
        assert found.result == ("passed" if int(before[-1]) % 2 == 0 else "failed")
    assert (found.after is None) == (len(before) == len(days))
    assert len(found.history) == len(before) + (found.after is not None)


def test_a_record_keeps_the_latest_and_their_hashes(tmp_path: Path) -> None:
    path = written(tmp_path, *(verification(i, noise=1 + i / 100) for i in range(40)))
    kept = history_for_record(path)
    assert kept["problem"] == ""
    assert [e["checks"][0]["value"] for e in kept["history"]] == [1 + i / 100 for i in range(10, 40)]
    assert [e["sha256"] for e in kept["history"]] == [e["sha256"] for e in read_history(path)[10:]]
    assert history_for_record(tmp_path / "none.jsonl") == {"history": [], "problem": ""}


def test_an_altered_history_is_told_and_stops_no_run(tmp_path: Path) -> None:
    path = written(tmp_path, *(verification(i) for i in range(3)))
    lines = path.read_text().splitlines()
    for altered in (
        [lines[0].replace('"value": 1.0', '"value": 0.5'), *lines[1:]],
        [lines[0], lines[2]],
        [*lines, "{}"],
    ):
        path.write_text("\n".join(altered) + "\n")
        with pytest.raises(UserError, match="the history was altered"):
            read_history(path)
        kept = history_for_record(path)
        assert kept["history"] == []
        assert state_at([], START, problem=kept["problem"]).result == "altered"


def test_the_command_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_APP_STATE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "160")
    runner = CliRunner()
    empty = runner.invoke(verify, ["--history"])
    assert isinstance(empty.exception, UserError)
    assert "no verification yet" in str(empty.exception)
    values = (1.0, 1.1, 0.9, 1.0, 1.1, 1.0)
    path = tmp_path / "suitability.jsonl"
    for i, value in enumerate(values):
        append_history(path, verification(i, noise=value))
    shown = runner.invoke(verify, ["--history"])
    assert shown.exit_code == 0, shown.output
    assert shown.output.count("pass") >= 6
    assert "last verification passed" in shown.output
    assert "noise" in shown.output
    append_history(path, verification(6, noise=9.0, passed=False))
    shown = runner.invoke(verify, ["--history", str(path), "--json"])
    assert shown.exit_code == 1
    body = json.loads(shown.stdout)
    assert (body["passed"], len(body["verifications"])) == (False, 7)
    [chart] = body["charts"]
    assert chart["values"] == [*values, 9.0]
    assert chart["signal"] == "beyond 3 sigma"
    # Individuals chart: mean and mean moving range of those before the last.
    assert chart["centre"] == pytest.approx(sum(values) / 6)
    moving = sum(abs(b - a) for a, b in pairwise(values)) / 5
    assert chart["high"] - chart["centre"] == pytest.approx(3 * moving / 1.128)
    text = runner.invoke(verify, ["--history", "--chart", str(tmp_path / "c.svg")])
    assert "FAIL" in text.output
    assert (tmp_path / "c.svg").read_text().startswith("<svg")


@pytest.mark.parametrize("arguments", [[], ["runs/x", "--history"], ["runs/x", "--blank", "dir:w"]])
def test_one_thing_at_a_time(arguments: list[str]) -> None:
    assert "verify takes either" in str(CliRunner().invoke(verify, arguments).exception)
