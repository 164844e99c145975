"""Single beads among doublets and dirt, where the truth of every row is known."""

import numpy as np
import numpy.typing as npt
import pytest

from edge_app.measurement.bead_fit import BeadFitSettings, fit_singlets

F8 = npt.NDArray[np.float64]
QUICK = BeadFitSettings(bootstrap=20)


def _run(seed: int, *, fades: float, singlets: int = 900, doublets: int = 100, dirt: int = 60) -> tuple[F8, F8, F8]:
    """Diameter, extinction and true kind (0 single, 1 doublet, 2 dirt) of beads of which a quarter is far from focus.

    Those read up to twice as large, and their extinction fades by ``fades`` (ln) as they do.
    """
    rng = np.random.default_rng(seed)
    blur = np.maximum(rng.uniform(-2.0, 0.7, singlets + doublets), 0.0)
    kind = np.repeat([0.0, 1.0], [singlets, doublets])
    log_d = np.log(9.0) + blur + 0.3 * kind + rng.normal(0, 0.03, len(kind))
    log_e = 4.0 - fades * blur / 0.7 + np.log(2.0) * kind + rng.normal(0, 0.05, len(kind))
    d = np.exp(np.concatenate([log_d, rng.uniform(np.log(4), np.log(30), dirt)]))
    e = np.exp(np.concatenate([log_e, rng.uniform(2.2, 5.8, dirt)]))
    return d, e, np.concatenate([kind, np.full(dirt, 2.0)])


@pytest.mark.parametrize("fades", [0.0, 0.35, -0.25])
def test_beads_far_from_focus_stay_single_though_their_extinction_goes_with_their_size(fades: float) -> None:
    for seed in range(4):
        d, e, kind = _run(seed, fades=fades)
        fit = fit_singlets(d, e, np.arange(len(d)) // 20, settings=QUICK)
        assert fit is not None
        single = kind == 0
        assert fit.location_px == pytest.approx(float(np.median(d[single])), rel=0.006)
        blurred = single & (d > 14)
        assert float(fit.singlet_share[blurred].mean()) > 0.9
        assert float(fit.singlet_share[kind == 1].mean()) < 0.05
        assert fit.singlets == pytest.approx(900, rel=0.05)
        assert fit.clusters == pytest.approx(100, rel=0.25)


def test_the_uncertainty_is_that_of_repeated_runs() -> None:
    runs = [_run(seed, fades=0.2, singlets=400, doublets=40, dirt=20) for seed in range(40)]
    fits = [fit_singlets(d, e, np.arange(len(d)) // 20, settings=QUICK) for d, e, _ in runs]
    location = np.array([f.location_px for f in fits if f is not None])
    stated = np.array([f.u_px for f in fits if f is not None])
    assert float(np.median(stated)) == pytest.approx(float(location.std(ddof=1)), rel=0.3)


def test_next_to_nothing_is_no_fit() -> None:
    assert fit_singlets(np.full(19, 9.0), np.full(19, 30.0), np.arange(19)) is None
    assert fit_singlets(np.full(40, 9.0), np.zeros(40), np.arange(40)) is None
