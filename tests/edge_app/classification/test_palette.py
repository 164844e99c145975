"""Colours that nobody takes for one another."""

from itertools import combinations

import numpy as np
import pytest

from edge_app.classification.palette import CLASS_COLOURS, class_colours

# Machado, Oliveira, Fernandes (2009), severity 1, on linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": np.array([
        [0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998],
    ]),
    "deuteranopia": np.array([
        [0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881],
    ]),
    "tritanopia": np.array([
        [1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900],
    ]),
}  # fmt: skip
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour: str) -> np.ndarray:
    value = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    x = TO_XYZ @ np.clip(rgb, 0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("sight", SIGHT)
def test_every_two_classes_stay_apart(sight: str) -> None:
    seen = {name: lab(SIGHT[sight] @ linear(colour)) for name, colour in CLASS_COLOURS.items()}
    distances = {pair: float(np.linalg.norm(seen[pair[0]] - seen[pair[1]])) for pair in combinations(seen, 2)}
    # A difference of 2.3 is just noticed side by side; a legend needs several times that.
    assert min(distances.values()) > 13, min(distances, key=distances.__getitem__)


@pytest.mark.parametrize("colour", CLASS_COLOURS.values())
def test_each_stands_out_from_paper_and_terminal(colour: str) -> None:
    luminance = float(TO_XYZ[1] @ linear(colour))
    assert (1.0 + 0.05) / (luminance + 0.05) > 2.0
    assert (luminance + 0.05) / 0.05 > 2.0


def test_known_classes_keep_their_colour_among_any_others() -> None:
    found = class_colours(("pollen", "glass", "yeast", "unknown"))
    assert found["glass"] == CLASS_COLOURS["glass"]
    assert len(set(found.values())) == 4
