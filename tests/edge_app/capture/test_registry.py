from collections.abc import Callable
from pathlib import Path

import pytest

from edge_app.capture.registry import SCHEMES, open_crops, open_source
from edge_app.errors import UserError


def test_scheme_and_bare_directory(bare_pictures: Callable[..., Path]) -> None:
    folder = bare_pictures(3)
    for uri in (f"dir:{folder}", f"DIR:{folder}", str(folder)):
        source = open_source(uri)
        assert source.info.kind == "dir"
        assert len(list(source.frames())) == 3


def test_bare_directory_with_a_colon_in_its_name(
    bare_pictures: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bare_pictures(1, name="run:7")
    monkeypatch.chdir(folder.parent)
    assert open_source("run:7").info.kind == "dir"


@pytest.mark.parametrize("limit", [0, 1, 2, 99])
def test_frame_limit(bare_pictures: Callable[..., Path], limit: int) -> None:
    source = open_source(f"dir:{bare_pictures(3)}", frames=limit)
    assert source.info.frames_total == min(limit, 3)
    assert len(list(source.frames())) == min(limit, 3)
    source.close()


def test_frame_limit_shrinks_the_imaged_volume(flowcam_export: Callable[..., object]) -> None:
    folder = flowcam_export().folder  # type: ignore[attr-defined]
    source = open_source(f"flowcam:{folder}", frames=2)
    assert source.info.volume_imaged_ml == pytest.approx(0.02903 * 2 / 3)


@pytest.mark.parametrize("uri", ["ftp:x", "x", "", "v4l2:/dev/video0", "picamera2:0", "gige:1", "crops:x"])
def test_what_is_no_frame_source_is_told_with_what_is(uri: str) -> None:
    with pytest.raises(UserError) as caught:
        open_source(uri)
    text = str(caught.value)
    assert "\n" not in text
    assert "edge-app classify" in text or all(
        name in text for name in ("sim", "dir", "watch", "flowcam", "mfi", "video")
    )


def test_negative_limit(bare_pictures: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match="-1"):
        open_source(f"dir:{bare_pictures(1)}", frames=-1)


def test_simulation_opens_by_its_scheme() -> None:
    source = open_source("sim:?concentration=20000&seed=1", frames=1)
    assert source.info.kind == "sim"
    assert len(list(source.frames())) == 1


def test_crops_by_scheme_and_bare_directory(bare_pictures: Callable[..., Path]) -> None:
    folder = bare_pictures(3)
    for uri in (f"crops:{folder}", str(folder)):
        assert [c.path_below for c in open_crops(uri).crops()] == ["frame_0.png", "frame_1.png", "frame_2.png"]
    with pytest.raises(UserError, match="crops:PATH"):
        open_crops(f"dir:{folder}")


def test_every_scheme_is_described() -> None:
    assert set(SCHEMES) == {"sim", "dir", "watch", "flowcam", "mfi", "video", "crops"}
