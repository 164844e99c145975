"""A comparison with a limit knows of volume and size, not of chance alone."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from edge_app.measurement.concentration import Interval
from edge_app.measurement.limits import Limit, Standard, compare, deciding_volume_ml, load_limits
from edge_app.measurement.poisson import weighted_interval
from edge_app.measurement.uncertainty import InputUncertainties, uncertainty_budget
from edge_app.reporting.budgets import MAIN_SIZES_UM, SizeResult, class_uncertainties, mean_result, size_result
from edge_app.reporting.limit_comparison import compare_with_limits
from edge_app.reporting.run_facts import read_run

LIMIT = Standard(
    id="own", name="own", title="", applies_to="", citation="here",
    limit=(Limit(method="light obscuration", size_um=10.0, maximum=1000.0, per="mL"),),
)  # fmt: skip
INPUTS = InputUncertainties(field_relative=0.02, depth_relative=0.03, size_um=0.2)
EXPONENT = 2.5


def counted(n: int, *, volume_ml: float, method: str = "poisson_exact") -> Interval:
    low, high = (float(x) / volume_ml for x in weighted_interval(float(n), float(n), 1.0))
    return Interval(
        value=n / volume_ml, low=low, high=high, method=method, confidence=0.95, size_um=10.0, class_name="all",
        counted=n, volume_ml=volume_ml,
    )  # fmt: skip


def combined(interval: Interval, inputs: InputUncertainties = INPUTS) -> Interval:
    budget = uncertainty_budget(interval, exponent=EXPONENT, inputs=inputs)
    return SizeResult(counting=interval, budget=budget).against(1000.0)


@pytest.mark.parametrize("volume_ml", [0.1, 1.0, 20.0])
def test_a_wrong_word_is_as_rare_as_it_should_be_on_instruments_that_are_off(volume_ml: float) -> None:
    rng = np.random.default_rng(int(10 * volume_ml))
    systematic = math.hypot(0.02, 0.03, EXPONENT * 0.2 / 10.0)
    wrong = {"pass": 0, "fail": 0, "inconclusive": 0}
    alone = 0
    runs = 3000
    limit = LIMIT.limit[0]
    for factor in 1.0 + systematic * rng.standard_normal(runs):
        found = counted(int(rng.poisson(1000.0 * volume_ml * max(factor, 0.0))), volume_ml=volume_ml)
        wrong[compare(LIMIT, limit, combined(found), container_ml=1.0).result] += 1
        alone += compare(LIMIT, limit, found, container_ml=1.0).result != "inconclusive"
    # Truth on the limit: "pass" is right by definition there, "fail" is wrong; each at most 2.5 % of instruments.
    most = stats.binom.ppf(0.999, runs, 0.025)
    assert wrong["pass"] <= most
    assert wrong["fail"] <= most
    if volume_ml >= 1.0:
        assert alone > 5 * (wrong["pass"] + wrong["fail"]), "counting alone decides, and wrongly"


def test_more_volume_decides_only_what_is_farther_off_than_the_systematic_part() -> None:
    limit = LIMIT.limit[0]
    near = compare(LIMIT, limit, combined(counted(950, volume_ml=1.0)), container_ml=1.0)
    assert near.result == "inconclusive"
    assert near.extra_volume_ml is None
    assert near.beyond_volume
    assert "volume and size alone holds it, no further volume decides" in near.text
    far = compare(LIMIT, limit, combined(counted(82, volume_ml=0.1)), container_ml=1.0)
    assert far.result == "inconclusive"
    assert not far.beyond_volume
    # The volume it names is right: with it the interval just clears the limit.
    volume = 0.1 + far.extra_volume_ml
    n = round(820 * volume)
    assert compare(LIMIT, limit, combined(counted(n, volume_ml=volume * 1.01)), container_ml=1.0).result == "pass"
    short = counted(round(820 * volume * 0.8), volume_ml=volume * 0.8)
    assert compare(LIMIT, limit, combined(short), container_ml=1.0).result == "inconclusive"


def test_a_better_calibration_decides_what_no_volume_does() -> None:
    found = counted(95_000, volume_ml=100.0)
    good = InputUncertainties(field_relative=0.005, depth_relative=0.005, size_um=0.03)
    verdicts = [compare(LIMIT, LIMIT.limit[0], combined(found, i), container_ml=1.0) for i in (INPUTS, good)]
    assert [v.result for v in verdicts] == ["inconclusive", "pass"]


def test_aliquots_that_scatter_need_more_volume_than_their_counts_say() -> None:
    mean = counted(900, volume_ml=1.0)
    wide = replace(mean, low=600.0, high=1200.0, method="student")
    small = InputUncertainties(field_relative=0.005, depth_relative=0.005, size_um=0.05)
    joined = combined(wide, small)
    room = math.sqrt(100.0**2 - joined.systematic**2)
    assert deciding_volume_ml(joined, 1000.0) == pytest.approx((300.0 / room) ** 2)


def test_the_report_compares_the_combined_interval(simulated: Path) -> None:
    run = read_run(simulated)
    [found] = compare_with_limits(
        [load_limits()["usp-788"]],
        container_ml=2.0,
        reporting_limit_um=run.reporting_limit_um,
        result_at=lambda size_um: size_result(run, size_um),
    )
    assert [row.verdict.limit.size_um for row in found.rows] == list(MAIN_SIZES_UM)
    for row, size_um in zip(found.rows, MAIN_SIZES_UM, strict=True):
        result = size_result(run, size_um)
        assert result is not None
        interval = row.verdict.interval
        half = 2.0 * result.budget.systematic / result.budget.value
        above = half / (1 - half) if row.verdict.limit.maximum > interval.value else half
        assert interval.systematic == pytest.approx(above * interval.value)
        arm = math.hypot(2.0 * (result.counting.high - result.counting.value), interval.value * half / (1 - half))
        assert interval.high - interval.value == pytest.approx(arm)
        assert interval.low < row.counting_low <= interval.value <= row.counting_high < interval.high


def test_a_mean_of_aliquots_keeps_the_systematic_part_of_one(simulated: Path) -> None:
    run = read_run(simulated)
    one = size_result(run, 10.0)
    assert one is not None
    thin = replace(one.counting, low=0.99 * one.counting.value, high=1.01 * one.counting.value)
    mean = mean_result(thin, [run, run, run])
    assert mean.budget.systematic == pytest.approx(one.budget.systematic)
    assert mean.combined.high > thin.value + 2 * one.budget.systematic


def test_a_class_has_counting_classification_and_the_rest(simulated: Path) -> None:
    run = read_run(simulated)
    rows = class_uncertainties(run, 10.0)
    if run.corrected is None:
        assert rows == ()
        return
    column = run.corrected.sizes_um.index(10.0)
    for row in rows:
        corrected = run.corrected.rows[row.class_name][column]
        assert row.combined.value == corrected.value
        assert row.combined.low <= corrected.low
        assert row.combined.high >= corrected.high
        whole = (corrected.high - corrected.low) / (2 * stats.norm.ppf(0.975))
        assert math.hypot(row.counting, row.classification) == pytest.approx(whole, rel=1e-6)
