import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import norm

from benchmarks.interval_coverage import coverage, simulated_run
from edge_app.errors import UserError
from edge_app.measurement.concentration import CountSeries, Interval, difference, interval_per_ml
from edge_app.measurement.dispersion import Dispersion, block_multiplicities, default_block, dispersion_of
from edge_app.measurement.histogram import Histogram
from edge_app.measurement.poisson import normal_quantile, poisson_interval
from edge_app.measurement.window import Window, per_ml

CLASSES = ("glass", "oil", "unknown")


def histogram(n: int, *, size_um: float = 12.0, class_index: int = 0, weight: float = 1.0) -> Histogram:
    return Histogram.of(np.full(n, class_index), np.full(n, size_um), np.full(n, weight), classes=CLASSES)


def window(seq: int, counted: Histogram, *, volume_ml: float = 0.01) -> Window:
    return Window(
        run_id="r", seq=seq, first_frame=seq, last_frame=seq, t0_s=float(seq), t1_s=seq + 1.0, frames=1, frames_lost=0,
        frames_rejected=0, rejected={}, volume_ml=volume_ml, histogram=counted,
    )  # fmt: skip


def test_the_value_is_the_concentration_of_the_messages() -> None:
    rng = np.random.default_rng(0)
    h = Histogram.of(rng.integers(0, 3, 500), rng.gamma(4, 3, 500), rng.uniform(1, 1.1, 500), classes=CLASSES)
    table = per_ml(h, 0.3)
    for size in (2.0, 5.0, 10.0, 25.0):
        for name in ("all", *CLASSES):
            found = interval_per_ml(h, size, class_name=name, volume_ml=0.3)
            assert found.value == pytest.approx(table[name][f"{size:g}"], abs=1e-6)
            assert found.low <= found.value <= found.high


def test_unweighted_counts_get_garwood_and_say_so() -> None:
    found = interval_per_ml(histogram(30), 10.0, volume_ml=0.5)
    low, high = poisson_interval(30)
    assert (found.low, found.high) == (pytest.approx(low / 0.5), pytest.approx(high / 0.5))
    assert found.method == "poisson_exact"
    assert found.method_name == "exact Poisson interval (Garwood)"
    assert interval_per_ml(histogram(30, weight=1.1), 10.0, volume_ml=0.5).method == "poisson_weighted"


def test_no_particle_at_all_has_an_upper_end() -> None:
    found = interval_per_ml([window(i, histogram(0)) for i in range(20)], 25.0)
    assert (found.value, found.low, found.counted) == (0.0, 0.0, 0)
    assert found.high == pytest.approx(3.6889 / 0.2, rel=1e-4)


def test_several_classes_count_together_and_sizes_have_an_upper_end() -> None:
    h = histogram(5) + histogram(3, class_index=1) + histogram(2, size_um=60.0)
    assert interval_per_ml(h, 10.0, class_name=("glass", "oil"), volume_ml=1.0).value == 10
    assert interval_per_ml(h, 10.0, class_name="glass", volume_ml=1.0).class_name == "glass"
    assert interval_per_ml(h, 10.0, upper_um=25.0, volume_ml=1.0).value == 8
    assert interval_per_ml(h, 10.0, volume_ml=1.0, dilution=4.0).value == 40


def test_a_window_without_volume_is_left_out_and_a_run_without_any_is_refused() -> None:
    windows = [window(0, histogram(4)), window(1, histogram(0), volume_ml=0.0)]
    assert interval_per_ml(windows, 10.0).value == 400
    with pytest.raises(UserError, match="no volume was analysed in 1 windows"):
        interval_per_ml(windows[1:], 10.0)


def test_what_is_not_in_the_counts_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="size 11 um is no edge of the counts"):
        interval_per_ml(histogram(4), 11.0, volume_ml=1.0)
    with pytest.raises(UserError, match="class 'gold' is not in the counts, allowed are all, glass"):
        interval_per_ml(histogram(4), 10.0, class_name="gold", volume_ml=1.0)


def test_every_particle_imaged_twice_doubles_the_variance() -> None:
    rng = np.random.default_rng(5)
    found = []
    for _ in range(100):
        twice = 2 * rng.poisson(50, 400)
        found.append(dispersion_of(twice, twice, np.ones(400)))
    assert np.median([d.factor for d in found if d is not None]) == pytest.approx(2.0, rel=0.1)


def test_a_lost_window_is_no_scatter() -> None:
    rng = np.random.default_rng(6)
    volume = np.where(np.arange(60) % 3 == 0, 0.2, 1.0)
    counts = rng.poisson(200 * volume)
    found = dispersion_of(counts, counts, volume)
    assert found is not None
    assert found.factor < 1.8


def test_resamples_are_whole_runs_and_the_same_for_the_same_seed() -> None:
    table = block_multiplicities(50, 4, resamples=30, seed=7)
    assert table.shape == (30, 50)
    assert (table.sum(1) == 50).all()
    assert np.array_equal(table, block_multiplicities.__wrapped__(50, 4, resamples=30, seed=7))
    assert not np.array_equal(table, block_multiplicities(50, 4, resamples=30, seed=8))
    assert default_block(60, correlation=0.95) == 12


def test_few_windows_know_nothing_about_scatter() -> None:
    assert dispersion_of(np.full(11, 9), np.full(11, 9), np.ones(11)) is None


def test_the_long_run_variance_of_a_wandering_concentration() -> None:
    # First-order autoregression of 0.7 from window to window, 10 %: 1 + 500 * 0.01 * 1.7 / 0.3.
    rng = np.random.default_rng(12)
    found = []
    for _ in range(60):
        wander = lfilter([np.sqrt(1 - 0.49)], [1, -0.7], rng.standard_normal(400))[100:]
        counts = rng.poisson(500 * (1 + 0.1 * wander))
        found.append(dispersion_of(counts, counts, np.ones(300)))
    assert np.median([d.factor for d in found if d is not None]) == pytest.approx(29.3, rel=0.25)


def test_the_quantile_of_a_mixture_of_normal_deviates() -> None:
    found = Dispersion(factor=2.0, windows=20, variances=np.array([1.0, 4.0]), chances=np.array([0.5, 0.5]))
    z = normal_quantile(0.975) * np.sqrt(found.inflation(confidence=0.95))
    assert 0.5 * norm.sf(z) + 0.5 * norm.sf(z / 2) == pytest.approx(0.025, rel=1e-4)
    sure = Dispersion(factor=1.0, windows=20, variances=np.array([1.0, 9.0]), chances=np.array([1.0, 0.0]))
    assert sure.inflation(confidence=0.95) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("windows", [12, 60, 400])
def test_intervals_of_poisson_counts_stay_narrow(windows: int) -> None:
    rng = np.random.default_rng(13)
    found = [dispersion_of(y, y, np.ones(windows)) for y in rng.poisson(30, (100, windows))]
    factor = np.array([d.inflation(confidence=0.95) for d in found if d is not None])
    assert (factor >= 1).all()
    assert np.sqrt(factor).mean() < (1.3 if windows == 12 else 1.12)


@pytest.mark.parametrize(("concentration", "size_um"), [(20_000.0, 10.0), (175_000.0, 10.0), (600_000.0, 25.0)])
def test_the_interval_holds_the_truth_of_a_wandering_concentration(concentration: float, size_um: float) -> None:
    found = coverage(concentration, "clumped", size_um=size_um, runs=100, seed=11)
    assert found["coverage"] >= 0.91
    assert found["coverage_poisson"] < found["coverage"]


def test_long_series_are_merged_without_changing_the_value() -> None:
    rng = np.random.default_rng(8)
    windows = [window(i, histogram(int(n))) for i, n in enumerate(rng.poisson(3, 1000))]
    series = CountSeries.of(windows)
    assert len(series.volume_ml) == 334
    assert interval_per_ml(series, 10.0).counted == sum(w.particles for w in windows)


@pytest.mark.parametrize("concentration", [2_000.0, 20_000.0, 175_000.0, 600_000.0])
@pytest.mark.parametrize("scatter", ["poisson", "repeated"])
def test_the_interval_holds_the_truth(concentration: float, scatter: str) -> None:
    found = coverage(concentration, scatter, size_um=10.0, runs=100, seed=11)
    # 93 % of 200 runs is asked for; of 100 runs at 0.95, 90 or fewer come once in 35 times.
    assert found["coverage"] >= 0.91
    assert abs(found["bias"]) < 0.02 if concentration > 2_000 else 0.05
    assert found["width_over_poisson"] < (1.2 if scatter == "poisson" else 2.0)
    if scatter == "repeated":
        assert found["coverage_poisson"] < 0.91


def test_same_run_same_interval() -> None:
    series = simulated_run(20_000.0, "repeated", np.random.default_rng(1))
    first, again = interval_per_ml(series, 10.0), interval_per_ml(series, 10.0)
    assert first == again
    assert first.method == "long_run_variance"


def test_a_stated_dispersion_widens() -> None:
    plain = interval_per_ml(histogram(100), 10.0, volume_ml=1.0)
    wide = interval_per_ml(histogram(100), 10.0, volume_ml=1.0, dispersion=4.0)
    assert wide.high - wide.low == pytest.approx(2 * (plain.high - plain.low), rel=0.03)
    assert wide.method == "stated_dispersion"
    with pytest.raises(UserError, match="dispersion is -1"):
        interval_per_ml(histogram(100), 10.0, volume_ml=1.0, dispersion=-1.0)


def counted(n: int, volume_ml: float) -> Interval:
    return interval_per_ml(histogram(n), 10.0, volume_ml=volume_ml)


def test_the_blank_is_subtracted_with_its_own_uncertainty() -> None:
    rng = np.random.default_rng(9)
    inside = 0
    for sample, blank in zip(rng.poisson(60, 1000), rng.poisson(2, 1000), strict=True):
        d = difference(counted(int(sample), 0.5), counted(int(blank), 1.0))
        inside += d.low <= 118 <= d.high
    assert inside >= 940
    clean = difference(counted(10, 1.0), counted(0, 1.0))
    assert clean.value == 10
    assert clean.low < counted(10, 1.0).low  # a blank of 0 counts is not a blank of 0
    dirty = difference(counted(2, 1.0), counted(30, 1.0))
    assert dirty.value == -28
    assert dirty.high < 0


def test_a_difference_of_two_sizes_is_refused() -> None:
    with pytest.raises(UserError, match="size, unit and confidence must agree"):
        difference(counted(3, 1.0), interval_per_ml(histogram(3), 5.0, volume_ml=1.0))
