"""An object that sticks in mid-run is out of the count, its first images included."""

from pathlib import Path

import pytest


def test_first_images_of_a_stuck_object_are_taken_back(app, tmp_path: Path) -> None:
    scene = "sim:?concentration=0&frames=60&seed=11&stuck_count=6&stuck_from_frame=20"
    result = app.json("run", scene, "--out", tmp_path / "r", "--mqtt", "off")
    assert result["stuck_objects"] == 6
    assert result["stuck_counted_before_found"] == 0
    assert result["particles"] == 0
    # Four images each: then it is known, and taken into the background.
    assert result["rejected"]["stuck"] == 4 * 6


def test_moving_particles_are_counted_all_the_same(app, tmp_path: Path) -> None:
    scene = "sim:?concentration=60000&frames=60&seed=12"
    clean = app.json("run", f"{scene}&stuck_count=0", "--out", tmp_path / "a", "--mqtt", "off")
    dirty = app.json("run", f"{scene}&stuck_count=8&stuck_from_frame=20", "--out", tmp_path / "b", "--mqtt", "off")
    assert dirty["rejected"]["stuck"] > 0
    assert dirty["per_ml"]["2"] == pytest.approx(clean["per_ml"]["2"], rel=0.02)
