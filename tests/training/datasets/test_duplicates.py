from collections.abc import Callable, Sequence

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import dctn

from training.datasets.duplicates import RASTER_PX, Duplicates, find_duplicates, perceptual_hash

Picture = np.ndarray
Draw = Callable[..., Picture]


def search(pictures: Sequence[Picture], *, group: Sequence[str] | None = None) -> Duplicates:
    n = len(pictures)
    return find_duplicates(
        pictures,
        files=[f"{i}.png" for i in range(n)],
        group=np.array(group if group is not None else [f"run{i % 2}" for i in range(n)]),
        label=np.arange(n) % 2,
        classes=("a", "b"),
    )


def pairs(found: Duplicates) -> set[tuple[int, int]]:
    return {(p.first, p.second) for p in found.pairs}


def jpeg(picture: Picture) -> Picture:
    return cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1], cv2.IMREAD_GRAYSCALE)


def smaller(picture: Picture) -> Picture:
    return cv2.resize(picture, None, fx=0.9, fy=0.9, interpolation=cv2.INTER_AREA)


def brighter(picture: Picture) -> Picture:
    return np.clip(np.rint(0.85 * picture.astype(float) + 20), 0, 255).astype(np.uint8)


def noisier(picture: Picture) -> Picture:
    noise = np.random.default_rng(5).normal(0, 1, picture.shape)
    return np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("change", [np.copy, smaller, brighter, noisier], ids=lambda f: f.__name__)
@pytest.mark.parametrize("turns", [0, 1, 3])
@pytest.mark.parametrize("mirrored", [False, True])
def test_copies_are_found_and_nothing_else(draw: Draw, change: Callable, turns: int, mirrored: bool) -> None:
    pictures = [draw(i, side=18 + i % 12) for i in range(40)]
    copies = []
    for picture in pictures[:20]:
        copy = np.rot90(change(picture), turns)
        copies.append(np.ascontiguousarray(copy[:, ::-1] if mirrored else copy))
    assert pairs(search(pictures + copies)) == {(i, 40 + i) for i in range(20)}


def test_most_compressed_copies_are_found(draw: Draw) -> None:
    pictures = [draw(i, side=18 + i % 24) for i in range(60)]
    found = pairs(search(pictures + [jpeg(p) for p in pictures]))
    assert found <= {(i, 60 + i) for i in range(60)}
    assert len(found) >= 48


def test_two_exposures_of_round_droplets_of_one_size_are_no_copies() -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:15, 0:15] - 7.0
    ring = 1 - 0.5 * np.exp(-(((np.hypot(x, y) - 4.5) / 1.5) ** 2))
    droplets = [
        np.clip(np.rint(205 * ring * (1 + 0.01 * rng.standard_normal(ring.shape))), 0, 255).astype(np.uint8)
        for _ in range(60)
    ]
    assert len(search(droplets)) == 0
    assert pairs(search([*droplets, np.ascontiguousarray(droplets[7].T)])) == {(7, 60)}


def test_black_discs_cut_off_centre_are_no_copies() -> None:
    y, x = np.mgrid[0:20, 0:20].astype(float)
    rng = np.random.default_rng(1)
    discs = []
    for _ in range(30):
        away = np.hypot(x - 9 - rng.uniform(-1, 1), y - 10 - rng.uniform(-1, 1))
        picture = 200 * np.clip((away - rng.uniform(6.3, 6.8)) / 2, 0, 1) * (1 + 0.006 * rng.standard_normal(x.shape))
        discs.append(np.clip(np.rint(picture), 0, 255).astype(np.uint8))
    assert len(search(discs)) == 0


def test_flat_pictures_are_copies_only_if_their_pixels_are_the_same() -> None:
    flat = [np.full((9, 9), v, np.uint8) for v in (200, 201, 200)] + [np.full((9, 10), 200, np.uint8)]
    found = search(flat)
    assert pairs(found) == {(0, 2)}
    assert found.pairs[0].identical


def test_the_order_of_the_pictures_does_not_matter(draw: Draw) -> None:
    pictures = [draw(i, side=16 + i % 5) for i in range(30)]
    pictures += [np.ascontiguousarray(np.rot90(pictures[i])) for i in range(10)]
    order = np.random.default_rng(3).permutation(len(pictures))
    again = search([pictures[i] for i in order])
    assert {tuple(sorted((int(order[a]), int(order[b])))) for a, b in pairs(again)} == pairs(search(pictures))


def test_pairs_are_counted_where_they_do_harm(draw: Draw) -> None:
    a, b, c = (draw(i) for i in range(3))
    found = search([a, b, c, a, b, c], group=["r0", "r1", "r2", "r0", "r2", "r2"])
    assert [(p.first, p.second) for p in found.across_groups()] == [(1, 4)]
    side = np.array([True, True, False, False, False, False])
    assert found.record(side) == {"pairs": 3, "across_groups": 1, "across_classes": 3, "across_split": 2}
    assert found.describe(found.pairs[1]) == "1.png (group r1) = 4.png (group r2), the same pixels"
    assert found.as_json()[1]["second"] == {"file": "4.png", "group": "r2", "class": "a"}


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), height=st.integers(5, 60), width=st.integers(5, 60))
def test_the_hash_is_the_signs_of_the_cosine_transform(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    picture = cv2.GaussianBlur(rng.integers(0, 256, (height, width)).astype(np.uint8), (0, 0), 1.0)
    method = cv2.INTER_AREA if min(height, width) >= RASTER_PX else cv2.INTER_LINEAR
    raster = cv2.resize(picture, (RASTER_PX, RASTER_PX), interpolation=method)
    expected = dctn(raster.astype(float), norm="ortho")[:8, :8].ravel()[1:]
    bits = [bool(perceptual_hash(picture) >> (62 - k) & 1) for k in range(63)]
    clear = abs(expected) > 1e-3
    assert np.array_equal(np.array(bits)[clear], (expected > 0)[clear])


def test_thousands_of_pictures_take_seconds(draw: Draw) -> None:
    import time

    pictures = [draw(i, side=8 + i % 40) for i in range(4000)]
    pictures += [brighter(p) for p in pictures[:200]]
    start = time.process_time()
    found = search(pictures)
    assert time.process_time() - start < 10
    assert pairs(found) == {(i, 4000 + i) for i in range(200)}


def test_no_copies_among_real_particles_and_all_that_were_made_are_found(real_data) -> None:
    from training.datasets.sources import open_dataset

    runs = open_dataset(f"flowcam:{real_data / 'flowcam'}?classes=Junk,Protist")
    some = runs.take(np.arange(0, len(runs), 4))
    turned = [np.ascontiguousarray(np.rot90(brighter(p))) for p in some.pictures[:300]]
    n = len(some)
    assert pairs(search(some.pictures + turned)) == {(i, n + i) for i in range(300)}
