import numpy as np
import pytest

from edge_app.segmentation.background import Background, spatial_background
from edge_app.segmentation.ratio import frame_gain, noise_codes, ratio_picture
from edge_app.segmentation.settings import BackgroundSettings


def field(shape: tuple[int, int] = (256, 320), level: float = 200.0) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    return level * (1.0 - 0.2 * ((x / shape[1] - 0.4) ** 2 + (y / shape[0] - 0.5) ** 2))


def noisy(picture: np.ndarray, seed: int, sigma: float = 2.0) -> np.ndarray:
    return np.clip(np.rint(picture + np.random.default_rng(seed).normal(0, sigma, picture.shape)), 0, 255).astype(
        np.uint8
    )


def test_one_frame_is_enough_for_a_slow_background() -> None:
    image = noisy(field(), 0)
    image[100:115, 60:75] = 40
    background = spatial_background(image, window_px=168)
    error = np.abs(background.astype(float) - field())
    assert error.mean() < 1.0
    assert error[95:120, 55:80].max() < 4.0, "a particle must leave no dent"


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (40, 40), (127, 129), (1024, 17)])
def test_any_frame_size(shape: tuple[int, int]) -> None:
    image = np.full(shape, 150, np.uint8)
    assert (spatial_background(image, window_px=168) == 150).all()
    b = Background()
    b.prime([image, image])
    assert (b.ratio(image) == 160).all()


@pytest.mark.parametrize("frames", [2, 3, 4, 5, 9])
def test_prime_leaves_moving_particles_out(frames: int) -> None:
    images = []
    for i in range(frames):
        picture = field()
        picture[50:70, 30 + 35 * i : 60 + 35 * i] *= 0.2
        images.append(noisy(picture, i))
    b = Background()
    b.prime(images)
    error = np.abs(b.picture.astype(float) - field())
    assert np.percentile(error, 99.9) < 9.0
    assert error[50:70, 30:90].mean() < 3.0


def test_prime_keeps_dirt() -> None:
    images = []
    for i in range(7):
        picture = field()
        picture[80:90, 100:110] *= 0.85
        images.append(noisy(picture, i))
    b = Background()
    b.prime(images)
    assert b.picture[80:90, 100:110].mean() == pytest.approx(field()[80:90, 100:110].mean() * 0.85, abs=1.5)


def test_masked_pixels_are_never_absorbed_and_free_ones_follow() -> None:
    b = Background()
    b.start(noisy(field(), 0, 0.0))
    start = b.picture.copy()
    image = start.copy()
    image[40:60, 40:60] = 60  # a particle that stays
    image[100:200, 100:200] = np.clip(image[100:200, 100:200].astype(int) - 12, 0, 255)  # shading that changes
    mask = np.zeros(image.shape, np.uint8)
    mask[38:62, 38:62] = 1
    for _ in range(400):
        b.update(image, particles=mask)
    assert np.array_equal(b.picture[38:62, 38:62], start[38:62, 38:62])
    assert np.abs(b.picture[100:200, 100:200].astype(int) - image[100:200, 100:200]).max() <= 1


def test_rolling_median_adds_little_noise() -> None:
    b = Background()
    b.prime([noisy(field(), i) for i in range(9)])
    for i in range(9, 200):
        b.update(noisy(field(), i))
    error = b.picture.astype(float) - field()
    assert error.std() < 0.9, "less than half of a frame's own noise of 2 levels"
    assert abs(error.mean()) < 0.2


def test_heal_takes_the_frame() -> None:
    b = Background()
    b.start(np.full((64, 64), 200, np.uint8))
    image = np.full((64, 64), 180, np.uint8)
    b.heal(image, np.array([5 * 64 + 5]), gain=0.9)
    assert b.picture[5, 5] == 200
    image[6, 6] = 90
    b.heal(image, np.array([6 * 64 + 6]), gain=0.9)
    assert b.picture[6, 6] == 100


def test_dark_dirt_is_blind_not_noisy() -> None:
    picture = field()
    picture[100:120, 100:120] *= 0.1
    b = Background()
    b.prime([noisy(picture, i) for i in range(9)])
    ratio = b.ratio(noisy(picture, 99))
    assert (ratio[100:120, 100:120] == 160).all()
    assert 400 <= b.blind_fraction * picture.size <= 600
    far = b.ratio(noisy(picture, 99))[:90]
    assert noise_codes(far) > 0.5


def test_no_background_is_an_error() -> None:
    b = Background()
    with pytest.raises(RuntimeError, match="no background"):
        b.ratio(np.zeros((4, 4), np.uint8))
    with pytest.raises(RuntimeError, match="no background"):
        b.update(np.zeros((4, 4), np.uint8))


def test_a_given_background_stays() -> None:
    given = np.full((64, 64), 180, np.uint8)
    b = Background(BackgroundSettings(), initial=given)
    b.update(np.full((64, 64), 90, np.uint8))
    assert np.array_equal(b.picture, given)
    given[:] = 0
    assert b.level == 180.0, "a copy is kept, not the caller's picture"


@pytest.mark.parametrize("gain", [0.5, 0.8, 0.97, 1.0, 1.03, 1.2])
def test_gain_is_taken_out(gain: float) -> None:
    background = np.rint(field()).astype(np.uint8)
    image = noisy(field() * gain, 1, 1.0)
    found = frame_gain(image, background)
    assert found == pytest.approx(gain, rel=0.005)
    assert ratio_picture(image, background, gain=found).mean() == pytest.approx(160, abs=0.6)


def test_dead_pixels_read_background() -> None:
    background = np.full((8, 8), 200, np.uint8)
    background[3, 3] = 0
    assert (ratio_picture(np.full((8, 8), 200, np.uint8), background) == 160).all()


@pytest.mark.parametrize("sigma", [0.0, 0.8, 1.6, 3.0, 6.0])
def test_noise_is_measured_behind_particles(sigma: float) -> None:
    picture = (
        np.full((512, 512), 160.0) + np.random.default_rng(0).normal(0, sigma, (512, 512))
        if sigma
        else np.full((512, 512), 160.0)
    )
    picture[:40, :40] = 20  # 0.6 % particles
    found = noise_codes(np.clip(np.rint(picture), 0, 255).astype(np.uint8))
    assert found == pytest.approx(sigma, rel=0.08, abs=0.13)
