"""`edge-app classify` on pictures of every kind."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest


def disc(side: int, *, level: int = 211, depth: int = 90) -> np.ndarray:
    image = np.full((side, side), level, np.uint8)
    cv2.circle(image, (side // 2, side // 2), max(1, side // 3), level - depth, -1, cv2.LINE_AA)
    return image


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_all_sizes_depths_and_folders(app, tmp_path: Path) -> None:
    (tmp_path / "in/a/b").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "in/tiny.png"), disc(5))
    cv2.imwrite(str(tmp_path / "in/a/tall.png"), cv2.resize(disc(60), (7, 60)))
    cv2.imwrite(str(tmp_path / "in/a/sixteen.tif"), disc(20).astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "in/a/b/colour.bmp"), cv2.cvtColor(disc(31), cv2.COLOR_GRAY2BGR))
    cv2.imwrite(str(tmp_path / "in/a/b/large.jpg"), disc(300))
    table = tmp_path / "out.csv"
    app("classify", f"crops:{tmp_path / 'in'}", "--csv", table)
    found = rows(table)
    assert {row["file"] for row in found} == {
        "tiny.png", "a/tall.png", "a/sixteen.tif", "a/b/colour.bmp", "a/b/large.jpg",
    }  # fmt: skip
    classes = [key[2:] for key in found[0] if key.startswith("p_")]
    assert list(found[0])[:3] == ["file", "class", "confidence"]
    for row in found:
        assert row["class"] in {*classes, "unknown"}
        assert sum(float(row[f"p_{name}"]) for name in classes) == pytest.approx(1, abs=1e-4)
        assert 0 <= float(row["confidence"]) <= 1


def test_broken_pictures_are_named_and_skipped(app, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in/good.png"), disc(20))
    cv2.imwrite(str(tmp_path / "in/small.png"), disc(5)[:3, :3])
    (tmp_path / "in/broken.png").write_bytes((tmp_path / "in/good.png").read_bytes()[:60])
    done = app("classify", f"crops:{tmp_path / 'in'}", "--csv", tmp_path / "o.csv")
    assert [row["file"] for row in rows(tmp_path / "o.csv")] == ["good.png"]
    assert "broken.png" in done.stderr
    assert "small.png" in done.stderr


def test_brightness_of_a_run_does_not_tell_the_class(app, tmp_path: Path) -> None:
    """The same particles under another lamp get the same classes."""
    rng = np.random.default_rng(0)
    for run, gain in (("bright", 1.0), ("dim", 0.8)):
        (tmp_path / "in" / run).mkdir(parents=True)
        for i in range(30):
            picture = disc(9 + i).astype(np.float32) * gain + rng.normal(0, 1.0, (9 + i, 9 + i))
            cv2.imwrite(str(tmp_path / f"in/{run}/{i:02d}.png"), np.clip(picture, 0, 255).astype(np.uint8))
    app("classify", f"crops:{tmp_path / 'in'}", "--csv", tmp_path / "o.csv")
    by_run: dict[str, list[str]] = {"bright": [], "dim": []}
    for row in rows(tmp_path / "o.csv"):
        by_run[row["file"].split("/")[0]].append(row["class"])
    same = np.mean([a == b for a, b in zip(by_run["bright"], by_run["dim"], strict=True)])
    assert same >= 0.8


@pytest.mark.parametrize("source", ["crops:/nowhere", "dir:/nowhere"])
def test_source_that_cannot_be_opened(app, tmp_path: Path, source: str) -> None:
    done = app("classify", source, "--csv", tmp_path / "o.csv", code=2)
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "o.csv").exists()


def test_dark_background_is_told_of(app, tmp_path: Path) -> None:
    for folder, invert in (("field", False), ("dark", True)):
        (tmp_path / "in" / folder).mkdir(parents=True)
        for i in range(4):
            picture = disc(20 + i, level=250, depth=180)
            cv2.imwrite(str(tmp_path / "in" / folder / f"{i}.png"), 255 - picture if invert else picture)
    done = app("classify", f"crops:{tmp_path / 'in'}", "--csv", tmp_path / "out.csv")
    told = [line for line in done.stderr.splitlines() if "dark background" in line]
    assert len(told) == 1
    assert "the pictures in dark have a dark background (grey level 5 of 255" in told[0]
    assert len(rows(tmp_path / "out.csv")) == 8
