"""Every message says how far its sizes can be believed."""

import json
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from publishing_device import CALIBRATION, STARTED, provenance, window

from edge_app.config import load_settings
from edge_app.measurement.calibration import nominal_calibration
from edge_app.messaging.board import Board
from edge_app.messaging.live_view import plain_line
from edge_app.messaging.messages import (
    MESSAGE_OF_KIND,
    histogram_message,
    merge_histograms,
    summary_message,
    total_message,
)
from edge_app.messaging.provenance import calibration_words
from edge_app.messaging.schemas import json_schemas
from edge_app.messaging.topics import Topics
from edge_app.pipeline import Pipeline, RunRequest

KEYS = {"calibration", "calibration_state", "calibration_age_days"}


def test_every_schema_asks_for_it() -> None:
    schemas = json_schemas()
    assert len(schemas) == len(set(MESSAGE_OF_KIND.values()))
    for name, schema in schemas.items():
        assert set(schema["required"]) >= KEYS, name
        assert schema["properties"]["calibration_state"]["enum"] == ["valid", "expired", "not_calibrated"]


def test_a_calibration_that_expires_in_the_middle_of_a_run() -> None:
    windows = [histogram_message(window(s), provenance=provenance("b"), started=STARTED) for s in range(12)]
    # The windows end after 1 s, 2 s, ...; the calibration does after 10 s.
    assert [w.calibration_state for w in windows] == ["valid"] * 10 + ["expired"] * 2
    assert windows[0].calibration_age_days == pytest.approx(12.0, abs=0.001)
    total = total_message(window(10) + window(11), provenance=provenance("b"), started=STARTED)
    assert total.calibration_state == "expired"
    merged = merge_histograms(windows[9], windows[10])
    assert (merged.calibration, merged.calibration_state) == ("cal-beads", "expired")
    for after, state in ((5, "valid"), (20, "expired")):
        ended = STARTED + timedelta(seconds=after)
        summary = summary_message(window(0), provenance=provenance("b"), started=STARTED, ended=ended, windows=1)
        assert summary.calibration_state == state


def test_age_is_that_of_the_beads_and_a_stated_scale_has_none() -> None:
    moment = datetime(2026, 11, 12, 19, 45, tzinfo=timezone.utc)
    assert calibration_words(CALIBRATION, moment) == {
        "calibration": "cal-beads", "calibration_state": "valid", "calibration_age_days": 3.5,
    }  # fmt: skip
    made_later = calibration_words(CALIBRATION, moment - timedelta(days=7))
    assert made_later["calibration_age_days"] == -3.5
    scale = calibration_words(nominal_calibration(um_per_px=1.33, depth_um=100.0), moment)
    assert (scale["calibration_state"], scale["calibration_age_days"]) == ("not_calibrated", None)


def test_a_line_in_a_log_says_it_beside_the_number() -> None:
    board, topics = Board(), Topics(site="lab", device="d")
    for seq, wanted in ((0, False), (11, True)):
        payload = histogram_message(window(seq), provenance=provenance("b"), started=STARTED).payload().encode()
        assert board.take(topics.of("histogram"), payload)
        line = plain_line(topics.of("histogram"), payload, board.devices()[0])
        assert line is not None
        assert line.endswith("[expired]") is wanted


@pytest.mark.parametrize("expires", ["2999-01-01T00:00:00Z", "2026-01-02T00:00:00Z", None])
def test_every_message_of_a_run_over_a_broker(mosquitto, listen, until, tmp_path: Path, monkeypatch, expires) -> None:
    monkeypatch.setenv("EDGE_APP_STATE", str(tmp_path / "state"))
    settings = {"mqtt.url": mosquitto.url, "mqtt.device": "mfi-c", "window.length_s": 0.5}
    wanted, id_ = "not_calibrated", "nominal-1.4um-100um"
    if expires is None:
        settings["flow_cell.um_per_px"] = 1.4
    else:
        wanted = "valid" if expires.startswith("29") else "expired"
        id_ = "cal-1"
        file = tmp_path / "calibration.json"
        made = nominal_calibration(um_per_px=1.33, depth_um=100.0).model_copy(
            update={"id": id_, "calibrated": True, "created": "2026-01-01T00:00:00Z", "expires": expires}
        )
        file.write_text(made.model_dump_json())
        settings["flow_cell.calibration_file"] = str(file)
    listener = listen(mosquitto.port)
    pipeline = Pipeline(RunRequest(source="sim:?frames=24&seed=3", out=tmp_path), load_settings(None, settings))
    thread = threading.Thread(target=pipeline.run)
    thread.start()
    thread.join(60)
    until(lambda: listener.of("summary") and "disconnected" in listener.states())
    kinds = {m.suffix for m in listener.received}
    assert kinds >= {"status", "info", "run", "histogram", "histogram/total", "summary", "event"}
    for message in listener.received:
        body = json.loads(message.payload)
        assert body["calibration_state"] == wanted, message.suffix
        said = body["calibration"]["id"] if message.suffix == "info" else body["calibration"]
        assert said == id_
        age = body["calibration_age_days"]
        assert age is None if wanted == "not_calibrated" else age > 100
