"""The list of particles that travels inside the report."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import recorded_runs as runs

from edge_app.recording.particle_columns import RecordedParticles
from edge_app.recording.record_reader import open_record
from edge_app.reporting.particle_list import bin_of, pack_particle_list

EDGES = (0.0, 5.0, 10.0, 20.0, float("inf"))
NAMES = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> RecordedParticles:
    path = runs.write_run(tmp_path_factory.mktemp("run"), windows=5, per_frame=40)
    with open_record(path) as record:
        return record.particles()


def unpacked(text: str) -> tuple[dict, dict[str, np.ndarray]]:
    table = json.loads(text)
    columns = {k: np.frombuffer(base64.b64decode(data), "<" + kind) for k, (kind, data) in table["columns"].items()}
    return table, columns


def test_every_counted_particle_is_in_its_bin(recorded: RecordedParticles) -> None:
    table, columns = unpacked(pack_particle_list(recorded, edges_um=EDGES, names=NAMES))
    counted = recorded.particles.weight > 0
    which = bin_of(recorded.particles.ecd_um, EDGES)
    for k, (first, listed, total) in enumerate(table["bins"]):
        mine = counted & (which == k)
        assert listed == total == int(mine.sum())
        found = set(zip(columns["window"][first : first + listed], columns["row"][first : first + listed], strict=True))
        assert found == set(zip(recorded.window[mine], recorded.row[mine], strict=True))
        assert (np.diff(columns["ecd_um"][first : first + listed]) <= 0).all()
    assert len(columns["window"]) == int(counted.sum())


def test_columns_are_those_of_the_record(recorded: RecordedParticles) -> None:
    _, columns = unpacked(pack_particle_list(recorded, edges_um=EDGES, names=NAMES))
    place = {(int(w), int(r)): i for i, (w, r) in enumerate(zip(recorded.window, recorded.row, strict=True))}
    rows = [place[(int(w), int(r))] for w, r in zip(columns["window"], columns["row"], strict=True)]
    p = recorded.particles
    for name, values in {
        "frame": p.frame, "time_s": p.time_s, "x": p.x_px, "y": p.y_px, "width": p.width_px, "height": p.height_px,
        "ecd_um": p.ecd_um, "aspect_ratio": p.aspect_ratio, "circularity": p.circularity,
        "class_index": recorded.class_index, "confidence": recorded.confidence,
    }.items():  # fmt: skip
        assert np.array_equal(columns[name], values[rows]), name


def test_a_large_run_is_sampled_evenly_and_always_alike(recorded: RecordedParticles) -> None:
    text = pack_particle_list(recorded, edges_um=EDGES, names=NAMES, most=60)
    assert text == pack_particle_list(recorded, edges_um=EDGES, names=NAMES, most=60)
    table, columns = unpacked(text)
    listed = [b[1] for b in table["bins"]]
    totals = [b[2] for b in table["bins"]]
    assert sum(listed) == len(columns["window"]) <= 60
    assert sum(totals) == int((recorded.particles.weight > 0).sum())
    limit = max(listed)
    assert listed == [min(t, limit) for t in totals]
    full, everything = unpacked(pack_particle_list(recorded, edges_um=EDGES, names=NAMES))
    first, number, _ = table["bins"][1]
    whole_first, whole_number, _ = full["bins"][1]
    assert set(columns["ecd_um"][first : first + number]) <= set(
        everything["ecd_um"][whole_first : whole_first + whole_number]
    )


def test_it_can_stand_inside_a_script_element(recorded: RecordedParticles) -> None:
    text = pack_particle_list(recorded, edges_um=EDGES, names=("</script>", "b", "c", "d"))
    assert "<" not in text
    assert json.loads(text)["names"][0] == "</script>"


def test_a_run_without_particles(tmp_path: Path) -> None:
    table, columns = unpacked(pack_particle_list(RecordedParticles.empty(runs.CLASSES), edges_um=EDGES, names=NAMES))
    assert table["bins"] == [[0, 0, 0]] * 4
    assert all(len(c) == 0 for c in columns.values())
