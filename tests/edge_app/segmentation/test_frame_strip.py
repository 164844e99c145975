"""A few frames stand for the run, however long it is."""

import numpy as np
import pytest

from edge_app.capture.frame import Frame
from edge_app.segmentation.background import Background
from edge_app.segmentation.frame_strip import FrameStrip


def strip_of(frames: int) -> FrameStrip:
    strip, background = FrameStrip(), Background()
    for i in range(frames):
        image = np.full((100, 800), i % 256, np.uint8)
        if i == 1:
            background.start(image)
        strip.look(Frame(image=image, sequence=i, time_s=0.1 * i), reason=None, background=background)
    return strip


@pytest.mark.parametrize("frames", [1, 3, 4, 5, 17, 100, 333, 1000])
def test_moments_are_spread_over_the_run(frames: int) -> None:
    moments = strip_of(frames).moments()
    assert len(moments) == min(frames, 4)
    places = [m.sequence for m in moments]
    assert places[0] == 0
    assert places == sorted(set(places))
    assert frames - 1 - places[-1] <= frames / 6
    if frames >= 100:
        gaps = np.diff(places)
        assert gaps.max() <= 1.5 * gaps.min()


def test_pictures_are_reduced_copies_and_name_the_background_of_their_time() -> None:
    first, second = strip_of(2).moments()
    assert first.frame.shape == (50, 400)
    assert first.background is None
    assert second.background is not None
    assert int(second.frame.mean()) == 1


def test_memory_stays_flat() -> None:
    strip = strip_of(2000)
    assert len(strip._kept) <= 16
