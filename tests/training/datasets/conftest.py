import os
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

Picture = npt.NDArray[np.uint8]


def particle(seed: int, *, side: int = 24, level: float = 205.0, noise: float = 0.01) -> Picture:
    """A lump of random shape on a noisy background, a picture that no other seed gives."""
    rng = np.random.default_rng(seed)
    field = cv2.GaussianBlur(rng.standard_normal((side, side)).astype(np.float32), (0, 0), 0.13 * side)
    y, x = np.mgrid[0:side, 0:side] - (side - 1) / 2
    inside = np.hypot(x, y) < 0.33 * side * (1 + 0.5 * field / abs(field).max())
    dark = cv2.GaussianBlur(inside.astype(np.float32) * (0.5 + field), (0, 0), 0.8)
    picture = level * (1 - 0.4 * dark + noise * rng.standard_normal(dark.shape))
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


class Lab:
    """A lab's folder of pictures, two classes in three runs unless said otherwise."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = root / "data"
        self.groups = root / "groups.csv"

    def fill(self, counts: dict[str, int] | None = None, *, runs: int = 3, side: int = 24) -> "Lab":
        rows = []
        for c, (name, count) in enumerate((counts or {"oil": 9, "rest": 9}).items()):
            (self.data / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                self.write(f"{name}/{i}.png", particle(1000 * c + i, side=side))
                rows.append(f"{name}/{i}.png,run{i % runs}")
        return self.table(rows)

    def write(self, name: str, picture: npt.NDArray[np.generic]) -> Path:
        path = self.data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), picture)
        return path

    def table(self, rows: Sequence[str], *, header: str = "file,group") -> "Lab":
        self.groups.write_text("\n".join([header, *rows]) + "\n")
        return self


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture
def draw() -> Callable[..., Picture]:
    return particle


@pytest.fixture(scope="session")
def real_data() -> Path:
    path = Path(os.environ.get("EDGE_APP_REAL_DATA", Path(__file__).parents[3].parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"real data not found at {path} (EDGE_APP_REAL_DATA)")
    return path
