import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from edge_app.measurement.coincidence import coincidence, coincidence_of
from edge_app.measurement.histogram import Histogram

WIDTH_UM, HEIGHT_UM = 2176.0, 1741.0


def power_law(n: int, rng: np.random.Generator, *, exponent: float = 3.0) -> np.ndarray:
    low, high = 5.0**-exponent, 70.0**-exponent
    return (low - rng.random(n) * (low - high)) ** (-1 / exponent)


def strewn(per_frame: float, halo_um: float, *, frames: int, seed: int) -> tuple[float, float, float]:
    """Overlapping share, the same from 25 um, and share lost to clusters, of discs strewn at random (torus)."""
    rng = np.random.default_rng(seed)
    overlapping = large = total = total_large = clusters = 0
    for _ in range(frames):
        n = rng.poisson(per_frame)
        x, y, d = rng.random(n) * WIDTH_UM, rng.random(n) * HEIGHT_UM, power_law(n, rng)
        dx, dy = np.abs(x[:, None] - x), np.abs(y[:, None] - y)
        distance = np.hypot(np.minimum(dx, WIDTH_UM - dx), np.minimum(dy, HEIGHT_UM - dy))
        touch = distance < (d[:, None] + d) / 2 + halo_um
        np.fill_diagonal(touch, False)
        any_ = touch.any(1)
        overlapping += any_.sum()
        large += any_[d >= 25].sum()
        total += n
        total_large += (d >= 25).sum()
        clusters += connected_components(coo_matrix(touch))[0]
    return overlapping / total, large / total_large, 1 - clusters / total


def closed(per_frame: float, halo_um: float) -> tuple[float, float, float]:
    sizes = power_law(100_000, np.random.default_rng(0))
    found = coincidence(
        sizes,
        np.ones_like(sizes),
        per_frame=per_frame,
        field_um2=WIDTH_UM * HEIGHT_UM,
        halo_um=halo_um,
        from_um=(25.0,),
    )
    return found.overlapping_share, found.overlapping_share_from[0][1], found.lost_share


@pytest.mark.parametrize(("per_frame", "frames"), [(130.0, 200), (600.0, 40)])
def test_closed_form_agrees_with_strewn_discs(per_frame: float, frames: int) -> None:
    share, large, lost = strewn(per_frame, 10.2, frames=frames, seed=2)
    expected = closed(per_frame, 10.2)
    assert expected[0] == pytest.approx(share, rel=0.08)
    # 0.8 % of the particles are that large: about 200 here, three standard errors.
    assert expected[1] == pytest.approx(large, abs=3 * np.sqrt(large * (1 - large) / (0.008 * per_frame * frames)))
    assert expected[2] == pytest.approx(lost, rel=0.08)


@pytest.mark.parametrize(
    ("per_frame", "percent", "percent_from_25"), [(20.0, 0.4, 3.8), (66.0, 1.8, 5.7), (130.0, 3.4, 9.6)]
)
def test_published_monte_carlo_with_a_halo_of_3_px_around_each(
    per_frame: float, percent: float, percent_from_25: float
) -> None:
    share, large, _ = closed(per_frame, 2 * 3 * 1.7)
    assert 100 * share == pytest.approx(percent, abs=0.2)
    # The published figures for 25 um rest on few particles at 20 per frame.
    assert 100 * large == pytest.approx(percent_from_25, abs=2.5 if per_frame == 20 else 0.8)


def test_advice_to_dilute_brings_it_to_5_percent() -> None:
    crowd = {"field_um2": WIDTH_UM * HEIGHT_UM, "halo_um": 8.0}
    found = coincidence([12.0], [1], per_frame=900.0, **crowd)
    assert found.dilute
    assert f"dilute by {found.dilute_by:.2g} or more" in found.advice
    after = coincidence([12.0], [1], per_frame=900.0 / found.dilute_by, **crowd)
    assert after.overlapping_share == pytest.approx(0.05, rel=1e-6)
    few = coincidence([12.0], [1], per_frame=20.0, **crowd)
    assert (few.dilute, few.dilute_by) == (False, 1.0)
    assert "dilution is advised above 5 %" in few.advice


def test_the_number_that_is_hidden_is_put_back() -> None:
    true_per_frame = 600.0
    rng = np.random.default_rng(2)
    sizes = power_law(100_000, rng)
    truth = coincidence(sizes, np.ones_like(sizes), per_frame=true_per_frame, field_um2=4e6, halo_um=8.0)
    seen = int(true_per_frame * 100 * (1 - truth.lost_share))
    h = Histogram.of(np.zeros(seen, int), power_law(seen, rng), np.ones(seen), classes=("glass",))
    found = coincidence_of(h, frames=100, field_um2=4e6, halo_um=8.0)
    assert found.per_frame == pytest.approx(true_per_frame, rel=0.01)
    assert found.overlapping_share == pytest.approx(truth.overlapping_share, rel=0.06)


def test_an_empty_run_overlaps_nowhere() -> None:
    found = coincidence_of(Histogram.empty(("glass",)), frames=0, field_um2=4e6, halo_um=8.0)
    assert (found.overlapping_share, found.lost_share, found.dilute) == (0.0, 0.0, False)
    with pytest.raises(ValueError, match="positive field"):
        coincidence([5.0], [1.0], per_frame=3.0, field_um2=0.0, halo_um=1.0)
