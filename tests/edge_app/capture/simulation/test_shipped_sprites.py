"""The default scene and the shipped sprites belong together."""

import numpy as np

from edge_app.capture.registry import open_source
from edge_app.capture.simulation.scene import DEFAULT_MIX

UNKNOWN_ONLY = ("rubber", "starch", "crystal", "yeast")


def test_default_scene_shows_every_class_on_a_clean_bright_field() -> None:
    source = open_source("sim:", frames=40)
    assert source.info.um_per_px == 1.33
    seen: set[str] = set()
    counts = []
    for frame in source.frames():
        assert frame.truth is not None
        seen.update(frame.truth.family.tolist())
        counts.append(len(frame.truth.ecd_um))
        assert (frame.truth.ecd_um >= 2).all()
        assert frame.truth.stuck.sum() == 2
        assert 200 < np.median(frame.image) < 210
        # Some of the particles are plainly there, and most of the field is plainly empty.
        dark = (frame.image < 185).mean()
        assert 1e-5 < dark < 0.03
    assert seen == set(DEFAULT_MIX)
    # 60,000/mL x 0.232 uL, those cut by the border and two stuck ones on top.
    assert 12 < np.mean(counts) < 22


def test_families_that_are_never_trained_on_can_be_mixed_in() -> None:
    mix = ",".join(f"{name}:1" for name in UNKNOWN_ONLY)
    source = open_source(f"sim:?mix={mix}&concentration=400000&frames=4&stuck=0")
    seen = set(np.concatenate([f.truth.family for f in source.frames() if f.truth is not None]).tolist())
    assert seen == set(UNKNOWN_ONLY)


def test_frames_repeat_byte_for_byte_with_the_shipped_sprites() -> None:
    first = [f.image for f in open_source("sim:?frames=5&seed=11").frames()]
    again = [f.image for f in open_source("sim:?frames=5&seed=11").frames()]
    np.testing.assert_array_equal(np.stack(first), np.stack(again))
