import numpy as np
import pytest

from benchmarks.interval_coverage import CLASS_SHARES, class_coverage, classified
from edge_app.classification.prevalence import confusion_corrected, corrected_class_counts, emq
from edge_app.errors import UserError
from edge_app.measurement.concentration import interval_per_ml
from edge_app.measurement.histogram import Histogram

CLASSES = tuple(f"class {i}" for i in range(7))


def called(p: np.ndarray, *, reject_below: float = 0.5) -> np.ndarray:
    return np.where(p.max(1) < reject_below, p.shape[1], p.argmax(1))


@pytest.fixture(scope="module")
def matrix() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    true, p = classified(np.full(7, 1 / 7), 14_000, rng)
    tested = np.bincount(true, minlength=7)
    return np.bincount(true * 8 + called(p), minlength=56).reshape(7, 8) / tested[:, None], tested


def test_emq_is_the_maximum_of_the_likelihood() -> None:
    rng = np.random.default_rng(1)
    _, p = classified(np.array([0.7, 0.2, 0.1]), 500, rng)
    best = emq(p)
    assert best.sum() == pytest.approx(1.0)

    def likelihood(shares: np.ndarray) -> float:
        return float(np.log(p @ shares).sum())

    for _ in range(200):
        other = np.abs(best + 0.05 * rng.standard_normal(3))
        assert likelihood(other / other.sum()) <= likelihood(best) + 1e-6


def test_emq_of_two_classes_against_its_equation() -> None:
    # Two kinds of particles: the derivative of the likelihood is 0 at the answer.
    p = emq(np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8]]))[0]
    assert 2 * 0.8 / (0.1 + 0.8 * p) == pytest.approx(0.6 / (0.8 - 0.6 * p), rel=1e-5)


def test_emq_undoes_the_assumed_prior() -> None:
    rng = np.random.default_rng(2)
    prior = np.array([0.8, 0.15, 0.05])
    _, equal = classified(np.array([0.1, 0.3, 0.6]), 20_000, rng)
    shifted = equal * prior
    shifted /= shifted.sum(1, keepdims=True)
    np.testing.assert_allclose(emq(shifted, assumed_prior=prior), emq(equal), atol=1e-5)
    assert emq(shifted, assumed_prior=prior) == pytest.approx([0.1, 0.3, 0.6], abs=0.02)


def test_emq_agrees_with_quapy() -> None:
    quapy = pytest.importorskip("quapy.method.aggregative")
    rng = np.random.default_rng(3)
    for _ in range(5):
        _, p = classified(rng.dirichlet(np.ones(7)), 800, rng)
        prior = rng.dirichlet(5 * np.ones(7))
        oracle, _ = quapy.EMQ.EM(prior.copy(), p, epsilon=1e-9)
        np.testing.assert_allclose(emq(p, assumed_prior=prior), oracle, atol=2e-5)


def test_adjusted_counting_agrees_with_quapy(matrix: tuple[np.ndarray, np.ndarray]) -> None:
    quapy = pytest.importorskip("quapy.method.aggregative")
    square = matrix[0][:, :7] / matrix[0][:, :7].sum(1, keepdims=True)
    rng = np.random.default_rng(4)
    for _ in range(5):
        share_called = rng.dirichlet(20 * np.ones(7)) @ square
        oracle = quapy.ACC.solve_adjustment(
            class_conditional_rates=square.T, unadjusted_counts=share_called, method="inversion", solver="minimize"
        )
        np.testing.assert_allclose(confusion_corrected(1000 * share_called, square), oracle, atol=2e-3)


def test_adjusted_counting_is_the_exact_solution_where_there_is_one(matrix: tuple[np.ndarray, np.ndarray]) -> None:
    rng = np.random.default_rng(5)
    truth = rng.dirichlet(np.ones(7), size=20)
    np.testing.assert_allclose(confusion_corrected(5000 * truth @ matrix[0], matrix[0]), truth, atol=1e-4)


def test_adjusted_counting_stays_on_the_simplex() -> None:
    # Fewer calls of the second class than even none of it would cause.
    assert confusion_corrected([100, 0], [[0.9, 0.1], [0.2, 0.8]]) == pytest.approx([1.0, 0.0], abs=1e-6)


@pytest.mark.parametrize("method", ["emq", "confusion"])
@pytest.mark.parametrize("particles", [300.0, 5_000.0])
def test_corrected_counts_hold_the_truth(method: str, particles: float) -> None:
    found = class_coverage(particles, method, runs=40, seed=6)
    assert found["coverage"] >= 0.92
    assert found["coverage_worst_class"] >= 0.82  # 33 of 40 or fewer come once in 200 times at 0.95
    assert found["largest_bias"] < 0.012
    assert found["largest_bias_as_called"] > 0.05


def test_a_class_that_is_not_there_has_the_upper_end_of_no_counts() -> None:
    p = np.zeros((200, 3))
    p[:, 0] = 1.0
    found = corrected_class_counts(np.zeros(200, int), np.ones(200), classes=("a", "b", "c"), probabilities=p)
    assert found.corrected.tolist() == [200.0, 0.0, 0.0]
    assert found.high[1] == pytest.approx(3.6889, rel=1e-3)
    assert found.low[1] == 0.0


def test_a_perfect_classifier_gives_the_interval_of_the_count() -> None:
    rng = np.random.default_rng(7)
    index = rng.integers(0, 2, 3000)
    p = np.eye(2)[index]
    found = corrected_class_counts(index, np.ones(3000), classes=("a", "b"), probabilities=p, resamples=2000)
    h = Histogram.of(index, np.full(3000, 12.0), np.ones(3000), classes=("a", "b"))
    exact = interval_per_ml(h, 10.0, class_name="a", volume_ml=1.0)
    ours = found.intervals_per_ml(size_um=10.0, volume_ml=1.0)["a"]
    assert ours.value == pytest.approx(exact.value)
    assert ours.high - ours.low == pytest.approx(exact.high - exact.low, rel=0.08)
    assert ours.method == "prevalence"


def test_windows_that_scatter_widen_the_interval() -> None:
    rng = np.random.default_rng(8)
    _, once = classified(CLASS_SHARES, 800, rng)
    p = np.repeat(once, 4, axis=0)  # every particle imaged four times, in one window
    window = np.repeat(rng.integers(0, 60, len(once)), 4)
    plain = corrected_class_counts(called(p), np.ones(len(p)), classes=CLASSES, probabilities=p)
    blocks = corrected_class_counts(called(p), np.ones(len(p)), classes=CLASSES, probabilities=p, window=window)
    wider = (blocks.high - blocks.low)[:4] / (plain.high - plain.low)[:4]
    assert wider.mean() == pytest.approx(2.0, rel=0.25)
    np.testing.assert_allclose(blocks.corrected, plain.corrected)


def test_windows_without_a_particle_are_windows() -> None:
    rng = np.random.default_rng(11)
    inside = 0
    for seed in range(100):
        n = int(rng.poisson(30))
        window = rng.integers(0, 300, n)  # most windows hold none
        found = corrected_class_counts(
            np.zeros(n, int), np.ones(n), classes=("a", "b"), probabilities=np.eye(2)[np.zeros(n, int)],
            window=window, seed=seed,
        )  # fmt: skip
        inside += found.low[0] <= 30 <= found.high[0]
    assert inside >= 92


def test_many_and_few_particles_agree_where_they_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    _, p = classified(CLASS_SHARES, 1900, np.random.default_rng(9))
    arguments = {"classes": CLASSES, "probabilities": p, "resamples": 1000}
    exact = corrected_class_counts(called(p), np.ones(len(p)), **arguments)
    monkeypatch.setattr("edge_app.classification.prevalence.EXACT_BELOW", 100)
    parabola = corrected_class_counts(called(p), np.ones(len(p)), **arguments)
    np.testing.assert_allclose(parabola.corrected, exact.corrected)
    np.testing.assert_allclose(parabola.high - parabola.low, exact.high - exact.low, rtol=0.12, atol=2.0)


def test_what_an_uncertain_matrix_adds(matrix: tuple[np.ndarray, np.ndarray]) -> None:
    _, p = classified(CLASS_SHARES, 20_000, np.random.default_rng(10))
    arguments = {"classes": CLASSES, "confusion": matrix[0]}
    sure = corrected_class_counts(called(p), np.ones(len(p)), **arguments)
    tested = corrected_class_counts(called(p), np.ones(len(p)), tested_per_class=np.full(7, 200), **arguments)
    assert ((tested.high - tested.low) > 1.5 * (sure.high - sure.low))[:5].all()


def test_border_particles_have_no_say_and_weights_count() -> None:
    p = np.eye(2)[[0, 0, 1, 1]]
    found = corrected_class_counts(
        np.array([0, 0, 1, 2]), np.array([1.0, 1.5, 0.0, 1.0]), classes=("a", "b"), probabilities=p
    )
    assert found.corrected == pytest.approx([2.5, 1.0])
    assert (found.counted.tolist(), found.called_unknown) == ([2, 0], 1)
    assert found.shares == pytest.approx([2.5 / 3.5, 1 / 3.5])


def test_no_particle_and_nothing_to_correct_with() -> None:
    none = corrected_class_counts(
        np.empty(0, int), np.empty(0), classes=("a", "b"), probabilities=np.empty((0, 2), np.float32)
    )
    assert none.corrected.tolist() == [0.0, 0.0]
    assert none.high == pytest.approx([3.6889, 3.6889], rel=1e-3)
    with pytest.raises(UserError, match="cannot be corrected"):
        corrected_class_counts(np.zeros(3, int), np.ones(3), classes=("a",))
    with pytest.raises(UserError, match=r"confusion matrix has shape \(2, 2\), \(2, 3\) is needed"):
        corrected_class_counts(np.zeros(3, int), np.ones(3), classes=("a", "b"), confusion=np.eye(2))
    with pytest.raises(UserError, match="analysed volume is 0 mL"):
        none.intervals_per_ml(size_um=10.0, volume_ml=0.0)
