"""What is in a message, its schema, its topic."""

import json
import subprocess
import sys

import jsonschema
import numpy as np
import pytest
from publishing_device import CLASSES, STARTED, provenance, window

from edge_app.measurement.histogram import FINE_EDGES_UM
from edge_app.measurement.window import per_ml
from edge_app.messaging.messages import (
    MESSAGE_OF_KIND,
    HistogramMessage,
    Info,
    Stats,
    Status,
    histogram_message,
    merge_histograms,
    outgoing,
    summary_message,
    total_message,
)
from edge_app.messaging.schemas import SCHEMA_DIR, json_schemas
from edge_app.messaging.settings import MqttSettings, identifier_from
from edge_app.messaging.topics import TOPIC_RULES, Topics, parse_topic

TOPICS = Topics(site="lab", device="mfi-t")


def test_schemas_in_the_docs_are_those_of_the_messages():
    run = subprocess.run(
        [sys.executable, "-m", "edge_app.messaging.schemas"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr + "run: python -m edge_app.messaging.schemas --write"
    assert {p.name for p in SCHEMA_DIR.glob("*.json")} == set(json_schemas())


def test_schemas_are_valid_and_complete():
    for name, schema in json_schemas().items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert set(schema["required"]) == set(schema["properties"]), name


def test_stale_schemas_are_told_and_written(tmp_path):
    command = [sys.executable, "-m", "edge_app.messaging.schemas", "--dir", str(tmp_path)]
    (tmp_path / "mfi.old-1.json").write_text("{}")
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1
    assert subprocess.run([*command, "--write"], check=False).returncode == 0
    assert subprocess.run(command, check=False).returncode == 0
    assert {p.name for p in tmp_path.iterdir()} == set(json_schemas())


def test_window_message_says_what_the_window_holds():
    one = window(7)
    body = json.loads(histogram_message(one, provenance=provenance("b"), started=STARTED).payload())
    assert body["schema"] == "mfi.histogram/1"
    assert (body["seq"], body["first_seq"], body["last_seq"], body["scope"]) == (7, 7, None, "window")
    assert body["t0"] == "2026-11-21T07:45:07.000Z"
    assert body["edges_um"] == [*FINE_EDGES_UM[:-1], None]
    assert list(body["counts"]) == list(CLASSES)
    assert body["n"] == sum(sum(row) for row in body["counts"].values()) == one.particles
    assert body["frames_dropped"] == body["frames_lost"] + body["frames_rejected"] == 2
    assert body["per_ml"] == per_ml(one.histogram, one.volume_ml)
    assert body["replayed"] is False


def test_histogram_survives_the_wire_exactly():
    one = window(3)
    again = HistogramMessage.model_validate_json(histogram_message(one, provenance=provenance("b")).payload())
    np.testing.assert_array_equal(again.histogram().counts, one.histogram.counts)
    np.testing.assert_array_equal(again.histogram().weighted, one.histogram.weighted)
    assert again.histogram().edges_um == one.histogram.edges_um


def test_window_without_volume_is_valid_json():
    one = window(0, particles=0)
    nothing = type(one)(**{**one.__dict__, "frames": 0, "volume_ml": 0.0})
    body = json.loads(histogram_message(nothing, provenance=provenance("b")).payload())
    assert body["per_ml"]["all"]["10"] is None
    assert body["t0"] is None
    jsonschema.validate(body, json_schemas()["mfi.histogram-1.json"])


def test_merged_windows_equal_the_sum_of_the_windows():
    parts = [histogram_message(window(s), provenance=provenance("b"), started=STARTED) for s in range(3)]
    merged = merge_histograms(merge_histograms(parts[0], parts[1]), parts[2])
    total = window(0) + window(1) + window(2)
    wanted = histogram_message(total, provenance=provenance("b"), started=STARTED, windows=3)
    assert (merged.first_seq, merged.seq, merged.windows) == (0, 2, 3)
    assert merged == wanted.model_copy(update={"first_seq": 0})


def test_what_does_not_belong_together_is_not_merged():
    a, b, c = (histogram_message(window(s), provenance=provenance("b")) for s in (0, 1, 2))
    with pytest.raises(ValueError, match="not adjacent"):
        merge_histograms(a, c)
    with pytest.raises(ValueError, match="calibration"):
        merge_histograms(a, b.model_copy(update={"calibration": "another"}))
    with pytest.raises(ValueError, match="scope"):
        merge_histograms(a, total_message(window(1), provenance=provenance("b")))


def test_rows_for_the_outbox_have_the_rules_of_their_topic():
    one = window(4)
    row = outgoing(TOPICS, histogram_message(one, provenance=provenance("b")))
    assert (row.topic, row.qos, row.retain, row.kind, row.seq) == (
        "mfi/1/lab/mfi-t/histogram",
        1,
        False,
        "histogram",
        4,
    )
    row = outgoing(TOPICS, total_message(one, provenance=provenance("b")))
    assert (row.topic, row.retain, row.kind) == ("mfi/1/lab/mfi-t/histogram/total", True, "total")
    row = outgoing(TOPICS, summary_message(one, provenance=provenance("b"), started=STARTED, ended=STARTED, windows=1))
    assert (row.kind, row.retain, row.seq) == ("summary", True, None)
    for message in (Status(state="ready", boot_id="b", since=""), Stats(device="d", boot_id="b")):
        with pytest.raises(TypeError, match="does not wait on disk"):
            outgoing(TOPICS, message)


def test_every_kind_has_a_message_and_a_topic():
    assert set(MESSAGE_OF_KIND) == set(TOPIC_RULES)
    for kind in TOPIC_RULES:
        assert parse_topic(TOPICS.of(kind)) == ("lab", "mfi-t", kind)
    for foreign in ("mfi/2/lab/d/status", "mfi/1/lab/d", "mfi/1/lab/d/cmd/start", "$SYS/broker/uptime", ""):
        assert parse_topic(foreign) is None


@pytest.mark.parametrize("name", ["Lab", "a/b", "a b", "a+", "", "é"])
def test_names_that_do_not_fit_a_topic_are_refused(name):
    with pytest.raises(ValueError, match="a-z, 0-9 and -"):
        Topics(site="lab", device=name)


def test_settings_take_their_device_from_the_host_and_refuse_bad_names():
    assert MqttSettings(site="basel", device="mfi-3", prefix="x").root == "x/1/basel/mfi-3"
    assert MqttSettings().device_id == identifier_from(MqttSettings().device_id)
    with pytest.raises(ValueError, match="site"):
        MqttSettings(site="Basel")
    with pytest.raises(ValueError, match="must not be empty"):
        MqttSettings(site="")
    assert identifier_from("___", fallback="device") == "device"


def test_numbers_that_json_has_no_word_for_are_refused():
    with pytest.raises(ValueError, match="finite"):
        Stats(device="d", boot_id="b", particles_per_s=float("nan"))


def test_info_names_all_schemas():
    info = Info(site="lab", device="d", boot_id="b", app_version="1")
    assert set(info.schemas) == {
        f"mfi.{n}/1" for n in ("status", "info", "run", "histogram", "summary", "stats", "event")
    }
