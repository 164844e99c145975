import numpy as np
import pytest
from scipy import stats

from edge_app.errors import UserError
from edge_app.measurement.concentration import Interval, interval_per_ml
from edge_app.measurement.histogram import Histogram
from edge_app.measurement.replicates import replicates


def aliquot(n: int, *, volume_ml: float = 0.5, size_um: float = 10.0) -> Interval:
    h = Histogram.of(np.zeros(n, int), np.full(n, 80.0), np.ones(n), classes=("glass",))
    return interval_per_ml(h, size_um, volume_ml=volume_ml)


def test_the_first_is_discarded_and_the_rest_averaged() -> None:
    found = replicates([aliquot(n) for n in (900, 100, 120, 110)])
    assert [i.counted for i in found.discarded] == [900]
    assert found.mean.value == pytest.approx(220)
    assert found.rsd == pytest.approx(np.std([100, 120, 110], ddof=1) / 110)
    assert found.poisson_rsd == pytest.approx(np.sqrt(1 / 110))
    assert found.note == ""


def test_scatter_of_alike_aliquots_is_the_poisson_floor() -> None:
    rng = np.random.default_rng(1)
    sets = [replicates([aliquot(int(n)) for n in rng.poisson(150, 6)]) for _ in range(150)]
    ratio = np.sqrt(np.mean([r.ratio**2 for r in sets if r.ratio is not None]))
    assert ratio == pytest.approx(1.0, abs=0.1)
    # p-values of alike aliquots are even.
    assert stats.kstest([r.p_value for r in sets], "uniform").pvalue > 0.01


def test_the_mean_holds_the_truth_for_alike_and_unlike_aliquots() -> None:
    rng = np.random.default_rng(2)
    for cv in (0.0, 0.15):
        inside = 0
        for _ in range(150):
            means = 150 * (1 + cv * rng.standard_normal(4))
            m = replicates([aliquot(int(n)) for n in rng.poisson(means)]).mean
            inside += m.low <= 300 <= m.high
        assert inside / 150 >= 0.92


def test_aliquots_that_differ_are_seen() -> None:
    found = replicates([aliquot(n) for n in (1, 100, 160, 90)])
    assert found.p_value is not None
    assert found.p_value < 1e-4
    assert found.mean.method == "student"


def test_the_p_value_is_that_of_the_dispersion_test() -> None:
    counts = [130, 100, 95]
    found = replicates([aliquot(1)] + [aliquot(n) for n in counts])
    assert found.p_value == pytest.approx(stats.chisquare(counts).pvalue, rel=1e-9)


def test_what_is_not_as_usp_asks_is_noted() -> None:
    assert "3 aliquots, the first one discarded" in replicates([aliquot(5)] * 3).note
    kept = replicates([aliquot(5)] * 4, discard_first=False)
    assert "the first not discarded" in kept.note
    assert len(kept.used) == 4


def test_one_aliquot_left_has_a_mean_but_no_scatter() -> None:
    found = replicates([aliquot(4), aliquot(9)])
    assert (found.mean.value, found.rsd, found.ratio) == (18.0, None, None)
    only = aliquot(9)
    assert (found.mean.low, found.mean.high) == (pytest.approx(only.low), pytest.approx(only.high))


def test_clean_aliquots_have_no_relative_scatter() -> None:
    found = replicates([aliquot(0)] * 4)
    assert (found.mean.value, found.rsd) == (0.0, None)
    assert found.mean.high == pytest.approx(3.6889 / 1.5, rel=1e-4)


def test_aliquots_of_two_kinds_are_refused() -> None:
    with pytest.raises(UserError, match="differ in size"):
        replicates([aliquot(4), aliquot(4), aliquot(4, size_um=25.0)])
    with pytest.raises(UserError, match="1 aliquots, 1 discarded: none is left"):
        replicates([aliquot(4)])
