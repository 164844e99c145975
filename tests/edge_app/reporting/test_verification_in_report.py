"""Every report says when the system was last verified, and how that ended."""

from pathlib import Path
from typing import Any

import pytest
import recorded_runs as runs
from simulated_runs import run_pipeline
from test_report import text_of

from edge_app.measurement.certificate import Check
from edge_app.measurement.suitability import Suitability
from edge_app.measurement.verification_history import append_history
from edge_app.recording.record_reader import open_record
from edge_app.reporting.report import build_report
from edge_app.reporting.run_facts import read_run


def entry(time: str, *, passed: bool = True, value: float = 1.2, calibration: str | None = None) -> dict[str, Any]:
    check = {"name": "noise", "value": value, "unit": "%", "limit": "to 2.5", "passed": passed}
    return {
        "time": time, "who": "B. Chemist", "passed": passed, "calibration_id": calibration or runs.CALIBRATION.id,
        "lot": "44021", "software": "edge-app", "sha256": "9f" * 32, "checks": [check],
    }  # fmt: skip


def report(folder: Path, *history: dict[str, Any], problem: str = "") -> str:
    with runs.create(folder, extra={"verification": {"history": list(history), "problem": problem}}) as record:
        record.finish({})
    return text_of(build_report([record.path]))


LATER, EARLIER = "2999-01-01T00:00:00Z", "2001-01-01T00:00:00Z"


def test_none_is_flagged(tmp_path: Path) -> None:
    text = report(tmp_path)
    assert text.index("Not verified") < text.index("No limits were chosen")
    assert "verification none on record" in text


def test_the_last_one_is_stated_with_its_age(tmp_path: Path) -> None:
    text = report(tmp_path, entry("2000-01-01T00:00:00Z", passed=False), entry(EARLIER))
    assert "verification passed " in text
    assert "days before the run, 2001-01-01 00:00:00 UTC" in text
    assert "Last system suitability before the run: passed on 2001-01-01" in text
    assert "noise 1.20 %" in text
    assert "Control charts noise , %" in text
    assert "9f" * 32 in text
    assert "Not verified" not in text
    assert "Verification failed" not in text


def test_a_failed_one_is_on_every_page(tmp_path: Path) -> None:
    with runs.create(tmp_path, extra={"verification": {"history": [entry(EARLIER, passed=False)]}}) as record:
        record.finish({})
    html = build_report([record.path])
    text = text_of(html)
    assert "was not passed: noise." in text
    assert text.index("Verification failed") < text.index("No limits were chosen")
    assert "VERIFICATION FAILED" in html.decode()


def test_one_after_the_run_brackets_it_and_does_not_count_as_before(tmp_path: Path) -> None:
    with runs.create(tmp_path, extra={"verification": {"history": []}}) as record:
        record.finish({})
    later = [entry(EARLIER), entry(LATER, passed=False), entry("2999-02-01T00:00:00Z")]
    text = text_of(build_report([record.path], history=later))
    assert "The first one after the run, on 2999-01-01 00:00:00 UTC: FAILED" in text
    assert "Failed afterwards" in text
    assert "2999-02-01" not in text
    assert "Not verified" in text_of(build_report([record.path], history=later[1:]))


def test_another_calibration_and_an_altered_history_are_told(tmp_path: Path) -> None:
    text = report(tmp_path / "a", entry(EARLIER, calibration="cal-other"))
    assert "The last verification was made with cal-other, this run with nominal-1.33um-100um" in text
    text = report(tmp_path / "b", problem="line 2 does not follow the line before it")
    assert "cannot be relied on: line 2" in text
    assert "verification history altered" in text


def test_a_run_keeps_what_was_known_at_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_APP_STATE", str(tmp_path / "state"))
    check = Check(name="noise", value=1.3, unit="%", limit="to 2.5", passed=True)
    suitability = Suitability(
        time="2026-01-05T08:00:00.000Z", who="B. Chemist", calibration_id="simulated-mfi-1", calibration_state="valid",
        lot="", checks=(check,),
    )  # fmt: skip
    history = tmp_path / "state" / "suitability.jsonl"
    append_history(history, suitability)
    record = run_pipeline(tmp_path, source="sim:?frames=8&seed=2")
    history.unlink()
    facts = read_run(record)
    assert facts.verification.result == "passed"
    assert facts.verification.last["checks"] == [check.model_dump(mode="json")]
    with open_record(record) as opened:
        assert len(opened.meta["verification"]["history"][0]["sha256"]) == 64
    assert build_report([record]) == build_report([record])
