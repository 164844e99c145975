"""What a listener knows, and how it is drawn."""

import json

import numpy as np
import pytest
from publishing_device import CLASSES, STARTED, provenance, window
from rich.console import Console

from edge_app.classification.palette import CLASS_COLOURS
from edge_app.measurement.histogram import Histogram
from edge_app.messaging.board import Board
from edge_app.messaging.live_view import plain_line, render
from edge_app.messaging.messages import (
    Event,
    Info,
    Message,
    Run,
    Stats,
    Status,
    histogram_message,
    summary_message,
    total_message,
    utc_text,
)
from edge_app.messaging.topics import Topics

RUN = "20261121t074500z-0001"


class Talker:
    """Says a device's messages to a board."""

    def __init__(self, board: Board, *, device: str = "mfi-3", boot_id: str = "b") -> None:
        self.board = board
        self.topics = Topics(site="basel", device=device)
        self.provenance = provenance(boot_id)
        self.boot_id = boot_id

    def say(self, kind: str, message: Message) -> bool:
        return self.board.take(self.topics.of(kind), message.payload().encode())

    def status(self, state: str, *, boot_id: str | None = None) -> bool:
        return self.say("status", Status(state=state, boot_id=boot_id or self.boot_id, since="", run_id=RUN))

    def windows(self, n: int) -> None:
        total = None
        for seq in range(n):
            one = window(seq, run_id=RUN, particles=600)
            total = one if total is None else total + one
            self.say("histogram", histogram_message(one, provenance=self.provenance, started=STARTED))
            self.say("total", total_message(total, provenance=self.provenance, started=STARTED))

    def everything(self) -> "Talker":
        self.say(
            "info",
            Info(
                site="basel",
                device=self.topics.device,
                boot_id=self.boot_id,
                app_version="1",
                model={"name": "net", "version": "3"},
                calibration={"id": "nominal-1.33um", "calibrated": False},
                backend="litert",
            ),
        )
        self.status("running")
        self.say(
            "run",
            Run(
                device="d",
                boot_id=self.boot_id,
                run_id=RUN,
                started=utc_text(),
                source="sim:?seed=1",
                sample_id="mAb-17",
            ),
        )
        self.windows(20)
        self.say(
            "stats", Stats(device="d", boot_id=self.boot_id, frames_per_s_out=14.0, particles_per_s=600, waiting=2)
        )
        for i, severity in enumerate(("info", "warning")):
            self.say(
                "event",
                Event(
                    device="d", boot_id=self.boot_id, id=str(i), severity=severity, code="c", text=f"event number {i}"
                ),
            )
        return self


def draw(board: Board, *, width: int = 120, height: int = 40, now: float | None = None) -> list[str]:
    console = Console(width=width, height=height, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(
            render(board.devices(), width=width, height=height, heading="mqtt://127.0.0.1:1883", now=now),
            soft_wrap=False,
        )
    return capture.get().rstrip("\n").split("\n")


def test_total_is_preferred_and_copies_count_once():
    board = Board()
    talker = Talker(board)
    talker.windows(5)
    again = histogram_message(window(4, run_id=RUN, particles=600), provenance=talker.provenance)
    assert not talker.say("histogram", again)
    assert not talker.say("total", total_message(window(4, run_id=RUN), provenance=talker.provenance))
    [device] = board.devices()
    assert device.windows_seen == 5
    assert device.total["last_seq"] == 4
    assert device.window["seq"] == 4
    assert device.particles_per_s == pytest.approx(device.window["n"])


def test_listener_that_comes_late_knows_the_whole_run_from_the_total():
    board = Board()
    total = window(0) + window(1) + window(2)
    Talker(board).say("total", total_message(total, provenance=provenance("b")))
    [device] = board.devices()
    assert device.total["n"] == total.particles
    assert str(device.total["n"]) in "\n".join(draw(board))


def test_lost_of_an_earlier_start_is_old_news():
    board = Board()
    talker = Talker(board)
    talker.status("running")
    assert not talker.status("lost", boot_id="yesterday")
    assert board.devices()[0].state == "running"
    assert talker.status("lost")
    assert board.devices()[0].state == "lost"
    assert talker.status("init", boot_id="tomorrow")
    assert board.devices()[0].state == "init"


def test_replayed_leftovers_do_not_hide_the_run_in_progress():
    board = Board()
    talker = Talker(board)
    talker.windows(3)
    old = window(9, run_id="20261120t000000z-0001")
    late = {"replayed": True}
    assert not talker.say("total", total_message(old, provenance=talker.provenance).model_copy(update=late))
    assert not talker.say("histogram", histogram_message(old, provenance=talker.provenance).model_copy(update=late))
    assert board.devices()[0].run_id == RUN
    new = window(0, run_id="20261122t000000z-0001")
    assert talker.say("total", total_message(new, provenance=talker.provenance))
    assert board.devices()[0].run_id == new.run_id


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        ("mfi/1/basel/mfi-3/status", b"\xff\xfe"),
        ("mfi/1/basel/mfi-3/status", b"[]"),
        ("mfi/1/basel/mfi-3/status", b"{}"),
        ("mfi/1/basel/mfi-3/status", b'{"schema":"mfi.status/1"}'),
        ("mfi/1/basel/mfi-3/histogram", b'{"schema":"mfi.histogram/1","run_id":"x","seq":"y"}'),
        ("mfi/1/basel/mfi-3/other", b"{}"),
        ("homeassistant/x", b"{}"),
    ],
)
def test_what_is_not_a_message_is_passed_over(topic, payload):
    board = Board()
    assert not board.take(topic, payload)
    draw(board)


def test_board_shows_what_was_asked_for():
    board = Board(site="basel", device="mfi-4")
    assert not Talker(board, device="mfi-3").status("running")
    assert Talker(board, device="mfi-4").status("running")
    assert [d.name for d in board.devices()] == ["basel/mfi-4"]


@pytest.mark.parametrize("width", [20, 30, 40, 60, 80, 100, 120, 200])
@pytest.mark.parametrize("height", [5, 10, 16, 24, 40, 80])
@pytest.mark.parametrize("devices", [0, 1, 3])
def test_picture_fits_any_terminal(width, height, devices):
    board = Board()
    for i in range(devices):
        Talker(board, device=f"mfi-{i}").everything()
    lines = draw(board, width=width, height=height)
    assert max(len(line) for line in lines) <= width
    # Below ten lines the terminal cuts; from there on everything shown is seen.
    if height >= 10:
        assert len(lines) <= height, "\n".join(lines)
    if devices and height >= 10 and width >= 40:
        assert any("≥ 10 µm" in line for line in lines)


def test_picture_says_the_numbers_with_their_units():
    board = Board()
    Talker(board).everything()
    [device] = board.devices()
    text = "\n".join(draw(board, now=device.seen_at))
    for words in (
        "● running  basel/mfi-3",
        RUN,
        "mAb-17",
        "calibration cal-beads EXPIRED, 12 days old",
        "particles per mL",
        "≥ 2 µm",
        "≥ 70 µm",
        f"{device.total['per_ml']['all']['10']:,.0f}",
        f"{device.total['per_ml']['glass']['2']:,.0f}",
        f"{device.total['n']:,} particles in 62 µL, 260 frames",
        "20 lost",
        "not counted: border",
        "window   #19  19.0–20.0 s",
        "14.0 frames/s",
        "2 messages waiting",
        "event number 1",
        "µm",
    ):
        assert words in text, words
    assert "silent" not in text
    assert "silent for 60 s" in "\n".join(draw(board, now=device.seen_at + 60))


def test_chart_has_a_column_for_each_bin_with_particles():
    board = Board()
    one = window(0, run_id=RUN)
    histogram = Histogram.of(np.array([0, 2]), np.array([5.5, 51.0]), np.ones(2), classes=CLASSES)
    total = type(one)(**{**one.__dict__, "histogram": histogram})
    Talker(board).say("total", total_message(total, provenance=provenance("b")))
    lines = draw(board)
    base = next(i for i, line in enumerate(lines) if "└" in line)
    chart = lines[base - 1]
    edges = {lines[base + 1].index(" 5 ") + 1, lines[base + 1].index(" 50 ") + 1}
    starts = {i for i in range(8, len(chart)) if chart[i] in "▁▂▃▄▅▆▇█" and chart[i - 1] not in "▁▂▃▄▅▆▇█"}
    assert starts == edges


def test_colours_tell_the_classes_apart():
    board = Board()
    Talker(board).everything()
    console = Console(width=120, height=40, force_terminal=True, color_system="truecolor")
    with console.capture() as capture:
        console.print(render(board.devices(), width=120, height=40))
    text = capture.get()
    for name in CLASSES:
        rgb = ";".join(str(int(CLASS_COLOURS[name][i : i + 2], 16)) for i in (1, 3, 5))
        assert f"38;2;{rgb}" in text
    assert "\x1b[1;31mcal-beads EXPIRED" in text


def test_a_new_run_is_not_shown_with_the_calibration_of_the_last_one():
    board = Board()
    talker = Talker(board)
    talker.windows(2)
    device = board.devices()[0]
    assert "cal-beads valid, 12 days old" in "\n".join(draw(board, now=device.seen_at))
    talker.say("status", Status(state="running", boot_id="b", since="", run_id="another", calibration="nominal-1.33um"))
    assert "nominal-1.33um NOT CALIBRATED with beads" in "\n".join(draw(board, now=device.seen_at))


def test_lines_for_a_log():
    board = Board()
    talker = Talker(board)
    talker.everything()
    talker.say(
        "summary", summary_message(window(0), provenance=talker.provenance, started=STARTED, ended=STARTED, windows=1)
    )
    [device] = board.devices()

    def line(kind: str) -> str | None:
        return plain_line(talker.topics.of(kind), b"", device)

    assert line("status") == "basel/mfi-3 running; calibration cal-beads EXPIRED, 12 days old"
    assert line("histogram").startswith(f"basel/mfi-3 run {RUN} window 19: ")
    assert line("event") == "basel/mfi-3 warning: event number 1"
    assert "ended" in line("summary")
    assert line("stats") is None
    assert line("total") is None
    assert json.loads(json.dumps(device.total))["scope"] == "total"
