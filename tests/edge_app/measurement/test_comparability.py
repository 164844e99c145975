import numpy as np
import pytest
from scipy import stats

from edge_app.errors import UserError
from edge_app.measurement.comparability import compare_populations


def population(rng: np.random.Generator, n: int, *, scale: float = 2.0, shape: float = 0.0) -> dict[str, np.ndarray]:
    size = rng.gamma(4.0, scale, n).astype(np.float32)
    return {"ecd_um": size, "circularity": np.clip(0.8 + shape + 0.1 * rng.standard_normal(n), 0, 1)}


def test_distance_and_p_value_agree_with_scipy() -> None:
    rng = np.random.default_rng(1)
    a, b = population(rng, 400), population(rng, 300, scale=2.2)
    found = compare_populations(a, b, permutations=1999)
    for d in found.descriptors:
        oracle = stats.ks_2samp(a[d.name], b[d.name])
        assert d.ks == pytest.approx(oracle.statistic, abs=1e-12)
        assert d.p_value == pytest.approx(oracle.pvalue, rel=0.25, abs=0.01)
        u = stats.mannwhitneyu(a[d.name], b[d.name]).statistic
        assert d.effect == pytest.approx(2 * u / (400 * 300) - 1, abs=1e-6)


def test_p_values_are_even_for_one_population() -> None:
    rng = np.random.default_rng(2)
    found = [
        compare_populations(population(rng, 80), population(rng, 60), permutations=199, seed=i) for i in range(120)
    ]
    assert 0.0 <= np.mean([f.p_value <= 0.05 for f in found]) <= 0.11
    assert stats.kstest([f.p_value for f in found], "uniform").pvalue > 0.01
    assert np.mean([min(d.p_adjusted for d in f.descriptors) <= 0.05 for f in found]) <= 0.11
    assert abs(np.mean([f.mmd_squared for f in found])) < 0.002


def test_a_difference_only_in_how_descriptors_go_together_is_seen_by_mmd() -> None:
    rng = np.random.default_rng(3)
    x, noise = rng.standard_normal((2, 600)), rng.standard_normal((2, 600)) * 0.3
    same = {"ecd_um": x[0], "circularity": x[0] + noise[0]}
    opposite = {"ecd_um": x[1], "circularity": -x[1] + noise[1]}
    found = compare_populations(same, opposite)
    assert found.p_value == 0.001
    assert min(d.p_adjusted for d in found.descriptors) > 0.01


def test_nothing_in_common_is_an_effect_near_1() -> None:
    rng = np.random.default_rng(4)
    far = compare_populations({"a": rng.random(300)}, {"a": 10 + rng.random(300)})
    near = compare_populations({"a": rng.random(300)}, {"a": rng.random(300)})
    assert far.descriptors[0].effect == -1.0
    assert far.descriptors[0].effect_name == "large"
    assert far.mmd_effect > 0.6 > 0.2 > near.mmd_effect
    assert far.text.startswith("Largest effect large (1.00 of 1), in a: median 0.")
    assert far.text.endswith("the two populations differ (p < 0.002)")
    assert "are not shown to differ (p = " in near.text
    assert near.mmd_effect < near.mmd_chance < far.mmd_effect


def test_what_chance_makes_is_the_critical_distance_of_the_tables() -> None:
    rng = np.random.default_rng(8)
    found = compare_populations(population(rng, 400), population(rng, 300), permutations=1999)
    # Kolmogorov: 5 % of all pairs of samples of one population are farther apart.
    critical = stats.kstwobign.isf(0.05) * np.sqrt(1 / 400 + 1 / 300)
    for d in found.descriptors:
        assert d.ks_chance == pytest.approx(critical, rel=0.06)


def test_images_of_one_particle_are_no_new_evidence() -> None:
    rng = np.random.default_rng(5)
    alone = grouped = 0
    for i in range(40):
        runs, groups = [], []
        for _ in range(2):
            true = rng.gamma(4.0, 2.0, 30)
            runs.append({"ecd_um": np.repeat(true, 10) + 0.01 * rng.standard_normal(300)})
            groups.append(np.repeat(np.arange(30), 10))
        alone += compare_populations(*runs, permutations=99, seed=i).p_value <= 0.05
        grouped += compare_populations(*runs, groups=(groups[0], groups[1]), permutations=99, seed=i).p_value <= 0.05
    assert alone > 20
    assert grouped <= 6


def test_large_runs_are_drawn_from_and_the_same_each_time() -> None:
    rng = np.random.default_rng(6)
    a, b = population(rng, 5000), population(rng, 4000, shape=0.1)
    found = compare_populations(a, b, permutations=99)
    assert (found.first, found.second) == (1000, 1000)
    assert found == compare_populations(a, b, permutations=99)
    assert found.descriptors[1].p_value == 0.01
    frames = (np.arange(5000) // 7, np.arange(4000) // 7)
    drawn = compare_populations(a, b, groups=frames, permutations=99)
    assert 980 <= drawn.first <= 1000


def test_rows_without_a_number_are_left_out_and_too_few_refused() -> None:
    a = {"ecd_um": np.r_[np.arange(12.0), np.nan]}
    assert compare_populations(a, a, permutations=19).first == 12
    with pytest.raises(UserError, match="second run has 9 particles"):
        compare_populations(a, {"ecd_um": np.arange(9.0)})
    with pytest.raises(UserError, match="descriptors to compare differ"):
        compare_populations(a, {"solidity": np.arange(20.0)})
    with pytest.raises(UserError, match="fewer than 4 groups"):
        compare_populations(a, a, groups=(np.zeros(13, int), np.zeros(13, int)))
