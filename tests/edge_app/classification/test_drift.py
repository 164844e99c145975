import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics.pairwise import rbf_kernel

from edge_app.classification.drift import (
    DriftReference,
    class_drift,
    drift_reference,
    mmd_squared,
    read_drift_reference,
)
from edge_app.errors import UserError

CLASSES = ("oil", "protein", "glass")


class Population:
    """Embeddings of three classes as a network gives them: not negative, several modes, size shows."""

    def __init__(self, *, shift: float = 0.0, shifted_class: int = 0) -> None:
        rng = np.random.default_rng(99)
        self.centre = rng.uniform(0, 1, (3, 4, 16))
        self.push = np.zeros((3, 16))
        self.push[shifted_class] = shift * rng.standard_normal(16) / 4

    def draw(self, rng: np.random.Generator, n: int, mix=(1 / 3, 1 / 3, 1 / 3), small: float = 0.5):
        label = rng.choice(3, n, p=mix)
        is_small = rng.random(n) < small
        mode = rng.integers(0, 4, n)
        x = self.centre[label, mode] * np.where(is_small, 0.6, 1.0)[:, None] + self.push[label]
        x = np.maximum(x + 0.25 * rng.standard_normal((n, 16)), 0).astype(np.float32)
        confidence = np.where(rng.random(n) < 0.8, 0.95, 0.5).astype(np.float32)
        box_px = np.where(is_small, rng.uniform(8, 15.9, n), rng.uniform(16, 50, n))
        return x, label, confidence, box_px


@pytest.fixture(scope="module")
def reference() -> DriftReference:
    return drift_reference(*Population().draw(np.random.default_rng(0), 1500), classes=CLASSES, draws=1000)


def alarms(reference: DriftReference, population: Population, *, rate: float, runs: int, **how: object) -> int:
    rng = np.random.default_rng(7)
    return sum(
        any(t.alarm for t in class_drift(reference, *population.draw(rng, 600, **how), false_alarm_rate=rate))
        for _ in range(runs)
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 30), st.integers(2, 30), st.floats(0.2, 5), st.integers(0, 10_000))
def test_the_statistic_is_the_published_one(n: int, m: int, bandwidth: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((n, 5)).astype(np.float32), rng.standard_normal((m, 5)).astype(np.float32) + 0.5
    gamma = 1 / (2 * bandwidth**2)
    aa, bb, ab = rbf_kernel(a, gamma=gamma), rbf_kernel(b, gamma=gamma), rbf_kernel(a, b, gamma=gamma)
    wanted = (
        (aa.sum() - np.trace(aa)) / (n * (n - 1)) + (bb.sum() - np.trace(bb)) / (m * (m - 1)) - 2 * ab.sum() / (n * m)
    )
    assert mmd_squared(a, b, bandwidth=bandwidth) == pytest.approx(wanted, abs=1e-5)


def test_false_alarms_come_at_the_stated_rate() -> None:
    rng = np.random.default_rng(3)
    found = 0
    for k in range(20):  # the reference is drawn anew too: the rate is that of device and sample together
        made = drift_reference(*Population().draw(rng, 900), classes=CLASSES, draws=200, seed=k)
        tests = [class_drift(made, *Population().draw(rng, 600), false_alarm_rate=0.1) for _ in range(10)]
        found += sum(any(t.alarm for t in one) for one in tests)
    low, high = binomtest(found, 200).proportion_ci(0.999)
    assert low <= 0.1 <= high, found


def test_other_pictures_of_a_class_raise_the_alarm_for_that_class(reference: DriftReference) -> None:
    other = Population(shift=1.5, shifted_class=1)
    assert alarms(reference, other, rate=0.01, runs=20) == 20
    found = class_drift(reference, *other.draw(np.random.default_rng(1), 600))
    assert {t.name for t in found if t.alarm} == {"protein"}
    assert all(t.p_value < 0.01 for t in found if t.alarm)


def test_another_mix_of_classes_or_sizes_is_no_drift(reference: DriftReference) -> None:
    for how in ({"mix": (0.8, 0.15, 0.05)}, {"small": 0.9}, {"small": 0.1}):
        assert alarms(reference, Population(), rate=0.01, runs=40, **how) <= 4


def test_sizes_that_are_not_told_apart_make_another_size_look_like_drift() -> None:
    rng = np.random.default_rng(0)
    one_size = drift_reference(*Population().draw(rng, 1500), classes=CLASSES, size_edges_px=(), draws=1000)
    assert alarms(one_size, Population(), rate=0.01, runs=20, small=0.95) >= 15


def test_too_few_particles_are_not_tested(reference: DriftReference) -> None:
    for test in class_drift(reference, *Population().draw(np.random.default_rng(5), 30)):
        assert (test.particles, test.alarm) == (0, False)
        assert np.isnan(test.p_value)


def test_unknown_and_unsure_particles_take_no_part(reference: DriftReference) -> None:
    x, label, confidence, box = Population().draw(np.random.default_rng(6), 600)
    wanted = class_drift(reference, x, label, confidence, box)
    more = np.full((300, 16), 50, np.float32)
    unknown, unsure = np.full(150, 3), np.zeros(150, np.int64)
    joined = (
        np.concatenate([x, more]),
        np.concatenate([label, unknown, unsure]),
        np.concatenate([confidence, np.ones(150), np.full(150, 0.79)]).astype(np.float32),
        np.concatenate([box, np.full(300, 20.0)]),
    )
    assert class_drift(reference, *joined) == wanted


def test_pictures_of_one_particle_do_not_count_twice() -> None:
    rng = np.random.default_rng(2)
    x, label, confidence, box = (np.repeat(v, 5, axis=0) for v in Population().draw(rng, 300))
    made = drift_reference(x, label, confidence, box, classes=CLASSES, particle=np.repeat(np.arange(300), 5), draws=50)
    assert all(len(s) <= 25 for s in made.samples)
    assert all(len(np.unique(s, axis=0)) == len(s) for s in made.samples)


def test_a_reference_survives_its_file_and_is_the_same_from_the_same_seed(tmp_path, reference) -> None:
    np.savez_compressed(tmp_path / "reference.npz", **reference.arrays())
    read = read_drift_reference(tmp_path)
    window = Population(shift=0.5).draw(np.random.default_rng(8), 600)
    assert read is not None
    assert repr(class_drift(read, *window)) == repr(class_drift(reference, *window))
    small = [drift_reference(*window, classes=CLASSES, draws=50).arrays() for _ in range(2)]
    for name, array in small[0].items():
        assert np.array_equal(array, small[1][name], equal_nan=array.dtype.kind == "f"), name


def test_a_bundle_without_reference_has_none_and_a_later_format_is_refused(tmp_path, reference) -> None:
    assert read_drift_reference(tmp_path) is None
    np.savez(tmp_path / "reference.npz", prototypes=np.zeros(3))
    assert read_drift_reference(tmp_path) is None
    np.savez(tmp_path / "reference.npz", **{**reference.arrays(), "drift_format": np.array(2)})
    with pytest.raises(UserError, match="format 2"):
        read_drift_reference(tmp_path)


@pytest.mark.parametrize("rate", [0.0, 0.9, 1e-6])
def test_a_rate_that_cannot_be_kept_is_refused(reference: DriftReference, rate: float) -> None:
    with pytest.raises(UserError, match="false alarm rate"):
        class_drift(reference, *Population().draw(np.random.default_rng(1), 600), false_alarm_rate=rate)


def test_a_class_that_is_hardly_there_is_not_in_the_reference() -> None:
    window = Population().draw(np.random.default_rng(0), 400, mix=(0.49, 0.5, 0.01))
    made = drift_reference(*window, classes=CLASSES, draws=50)
    assert np.isnan(made.bandwidth[4:]).all()
    glass = [t for t in class_drift(made, *window) if t.name == "glass"]
    assert [t.particles for t in glass] == [0, 0]
