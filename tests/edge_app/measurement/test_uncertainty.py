import numpy as np
import pytest

from edge_app.errors import UserError
from edge_app.measurement.concentration import CountSeries, Interval, interval_per_ml
from edge_app.measurement.histogram import Histogram
from edge_app.measurement.uncertainty import InputUncertainties, local_exponent, uncertainty_budget, with_systematic


def power_law_counts(n: int, exponent: float, seed: int) -> CountSeries:
    sizes = 4.0 * np.random.default_rng(seed).random(n) ** (-1 / exponent)
    return CountSeries.of_total(Histogram.of(np.zeros(n, int), sizes, np.ones(n), classes=("glass",)), 1.0)


def counted(n: int = 1000) -> Interval:
    h = Histogram.of(np.zeros(n, int), np.full(n, 12.0), np.ones(n), classes=("glass",))
    return interval_per_ml(h, 10.0, volume_ml=0.5)


@pytest.mark.parametrize("exponent", [1.5, 2.5, 4.0])
def test_exponent_of_a_power_law(exponent: float) -> None:
    series = power_law_counts(40_000, exponent, seed=1)
    for size in (5.0, 10.0):
        assert local_exponent(series, size) == pytest.approx(exponent, rel=0.15)


def test_exponent_where_there_is_little_to_go_by() -> None:
    assert local_exponent(CountSeries.of_total(Histogram.empty(("glass",)), 1.0), 10.0) == 0.0
    h = Histogram.of(np.zeros(40, int), np.full(40, 10.5), np.ones(40), classes=("glass",))
    assert local_exponent(CountSeries.of_total(h, 1.0), 10.0) > 0


def test_every_row_against_its_closed_form() -> None:
    inputs = InputUncertainties(field_relative=0.02, depth_relative=0.03, size_um=0.25, basis="certificate")
    interval = counted()
    budget = uncertainty_budget(
        interval, exponent=2.5, inputs=inputs, frame_area_mm2=2.3, depth_um=98.0, lost_share=0.012
    )
    rows = {r.name: r for r in budget.rows}
    c = 2000.0
    assert budget.value == c
    assert rows["count"].contribution == pytest.approx(np.sqrt(1000) / 0.5, rel=0.02)
    assert rows["field area"].contribution == pytest.approx(0.02 * c)
    assert rows["cell depth"].contribution == pytest.approx(0.03 * c)
    assert (rows["cell depth"].value, rows["cell depth"].standard_uncertainty) == (98.0, pytest.approx(2.94))
    assert rows["size scale"].contribution == pytest.approx(2.5 * c / 10 * 0.25)
    assert rows["coincidence"].contribution == pytest.approx(0.012 / np.sqrt(3) * c)
    assert budget.combined == pytest.approx(np.sqrt(sum(r.contribution**2 for r in budget.rows)))
    assert budget.expanded == 2 * budget.combined
    assert sum(r.share for r in budget.rows) == pytest.approx(1.0)
    assert budget.combined**2 == pytest.approx(budget.counting**2 + budget.systematic**2)
    assert "k = 2" in budget.text


def test_sensitivities_are_the_derivatives() -> None:
    exponent, count, per_frame_volume = 2.5, 500.0, 1e-4

    def concentration(area: float, depth: float, size: float) -> float:
        return count * (size / 10.0) ** -exponent / (area * depth * per_frame_volume)

    value = concentration(2.3, 98.0, 10.0)
    i = Interval(
        value=value, low=0.9 * value, high=1.1 * value, method="poisson_exact", confidence=0.95, size_um=10.0,
        class_name="all", counted=int(count), volume_ml=count / value,
    )  # fmt: skip
    rows = {r.name: r for r in uncertainty_budget(i, exponent=exponent, frame_area_mm2=2.3, depth_um=98.0).rows}
    step = 1e-6
    for name, arguments in (
        ("field area", (2.3 + step, 98.0, 10.0)),
        ("cell depth", (2.3, 98.0 + step, 10.0)),
        ("size scale", (2.3, 98.0, 10.0 + step)),
    ):
        assert rows[name].sensitivity == pytest.approx((concentration(*arguments) - value) / step, rel=1e-4)


def test_the_combined_uncertainty_is_the_scatter_of_simulated_instruments() -> None:
    rng = np.random.default_rng(4)
    exponent, truth, volume = 2.5, 4000.0, 0.5
    inputs = InputUncertainties(field_relative=0.01, depth_relative=0.03, size_um=0.3)
    stated, errors, inside = [], [], 0
    for _ in range(600):
        real_volume = volume * (1 + 0.01 * rng.standard_normal()) * (1 + 0.03 * rng.standard_normal())
        real_size = 10 + 0.3 * rng.standard_normal()
        n = rng.poisson(truth * real_volume * (real_size / 10) ** -exponent)
        h = Histogram.of(np.zeros(n, int), np.full(n, 12.0), np.ones(n), classes=("glass",))
        interval = interval_per_ml(h, 10.0, volume_ml=volume)
        budget = uncertainty_budget(interval, exponent=exponent, inputs=inputs)
        stated.append(budget.combined)
        errors.append(budget.value - truth)
        wide = with_systematic(interval, budget)
        inside += wide.low <= truth <= wide.high
    assert np.sqrt(np.mean(np.square(stated))) == pytest.approx(np.std(errors), rel=0.1)
    assert inside / 600 >= 0.93


def test_classification_adds_only_what_counting_does_not_hold() -> None:
    interval = counted()
    same = uncertainty_budget(interval, exponent=2.0, classification=interval)
    row = next(r for r in same.rows if r.name == "classification")
    assert row.contribution == 0.0
    wider = Interval(
        value=2000.0, low=1600.0, high=2400.0, method="prevalence", confidence=0.95, size_um=10.0, class_name="glass",
        counted=1000, volume_ml=0.5,
    )  # fmt: skip
    more = uncertainty_budget(interval, exponent=2.0, classification=wider)
    row = next(r for r in more.rows if r.name == "classification")
    assert row.contribution**2 + more.counting**2 == pytest.approx((400 / 1.959964) ** 2, rel=1e-5)


def test_a_count_of_nothing_has_a_budget() -> None:
    budget = uncertainty_budget(counted(0), exponent=0.0)
    assert budget.value == 0
    assert budget.combined == pytest.approx(3.6889 / 0.5 / (2 * 1.959964), rel=1e-4)
    assert budget.low == 0


def test_budget_and_interval_must_belong_together() -> None:
    budget = uncertainty_budget(counted(), exponent=2.0)
    with pytest.raises(UserError, match="is not that of"):
        with_systematic(counted(999), budget)
    with pytest.raises(UserError, match="made per mL"):
        uncertainty_budget(counted().scaled(2.0, unit="per container"), exponent=2.0)
