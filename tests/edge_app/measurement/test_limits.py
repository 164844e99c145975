import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks.verdict_calibration import decided_after_extra, poisson_verdicts, simulated_verdicts
from edge_app.errors import UserError
from edge_app.measurement.concentration import Interval, interval_per_ml
from edge_app.measurement.histogram import Histogram
from edge_app.measurement.limits import SHIPPED_LIMITS, compare, deciding_volume_ml, load_limits, overall
from edge_app.measurement.uncertainty import InputUncertainties, uncertainty_budget, with_systematic


def counted(n: int, volume_ml: float, size_um: float = 10.0) -> Interval:
    h = Histogram.of(np.zeros(n, int), np.full(n, size_um + 1), np.ones(n), classes=("glass",))
    return interval_per_ml(h, size_um, volume_ml=volume_ml)


@pytest.mark.parametrize(
    ("standard", "container_ml", "limits"),
    [
        ("usp-788", 2.0, {(10, 6000, "container"), (25, 600, "container")}),
        ("usp-788", 100.0, {(10, 6000, "container"), (25, 600, "container")}),
        ("usp-788", 250.0, {(10, 25, "mL"), (25, 3, "mL")}),
        ("usp-787", 1.0, {(10, 6000, "container"), (25, 600, "container")}),
        ("usp-787", 250.0, {(10, 6000, "container"), (25, 600, "container"), (10, 25, "mL"), (25, 3, "mL")}),
        ("usp-789", 5.0, {(10, 50, "mL"), (25, 5, "mL")}),
        ("ph-eur-2.9.19", 2.0, {(10, 6000, "container"), (25, 600, "container")}),
    ],
)
def test_limits_of_the_chapters(standard: str, container_ml: float, limits: set[tuple[float, float, str]]) -> None:
    found = load_limits()[standard].applicable(container_ml)
    assert {(x.size_um, x.maximum, x.per) for x in found} == limits


def test_microscope_limits_are_there_and_flagged() -> None:
    found = load_limits()["USP <788>"].applicable(2.0, method="microscope")
    assert {(x.size_um, x.maximum) for x in found} == {(10, 3000), (25, 300)}
    assert all(x.unverified for x in found)
    assert {x.size_um for x in load_limits()["usp-789"].applicable(5.0, method="microscope")} == {10, 25, 50}


def test_every_standard_says_where_it_was_read_and_whether_its_date_is_known() -> None:
    for standard in load_limits().standard:
        assert len(standard.citation) > 20
        assert standard.effective or standard.effective_unverified


def test_no_wording_claims_compliance() -> None:
    standard = load_limits()["usp-788"]
    for n in (50, 6000, 20_000):
        for limit in standard.applicable(1.0):
            text = compare(standard, limit, counted(n, 1.0, limit.size_um), container_ml=1.0).text
            assert "compared with the limits of USP <788> (informational, flow imaging)" in text
            assert not re.search(r"\bpasses\b|\bcompl(y|ies|iant)\b|\bmeets\b", text)


def test_verdicts_and_units() -> None:
    standard = load_limits()["usp-788"]
    small, large = standard.applicable(2.0)[0], standard.applicable(250.0)[0]
    low = compare(standard, small, counted(1000, 1.0), container_ml=2.0)
    assert (low.result, low.interval.value, low.interval.unit, low.extra_volume_ml) == (
        "pass",
        2000,
        "per container",
        0,
    )
    assert compare(standard, small, counted(4000, 1.0), container_ml=2.0).result == "fail"
    undecided = compare(standard, small, counted(300, 0.1), container_ml=2.0)
    assert (undecided.result, undecided.extra_volume_ml) == ("inconclusive", None)
    assert "no volume decides it" in undecided.text
    per_ml = compare(standard, large, counted(20, 1.0), container_ml=250.0)
    assert (per_ml.result, per_ml.interval.unit) == ("inconclusive", "per mL")
    assert "mL more would decide it at this rate" in per_ml.text
    assert overall([low, per_ml]) == "inconclusive"
    assert overall([low, compare(standard, small, counted(4000, 1.0), container_ml=2.0)]) == "fail"
    assert overall([low, low]) == "pass"


def test_a_value_on_the_limit_does_not_exceed_it() -> None:
    standard = load_limits()["usp-788"]
    limit = standard.applicable(1.0)[0]
    exact = Interval(
        value=6000.0, low=6000.0, high=6000.0, method="poisson_exact", confidence=0.95, size_um=10.0, class_name="all",
        counted=6000, volume_ml=1.0,
    )  # fmt: skip
    assert compare(standard, limit, exact, container_ml=1.0).result == "pass"


@pytest.mark.parametrize(("n", "volume_ml"), [(500, 0.1), (55, 0.01), (700, 0.1), (0, 0.0001), (1, 0.0005)])
def test_the_extra_volume_decides_and_less_does_not(n: int, volume_ml: float) -> None:
    interval, limit = counted(n, volume_ml), 6000.0
    needed = deciding_volume_ml(interval, limit)
    assert needed is not None
    for factor, decided in ((1.001, True), (0.999, False)):
        expected = interval.value * needed * factor
        low, high = (
            stats.gamma.ppf(0.025, expected) if expected else 0.0,
            stats.gamma.ppf(0.975, expected + 1),
        )
        volume = needed * factor
        assert bool(high / volume <= limit or low / volume > limit) is decided


def test_systematic_uncertainty_cannot_be_measured_away() -> None:
    interval = counted(5700, 1.0)
    assert deciding_volume_ml(interval, 6000.0) is not None
    budget = uncertainty_budget(interval, exponent=2.5, inputs=InputUncertainties(depth_relative=0.03, size_um=0.3))
    wide = with_systematic(interval, budget)
    assert (wide.method, wide.low < interval.low, wide.high > interval.high) == ("combined", True, True)
    assert deciding_volume_ml(wide, 6000.0) is None
    far = deciding_volume_ml(wide, 9000.0)
    assert far is not None
    assert far > (deciding_volume_ml(interval, 9000.0) or 0)


@pytest.mark.parametrize("expected", [4.0, 11.0, 37.5, 120.0, 600.0, 6000.0])
def test_on_the_limit_pass_and_fail_are_each_wrong_in_at_most_2_5_percent(expected: float) -> None:
    found = poisson_verdicts(expected, 1.0)
    assert found["pass"] <= 0.025
    assert found["fail"] <= 0.025
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-9)


def test_on_the_limit_with_particles_imaged_repeatedly() -> None:
    found = simulated_verdicts("repeated", size_um=10.0, container_ml=1.0, ratio=1.0, runs=300, seed=2)
    # 2.5 % of 300 is 7.5; 15 or more come once in 100 times.
    assert found["pass"] <= 0.05
    assert found["fail"] <= 0.05
    away = simulated_verdicts("repeated", size_um=10.0, container_ml=1.0, ratio=0.6, runs=30, seed=2)
    assert away["pass"] == 1.0


def test_the_advised_volume_decides_most_runs_rightly() -> None:
    found = decided_after_extra(0.88, expected_at_limit=300, runs=150, seed=4)
    assert found["open"] > 0.2
    assert found["decided"] > 0.5
    assert found["wrong"] <= 0.03


def test_an_interval_of_another_size_or_unit_is_refused() -> None:
    standard = load_limits()["usp-788"]
    limit = standard.applicable(1.0)[0]
    with pytest.raises(UserError, match="interval of 25 um per mL"):
        compare(standard, limit, counted(3, 1.0, 25.0), container_ml=1.0)
    with pytest.raises(UserError, match="one per mL"):
        compare(standard, limit, counted(3, 1.0).scaled(1.0, unit="per container"), container_ml=1.0)
    with pytest.raises(UserError, match="container volume is 0 mL"):
        standard.applicable(0.0)
    with pytest.raises(UserError, match="no limits named 'usp-1', allowed are usp-788"):
        load_limits()["usp-1"]
    with pytest.raises(UserError, match="no limit by flow imaging"):
        standard.applicable(1.0, method="flow imaging")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.replace("maximum = 6000.0", "maximum = -1.0", 1), r"standard\.0\.limit\.0\.maximum"),
        (lambda t: t.replace('per = "container"', 'per = "bottle"', 1), "'container' or 'mL'"),
        (lambda t: t.replace('id = "usp-787"', 'id = "usp-788"'), "ids of standards must differ"),
        (lambda t: t.replace("[[standard]]", "[[standard", 1), "no TOML"),
        (lambda t: t.replace("2014-08-01", "August"), "effective"),
    ],
)
def test_a_wrong_table_is_refused_with_the_place(tmp_path: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "limits.toml"
    path.write_text(change(SHIPPED_LIMITS.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(UserError, match=message) as error:
        load_limits(path)
    assert str(error.value).startswith(str(path))


def test_a_missing_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="limits cannot be read"):
        load_limits(tmp_path / "none.toml")
