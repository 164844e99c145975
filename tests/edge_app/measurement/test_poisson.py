import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edge_app.measurement.poisson import (
    gamma_cdf,
    gamma_quantile,
    normal_quantile,
    poisson_interval,
    student_quantile,
    weighted_interval,
)

COUNTS = np.r_[0:300, 500, 1000, 1e4, 1e5, 1e6, 1e7, 0.01, 0.1, 0.3, 0.7, 58.9, 59.0, 60.5]


@pytest.mark.parametrize(
    ("count", "low", "high"),
    [(0, 0.0, 3.7), (3, 0.6, 8.8), (10, 4.8, 18.4), (30, 20.2, 42.8), (100, 81, 122), (1000, 939, 1064)],
)
def test_garwood_values_of_the_literature(count: int, low: float, high: float) -> None:
    digits = 1 if count < 100 else 0
    assert [round(float(v), digits) for v in poisson_interval(count)] == [low, high]


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.95, 0.99, 0.9999])
def test_garwood_agrees_with_scipy(confidence: float) -> None:
    low, high = poisson_interval(COUNTS, confidence=confidence)
    tail = (1 - confidence) / 2
    some = COUNTS > 0
    np.testing.assert_allclose(low[some], stats.gamma.ppf(tail, COUNTS[some]), rtol=1e-10, atol=1e-280)
    np.testing.assert_allclose(high, stats.gamma.ppf(1 - tail, COUNTS + 1), rtol=1e-10)
    assert low[~some] == 0


@given(shape=st.floats(1e-3, 1e6), x=st.floats(1e-6, 2e6))
def test_gamma_distribution_agrees_with_scipy(shape: float, x: float) -> None:
    assert float(gamma_cdf(shape, x)) == pytest.approx(stats.gamma.cdf(x, shape), rel=1e-9, abs=1e-12)


@given(p=st.floats(1e-6, 1 - 1e-6), shape=st.floats(0.05, 1e6))
def test_gamma_quantile_is_the_inverse(p: float, shape: float) -> None:
    assert float(gamma_quantile(p, shape)) == pytest.approx(stats.gamma.ppf(p, shape), rel=1e-8, abs=1e-300)


def test_normal_and_student_quantiles_agree_with_scipy() -> None:
    p = np.array([1e-6, 0.01, 0.5, 0.7, 0.975, 0.999999])
    np.testing.assert_allclose(normal_quantile(p), stats.norm.ppf(p), rtol=1e-10, atol=1e-12)
    for degrees in (1, 2, 3.5, 10, 100, 10_000):
        for q in (0.6, 0.975, 0.9995):
            assert student_quantile(q, degrees) == pytest.approx(stats.t.ppf(q, degrees), rel=1e-8)


@pytest.mark.parametrize("mean", [0.5, 3.0, 11.3, 40.0, 250.0])
def test_exact_interval_is_wrong_on_either_side_in_at_most_half_of_the_rest(mean: float) -> None:
    n = np.arange(int(mean + 20 * np.sqrt(mean) + 40))
    probability = stats.poisson.pmf(n, mean)
    low, high = poisson_interval(n)
    assert probability[low > mean].sum() <= 0.025
    assert probability[high < mean].sum() <= 0.025


def test_equal_weights_scale_the_exact_interval() -> None:
    n = np.array([0.0, 1.0, 7.0, 400.0])
    low, high = poisson_interval(n)
    np.testing.assert_allclose(weighted_interval(1.5 * n, 2.25 * n, 1.5), (1.5 * low, 1.5 * high), rtol=1e-9)


def test_weighted_interval_holds_the_truth() -> None:
    rng = np.random.default_rng(3)
    weights, rates = np.array([1.0, 1.1, 1.6]), np.array([6.0, 3.0, 1.5])
    n = rng.poisson(rates, size=(4000, 3))
    low, high = weighted_interval(n @ weights, n @ weights**2, weights.max())
    truth = weights @ rates
    assert (low > truth).mean() < 0.03
    assert (high < truth).mean() < 0.03
    assert ((low <= truth) & (truth <= high)).mean() >= 0.95


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="0 or above"):
        poisson_interval(-1)
    with pytest.raises(ValueError, match="0 < p < 1"):
        gamma_quantile(1.0, 2.0)
    with pytest.raises(ValueError, match="above 0"):
        gamma_cdf(0.0, 1.0)
