"""The same frames once more: a linked record, an untouched parent, and a difference that tells the truth."""

import json
import shutil
import sqlite3
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from edge_app.classification.bundle import SHIPPED
from edge_app.cli.reanalyse import reanalyse as command
from edge_app.config import load_settings
from edge_app.errors import UserError
from edge_app.flow_cell_geometry import CALIBRATIONS
from edge_app.measurement.calibration import load_calibration
from edge_app.pipeline import Pipeline, RunRequest
from edge_app.reanalysis import ReanalysisRequest, reanalyse
from edge_app.recording.audit import verify_record
from edge_app.recording.difference import change_text, match_particles
from edge_app.recording.difference_page import difference_page
from edge_app.recording.export import export_table
from edge_app.recording.record_reader import open_record
from edge_app.recording.run_record import add_facts

SIM = "sim:?concentration=100000&seed=3&frames=18&lose=0.1&width_px=640&height_px=512"
TABLES = ("meta", "windows", "particle_columns", "companion_columns", "pictures", "events", "audit", "outbox")


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_APP_STATE", str(tmp_path / "state"))


def measure(source: str, out: Path, *, stop_after: int | None = None, **settings: Any) -> Path:
    """Run once; stopped in order after so many windows."""
    pipeline = Pipeline(RunRequest(source=source, out=out), load_settings(None, {"mqtt.url": "off", **settings}))
    if stop_after is not None:
        pipeline.on_window = lambda total: pipeline.stop() if total.seq + 1 >= stop_after else None
    return Path(pipeline.run()["record"])


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_APP_STATE", str(tmp_path_factory.mktemp("state")))
        return measure(SIM, tmp_path_factory.mktemp("parent"))


@pytest.fixture
def parent(measured: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(measured, tmp_path / measured.name))


def rows_of(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    connection = sqlite3.connect(path)
    try:
        return {t: connection.execute(f"SELECT * FROM {t}").fetchall() for t in TABLES}
    finally:
        connection.close()


def exports(record_path: Path, folder: Path) -> dict[str, bytes]:
    found = {}
    for table in ("particles", "windows", "histogram"):
        for kind in ("csv", "json"):
            file = folder / f"{table}.{kind}"
            with open_record(record_path) as record:
                export_table(record, table=table, format=kind, out=file)
            found[file.name] = file.read_bytes()
    return found


def other_calibration(folder: Path, *, factor: float) -> Path:
    curve = load_calibration(CALIBRATIONS / "simulated_mfi.json")
    larger = curve.model_copy(update={"id": "beads-2", "curve_um": tuple(u * factor for u in curve.curve_um)})
    path = folder / "beads.json"
    path.write_text(larger.model_dump_json())
    return path


def frames_folder(folder: Path, *, frames: int = 8) -> Path:
    rng = np.random.default_rng(1)
    folder.mkdir()
    for i in range(frames):
        image = np.clip(rng.normal(200, 1.5, (200, 240)), 0, 255).astype(np.uint8)
        for _ in range(5):
            cv2.circle(image, (int(rng.integers(20, 220)), int(rng.integers(20, 180))), 6, 60, -1)
        assert cv2.imwrite(str(folder / f"{i:03d}.png"), image)
    return folder


def test_the_same_once_more_gives_the_same_bytes(parent: Path, tmp_path: Path) -> None:
    made = reanalyse(ReanalysisRequest(parent=parent, out=tmp_path / "out", reason="repeat"))
    assert exports(made.record, tmp_path) == exports(parent, tmp_path)
    d = made.difference
    assert (d.same_numbers, d.frames_agree, d.steps, d.settings) == (True, True, (), ())
    assert d.particles.same_box > 30
    assert (d.particles.only_parent, d.particles.only_child, d.particles.resized) == (0, 0, 0)
    assert d.parent.frames_lost > 0


def test_both_records_name_each_other_and_the_parent_is_otherwise_untouched(parent: Path, tmp_path: Path) -> None:
    before, head = rows_of(parent), verify_record(parent).head
    made = reanalyse(ReanalysisRequest(parent=parent, out=tmp_path / "out", reason="why it is done"))
    after = rows_of(parent)
    for table in TABLES:
        grown = 1 if table in ("events", "audit") else 0
        assert after[table][: len(before[table])] == before[table]
        assert len(after[table]) == len(before[table]) + grown
    assert verify_record(parent, expected_head=head).ok
    child = verify_record(made.record)
    assert child.ok
    assert child.finished
    assert child.head == made.record_head
    with open_record(made.record) as record, open_record(parent) as first:
        link = record.meta["parent"]
        # The age of a calibration is that at the time of the frames.
        started = first.meta["started"]
        assert list(record.audit())[-1].reason == "why it is done"
    assert link == {
        "run_id": parent.stem, "record": parent.name, "head": head, "reason": "why it is done", "frames_agree": True,
        "started": started,
    }  # fmt: skip
    with open_record(parent) as record:
        event = list(record.events())[-1]
    assert (event.kind, event.message) == ("reanalysed", "why it is done")
    assert event.details["child"] == {
        "run_id": made.record.stem, "record": made.record.name, "head": child.head, "frames_agree": True,
    }  # fmt: skip
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [made.record.name]


def test_another_calibration_changes_sizes_but_no_box(parent: Path, tmp_path: Path) -> None:
    file = other_calibration(tmp_path, factor=1.1)
    made = reanalyse(ReanalysisRequest(parent=parent, out=tmp_path / "out", reason="beads", calibration=file))
    d = made.difference
    with open_record(parent) as a, open_record(made.record) as b:
        old, new = a.particles(), b.particles()
        assert b.calibration is not None
        assert b.calibration.id == "beads-2"
    # Larger sizes lift some over the smallest reported one, so that the child holds all boxes of the parent and more.
    assert (d.particles.same_box, d.particles.only_parent) == (len(old), 0)
    assert d.particles.only_child == len(new) - len(old)
    assert d.particles.resized == len(old)
    assert d.particles.size_ratio == pytest.approx((1.1, 1.1, 1.1), rel=1e-5)
    boxes = [
        {tuple(map(int, row)) for row in zip(p.frame, p.x_px, p.y_px, p.width_px, p.height_px, strict=True)}
        for p in (old.particles, new.particles)
    ]
    assert boxes[0] <= boxes[1]
    assert {c.name for c in d.steps} == {"calibration", "calibration hash"}
    assert {c.name for c in d.settings} == {"flow_cell.calibration_file"}
    assert d.child.per_ml["all"]["5"] > d.parent.per_ml["all"]["5"]
    assert d.child.rejected.get("small", 0) < d.parent.rejected["small"]


def test_a_stated_scale_of_the_parent_does_not_enter_the_new_calibration(tmp_path: Path) -> None:
    parent = measure(f"dir:{frames_folder(tmp_path / 'f')}", tmp_path / "run", **{"flow_cell.um_per_px": 0.7})
    file = other_calibration(tmp_path, factor=1.0)
    made = reanalyse(ReanalysisRequest(parent=parent, out=tmp_path / "out", reason="beads", calibration=file))
    with open_record(made.record) as record:
        assert record.calibration == load_calibration(file)


def test_another_bundle_changes_classes_alone(parent: Path, tmp_path: Path) -> None:
    strict = tmp_path / "strict"
    shutil.copytree(SHIPPED, strict)
    description = json.loads((strict / "bundle.json").read_text())
    description["version"] = "strict"
    description["rejection"]["minimum_probability"] = 0.999
    (strict / "bundle.json").write_text(json.dumps(description))
    made = reanalyse(ReanalysisRequest(parent=parent, out=tmp_path / "out", reason="strict", bundle=strict))
    d = made.difference
    assert {c.name for c in d.steps} == {"classify"}
    assert d.child.per_ml["all"] == d.parent.per_ml["all"]
    assert (d.particles.resized, d.particles.only_parent, d.particles.only_child) == (0, 0, 0)
    assert d.particles.reclassified
    assert {child for _, child in d.particles.reclassified} == {"unknown"}
    with open_record(parent) as a, open_record(made.record) as b:
        old, new = a.particles().class_names, b.particles().class_names
    truth = Counter((str(o), str(n)) for o, n in zip(old, new, strict=True) if o != n)
    assert d.particles.reclassified == truth


def test_a_settings_file_replaces_the_keys_that_it_names(tmp_path: Path) -> None:
    parent = measure(SIM, tmp_path / "run", **{"window.min_ecd_um": 3.0, "run.sample": "lot 7"})
    (tmp_path / "s.toml").write_text("[window]\nlength_s = 0.5\n")
    request = ReanalysisRequest(parent=parent, out=tmp_path / "out", reason="finer", config=tmp_path / "s.toml")
    made = reanalyse(request)
    assert {(c.name, c.parent, c.child) for c in made.difference.settings} == {("window.length_s", "1.0", "0.5")}
    assert made.difference.same_numbers
    with open_record(made.record) as record:
        assert record.meta["settings"]["window"] == {
            "length_s": 0.5, "min_ecd_um": 3.0, "leave_out_bubble_bursts": True,
        }  # fmt: skip
        assert record.meta["sample"] == "lot 7"


def test_other_frames_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    folder = frames_folder(tmp_path / "f")
    parent = measure(f"dir:{folder}", tmp_path / "run")
    before = parent.read_bytes()
    moved = tmp_path / "moved"
    request = ReanalysisRequest(parent=parent, out=tmp_path / "out", reason="again", source=f"dir:{moved}")
    with pytest.raises(UserError, match="moved"):
        reanalyse(request)
    shutil.copytree(folder, moved)
    picture = cv2.imread(str(moved / "004.png"), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    picture[0, 0] ^= 1
    cv2.imwrite(str(moved / "004.png"), picture)
    with pytest.raises(UserError, match="other frames") as caught:
        reanalyse(request)
    assert "\n" not in str(caught.value)
    shutil.copy(folder / "004.png", moved)
    (moved / "007.png").unlink()
    with pytest.raises(UserError, match=r"7 frames.*allow-different-frames"):
        reanalyse(request)
    assert list((tmp_path / "out").iterdir()) == []
    assert parent.read_bytes() == before


def test_other_frames_can_be_allowed_and_the_record_says_so(tmp_path: Path) -> None:
    folder = frames_folder(tmp_path / "f")
    parent = measure(f"dir:{folder}", tmp_path / "run")
    (folder / "007.png").unlink()
    made = reanalyse(
        ReanalysisRequest(parent=parent, out=tmp_path / "out", reason="one is gone", allow_different_frames=True)
    )
    assert not made.difference.frames_agree
    assert made.difference.child.frames == 7
    with open_record(made.record) as record:
        assert record.meta["parent"]["frames_agree"] is False
    assert "not shown to be the same" in difference_page(made.difference)


def test_moved_frames_are_the_same_frames(tmp_path: Path) -> None:
    folder = frames_folder(tmp_path / "f")
    parent = measure(f"dir:{folder}", tmp_path / "run")
    folder.rename(tmp_path / "archive")
    with pytest.raises(UserError, match="f"):
        reanalyse(ReanalysisRequest(parent=parent, out=tmp_path / "out", reason="again"))
    made = reanalyse(
        ReanalysisRequest(parent=parent, out=tmp_path / "out", reason="again", source=f"dir:{tmp_path / 'archive'}")
    )
    assert made.difference.frames_agree
    assert made.difference.same_numbers


def test_a_run_that_was_stopped_is_analysed_as_far_as_it_went(tmp_path: Path) -> None:
    parent = measure("sim:?concentration=50000&seed=2&width_px=480&height_px=320", tmp_path / "run", stop_after=2)
    with open_record(parent) as record:
        assert record.meta["finished"]["state"] == "stopped"
    made = reanalyse(ReanalysisRequest(parent=parent, out=tmp_path / "out", reason="again"))
    assert made.difference.frames_agree
    assert made.difference.same_numbers


def test_a_reanalysis_that_is_stopped_leaves_nothing(parent: Path, tmp_path: Path) -> None:
    def stopped(pipeline: Pipeline) -> dict[str, Any]:
        pipeline.stop()
        return pipeline.run()

    before = parent.read_bytes()
    with pytest.raises(UserError, match="stopped before its end"):
        reanalyse(ReanalysisRequest(parent=parent, out=tmp_path / "out", reason="again"), drive=stopped)
    assert list((tmp_path / "out").iterdir()) == []
    assert parent.read_bytes() == before


def test_parents_that_cannot_be_used_are_refused(parent: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match="reason"):
        reanalyse(ReanalysisRequest(parent=parent, out=out, reason=" "))
    with pytest.raises(UserError, match="no such"):
        reanalyse(ReanalysisRequest(parent=tmp_path / "none", out=out, reason="again"))
    unhashed = measure(SIM, tmp_path / "unhashed", **{"recording.hash_frames": False})
    with pytest.raises(UserError, match="no hash over its frames"):
        reanalyse(ReanalysisRequest(parent=unhashed, out=out, reason="again"))
    connection = sqlite3.connect(parent)
    with connection:
        connection.execute("UPDATE windows SET volume_ml = volume_ml * 2 WHERE seq = 0")
    connection.close()
    with pytest.raises(UserError, match="windows/0"):
        reanalyse(ReanalysisRequest(parent=parent, out=out, reason="again"))
    connection = sqlite3.connect(unhashed)
    with connection:
        last = connection.execute("SELECT max(id) FROM audit").fetchone()
        connection.execute("DELETE FROM meta WHERE audit_id = ?", last)
        connection.execute("DELETE FROM audit WHERE id = ?", last)
    connection.close()
    with pytest.raises(UserError, match="not finished"):
        reanalyse(ReanalysisRequest(parent=unhashed, out=out, reason="again"))
    assert not out.exists()


def test_facts_are_added_under_the_chain_and_never_replaced(parent: Path) -> None:
    head = add_facts(parent, {"site": "B"}, action="noted", reason="moved")
    assert verify_record(parent).head == head
    with pytest.raises(ValueError, match="UNIQUE"):
        add_facts(parent, {"site": "C"}, action="noted", reason="moved")
    with open_record(parent) as record:
        assert record.meta["site"] == "B"
    assert verify_record(parent, expected_head=head).ok


class Page(HTMLParser):
    """Collects text, and every attribute that could load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.links: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.links += [str(v) for k, v in attrs if k in ("src", "href", "srcset", "data")]

    def handle_data(self, data: str) -> None:
        self.text.append(data.strip())


def test_the_command_writes_table_json_and_page(parent: Path, tmp_path: Path) -> None:
    arguments = [
        str(parent), "--out", str(tmp_path / "out"), "--reason", "<b>beads</b> & more",
        "--calibration", str(other_calibration(tmp_path, factor=1.1)),
    ]  # fmt: skip
    shown = CliRunner().invoke(command, arguments, catch_exceptions=False).output
    assert "beads-2" in shown
    assert "<b>beads</b> & more" in shown
    done = CliRunner().invoke(command, [*arguments, "--json"], catch_exceptions=False)
    result = json.loads(done.output.strip().splitlines()[-1])
    difference = json.loads(Path(result["difference_json"]).read_text())
    assert difference == result["difference"]
    assert difference["schema"] == "mfi.difference/1"
    with open_record(parent) as a, open_record(Path(result["record"])) as b:
        assert difference["parent"]["per_ml"]["all"] == a.summary()["per_ml"]
        assert difference["child"]["counts"] == b.summary()["counts"]
        assert difference["child"]["rejected"] == b.summary()["rejected"]
    text = Path(result["difference_html"]).read_text(encoding="utf-8")
    page = Page(text)
    assert page.links == []
    assert "http" not in text
    assert not page.tags.keys() & {"script", "b", "link", "img", "iframe"}
    assert "<b>beads</b> & more" in page.text
    for size, value in difference["child"]["per_ml"]["all"].items():
        assert f"≥ {size} µm" in page.text
        assert f"{value:,.0f}" in page.text
    assert {"silicone oil", "glass", "unknown", "beads-2", parent.stem} <= set(page.text)


def test_a_size_that_is_not_reported_any_more_carries_no_number(parent: Path, tmp_path: Path) -> None:
    config = tmp_path / "coarser.toml"
    config.write_text("[window]\nmin_ecd_um = 6.0\n")
    d = reanalyse(ReanalysisRequest(parent=parent, out=tmp_path / "out", reason="coarser", config=config)).difference
    for name in d.classes:
        assert d.child.per_ml[name]["5"] is None
        assert d.child.per_ml[name]["10"] is not None
    assert d.parent.per_ml["all"]["5"] is not None
    assert "below the smallest size that the record reports" in difference_page(d)


def test_particles_are_matched_as_by_hand(measured: Path) -> None:
    with open_record(measured) as record:
        rows = record.particles()
    n = len(rows)
    half = rows.particles.take(np.arange(n) % 3 != 0)
    fewer = type(rows)(
        window=rows.window[np.arange(n) % 3 != 0],
        row=rows.row[np.arange(n) % 3 != 0],
        particles=half,
        class_index=(rows.class_index[np.arange(n) % 3 != 0] + 1).astype(np.int16) % len(rows.classes),
        confidence=rows.confidence[np.arange(n) % 3 != 0],
        probabilities=None,
        classes=rows.classes,
    )
    found = match_particles(rows, fewer)
    assert (found.same_box, found.only_parent, found.only_child) == (len(half), n - len(half), 0)
    assert sum(found.reclassified.values()) == len(half)
    back = match_particles(fewer, rows)
    assert (back.only_parent, back.only_child) == (0, n - len(half))
    empty = type(rows).empty(rows.classes)
    assert match_particles(empty, rows).only_child == n
    assert match_particles(empty, empty).size_ratio is None


@pytest.mark.parametrize(
    ("parent", "child", "text"), [(200.0, 190.0, "-5.0 %"), (0.0, 0.0, "="), (0.0, 1.0, "new"), (1.0, None, "")]
)
def test_changes_are_given_in_percent_of_the_parent(parent: float, child: float | None, text: str) -> None:
    assert change_text(parent, child) == text
