"""The reader on real exports: the instrument's own numbers are the check."""

from pathlib import Path

import numpy as np
import pytest

from edge_app.capture.flowcam.source import FlowCamSource, open_flowcam


@pytest.fixture(params=["run1", "run2", "run3"])
def source(request: pytest.FixtureRequest, real_data: Path) -> FlowCamSource:
    return open_flowcam(f"flowcam:{real_data / 'flowcam' / request.param}")


def test_facts_of_the_run(source: FlowCamSource) -> None:
    info = source.info
    assert (info.width_px, info.height_px) == (1292, 964)
    assert info.um_per_px == pytest.approx(0.5544)
    assert info.depth_um == 100.0
    assert info.flow_rate_ul_per_min == pytest.approx(150.0)
    assert info.thresholds == (20, 20)
    assert info.frames_total == info.details["images_used"]
    assert info.volume_imaged_ml is not None
    # The summary's own concentration is particles over this volume.
    per_ml = info.details["particles_per_ml"]
    assert isinstance(per_ml, float)
    assert len(source.table) / info.volume_imaged_ml == pytest.approx(per_ml, rel=0.001)
    # README of the data: crops are 1.5 to 2.9 levels brighter than the background.
    offset = info.details["grey_offset"]
    assert isinstance(offset, float)
    assert 1.5 <= offset <= 2.9


def test_volume_from_the_settings_agrees_with_the_summary(real_data: Path, tmp_path: Path) -> None:
    for run in ("run1", "run2", "run3"):
        folder = tmp_path / run
        folder.mkdir()
        for path in (real_data / "flowcam" / run).iterdir():
            if "summary" not in path.name:
                (folder / path.name).symlink_to(path)
        whole = open_flowcam(f"flowcam:{real_data / 'flowcam' / run}").info.volume_imaged_ml
        assert open_flowcam(f"flowcam:{folder}").info.volume_imaged_ml == pytest.approx(whole, rel=5e-4)


def test_frames_and_masks(source: FlowCamSource) -> None:
    background = source.info.background
    assert background is not None
    particles = dark_in_mask = dark = 0
    last = -1
    last_time = 0.0
    residuals = []
    for frame in source.frames():
        assert frame.sequence > last
        assert frame.time_s >= last_time
        last, last_time = frame.sequence, frame.time_s
        assert frame.companion is not None
        columns = frame.companion.columns
        emptied = frame.image.copy()
        for i, row in enumerate(columns["row"]):
            x, y, w, h = (int(columns[k][i]) for k in ("src_x", "src_y", "image_w", "image_h"))
            emptied[y : y + h, x : x + w] = background[y : y + h, x : x + w]
            mask = source.mask(int(row))
            assert mask is not None
            assert mask.shape == (h, w)
            assert mask.sum() == columns["raw_area"][i]
            difference = frame.image[y : y + h, x : x + w].astype(int) - background[y : y + h, x : x + w]
            far_darker = difference < -30
            dark += int(far_darker.sum())
            dark_in_mask += int((far_darker & mask).sum())
            residuals += [difference[0], difference[-1]]
            particles += 1
        assert np.array_equal(emptied, background)
    assert particles == len(source.table) == 1000
    assert not source.problems
    # In place to the pixel: what is clearly darker than the background is in the instrument's mask.
    assert dark_in_mask / dark > 0.99
    # Level with the background: the crops' upper and lower rows are not brighter or darker than it.
    assert abs(float(np.median(np.concatenate(residuals)))) <= 0.5
