"""Pictures with known particles."""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from edge_app.capture.frame import Frame

U8 = npt.NDArray[np.uint8]


@pytest.fixture
def make_frame() -> Callable[..., Frame]:
    """Frame of a shaded, noisy field with discs ``(x, y, radius, ratio)``."""

    def make(
        discs: list[tuple[float, float, float, float]],
        *,
        shape: tuple[int, int] = (384, 512),
        level: float = 200.0,
        noise: float = 1.5,
        seed: int = 0,
        gain: float = 1.0,
        blur: float = 1.0,
        sequence: int = 0,
    ) -> Frame:
        height, width = shape
        y, x = np.mgrid[:height, :width].astype(np.float32)
        shade = 1.0 - 0.15 * ((x / width - 0.5) ** 2 + (y / height - 0.5) ** 2)
        light = np.ones(shape, np.float32)
        for cx, cy, radius, ratio in discs:
            cv2.circle(light, (round(cx * 16), round(cy * 16)), round(radius * 16), ratio, cv2.FILLED, shift=4)
        if blur:
            light = cv2.GaussianBlur(light, (0, 0), blur)
        rng = np.random.default_rng(seed + 1000 * sequence)
        picture = level * gain * shade * light + rng.normal(0.0, noise, shape)
        image = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
        return Frame(image=image, sequence=sequence, time_s=sequence / 10.0)

    return make


@pytest.fixture
def scatter() -> Callable[..., list[tuple[float, float, float, float]]]:
    """Places for discs that do not come near each other or the border."""

    def place(
        count: int, *, seed: int, shape: tuple[int, int] = (384, 512), radius: float = 5.0, ratio: float = 0.5
    ) -> list[tuple[float, float, float, float]]:
        rng = np.random.default_rng(seed)
        pitch = int(4 * radius + 8)
        cells = [(x, y) for y in range(pitch, shape[0] - pitch, pitch) for x in range(pitch, shape[1] - pitch, pitch)]
        chosen = rng.choice(len(cells), size=count, replace=False)
        jitter = rng.uniform(-2, 2, (count, 2))
        return [(cells[c][0] + j[0], cells[c][1] + j[1], radius, ratio) for c, j in zip(chosen, jitter, strict=True)]

    return place
