"""What is said while a network learns, and what is left of it."""

import csv
import io
from pathlib import Path

import cv2
from rich.console import Console

from training.fitting.history import COLUMNS, EventLog, compact, draw_curves, write_log
from training.fitting.progress import TrainingProgress

HISTORY = [
    {"epoch": 0, "loss": None, "learning_rate": None, "stages": 0, "validation_loss": 0.9, "validation_macro_f1": 0.5,
     "validation_accuracy": 0.5, "seconds": 0.0},
    {"epoch": 1, "loss": 0.81234567, "learning_rate": 0.001, "stages": 1, "validation_loss": 0.7,
     "validation_macro_f1": 0.75, "validation_accuracy": 0.8, "seconds": 2.5},
    {"epoch": 2, "loss": 0.6, "learning_rate": 0.0005, "stages": 2, "validation_loss": 0.6,
     "validation_macro_f1": 0.875, "validation_accuracy": 0.9, "seconds": 2.0},
]  # fmt: skip


def test_lines_without_a_terminal_and_a_bar_with_the_time_left_on_one() -> None:
    lines: list[str] = []
    screen = io.StringIO()
    for console in (Console(file=io.StringIO()), Console(file=screen, force_terminal=True, width=100)):
        with TrainingProgress(lines.append, console=console) as progress:
            progress.begin("teaching", steps=4, done=2)
            progress.advance(loss=0.5)
            progress.line("epoch 1/2: loss 0.5 [not markup]")
    assert lines == ["going on after step 2 of 4", "epoch 1/2: loss 0.5 [not markup]"]
    assert "epoch 1/2: loss 0.5 [not markup]" in screen.getvalue()
    assert "left" in screen.getvalue()
    assert "50 %" in screen.getvalue()  # one of the two steps of this sitting


def test_the_log_holds_every_epoch_once(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    for k in (1, 2, 3, 3):
        write_log(path, HISTORY[:k])
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert tuple(rows[0]) == COLUMNS
    assert rows[0]["loss"] == ""
    assert float(rows[1]["loss"]) == 0.812346


def test_the_bundle_keeps_figures_and_no_times() -> None:
    assert compact(HISTORY) == {
        "loss": [None, 0.8123, 0.6],
        "validation_loss": [0.9, 0.7, 0.6],
        "validation_macro_f1": [0.5, 0.75, 0.875],
    }
    assert compact([{"epoch": 1, "loss": 0.5}]) == {"loss": [0.5]}


def test_curves_are_drawn_with_and_without_a_validation_set(tmp_path: Path) -> None:
    draw_curves(tmp_path / "a.png", HISTORY, title="a", kept_epoch=2)
    draw_curves(tmp_path / "b.png", [{"epoch": 1, "loss": 0.5, "stages": 1}], title="b")
    wide, narrow = (cv2.imread(str(tmp_path / f"{name}.png")) for name in "ab")
    assert wide.shape[1] > narrow.shape[1] > 400
    draw_curves(tmp_path / "again.png", HISTORY, title="a", kept_epoch=2)
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "a.png").read_bytes()


def test_tensorboard_finds_the_figures(tmp_path: Path) -> None:
    import tensorflow as tf

    log = EventLog(tmp_path / "events")
    for row in HISTORY:
        log(row)
    found: dict[str, dict[int, float]] = {}
    for path in (tmp_path / "events").iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = float(tf.make_ndarray(value.tensor))
    assert found["validation_macro_f1"] == {0: 0.5, 1: 0.75, 2: 0.875}
    assert set(found["loss"]) == {1, 2}
