"""The whole way that the shipped bundle goes, on a scale of minutes, not hours."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_app.classification import Bundle, CropGeometry
from training import simulated
from training.datasets.views import ViewStore, render_shards
from training.fitting.repeatable import make_repeatable
from training.fitting.start import network_from_bundle
from training.learning import Schedule
from training.optics import KNOWN
from training.simulated import (
    LIBRARIES,
    PRIOR,
    SMALLEST_TOLD_APART_UM,
    TEACHING,
    RollingExposures,
    SimulatedFit,
    show_oil_clusters_again,
    simulate_fit,
)


def test_test_libraries_share_no_seed_with_the_training_and_reach_outside_its_optics() -> None:
    training = {LIBRARIES[n].seed for n in TEACHING}
    others = [LIBRARIES[n].seed for n in ("calibration", "test", "heldout", "unknown")]
    assert not training & set(others)
    assert len(set(others)) == len(others)
    assert LIBRARIES["heldout"].ranges == "held-out"
    assert not set(LIBRARIES["unknown"].families) & set(KNOWN)
    assert set(LIBRARIES["train0"].families) == set(KNOWN) == set(PRIOR)
    assert sum(PRIOR.values()) == pytest.approx(1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ViewStore:
    return render_shards(
        tmp_path_factory.mktemp("v"), families=KNOWN, volumes=7, seed=3, views_per_volume=2, large_share=0.0
    )


def test_exposures_roll_on_and_repeat_by_seed(store: ViewStore) -> None:
    first = RollingExposures(store=store, geometry=CropGeometry(), parts=2, seed=5)
    second = RollingExposures(store=store, geometry=CropGeometry(), parts=2, seed=5)
    a = [first(epoch).pixels for epoch in range(3)]
    b = [second(epoch).pixels for epoch in range(3)]
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert a[0].shape != a[1].shape or not np.array_equal(a[0], a[1])


@pytest.mark.parametrize("begin", [1, 2, 5])
def test_exposures_can_begin_anywhere(store: ViewStore, begin: int) -> None:
    from_the_start = RollingExposures(store=store, geometry=CropGeometry(), parts=3, seed=5)
    wanted = [from_the_start(epoch).pixels for epoch in range(begin + 2)]
    later = RollingExposures(store=store, geometry=CropGeometry(), parts=3, seed=5)
    for epoch in (begin, begin + 1):
        assert np.array_equal(later(epoch).pixels, wanted[epoch])


def test_each_slice_is_photographed_anew_once_in_as_many_epochs(store: ViewStore) -> None:
    exposures = RollingExposures(store=store, geometry=CropGeometry(), parts=4, seed=100)
    assert [exposures.seed_of(part, 0) for part in range(4)] == [100] * 4
    assert [exposures.seed_of(part, 3) for part in range(4)] == [101, 102, 103, 100]
    assert [exposures.seed_of(part, 9) for part in range(4)] == [109, 106, 107, 108]


class Stop(Exception):
    """Stands for a kill."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_from_nothing_to_a_bundle_and_the_same_after_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volumes = {n: 30 if n.startswith("train") else 14 for n in LIBRARIES}
    small = {n: replace(library, volumes=volumes[n], large_share=0.0) for n, library in LIBRARIES.items()}
    monkeypatch.setattr(simulated, "LIBRARIES", small)
    make_repeatable()
    options = SimulatedFit(schedule=Schedule(epochs=2, samples_per_epoch=256, batch=64), workers=1)
    lines: list[str] = []

    def stop(line: str) -> None:
        lines.append(line)
        if line.startswith("epoch 2/2"):
            raise Stop

    with pytest.raises(Stop):
        simulate_fit(tmp_path / "stopped", work=tmp_path / "work", options=options, report=stop)
    shutil.copytree(tmp_path / "work" / "views", tmp_path / "other" / "views")
    resumed = simulate_fit(tmp_path / "stopped", work=tmp_path / "work", options=options, report=lines.append)
    assert "going on after step 4 of 8" in lines
    whole = simulate_fit(tmp_path / "bundle", work=tmp_path / "other", options=options, report=lambda line: None)
    assert Bundle.load(tmp_path / "bundle").model_sha256 == whole.model_sha256
    # Layers of a second network in one process have other names, so the weights are compared, not the file.
    first, second = (network_from_bundle(bundle, KNOWN).get_weights() for bundle in (resumed, whole))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert resumed.description.metrics == whole.description.metrics
    assert whole.classes == KNOWN
    assert {"test", "heldout", "unknown"} <= set(whole.description.metrics)
    assert 0 < whole.description.training["views"] <= 30 * (6 + 8 + 8) + 14 * 8
    assert not (tmp_path / "work" / "state.npz").exists()
    assert (tmp_path / "work" / "last.weights.h5").exists()

    further = SimulatedFit(
        init=whole,
        schedule=Schedule(epochs=1, samples_per_epoch=128, batch=64, degraded_share=0.5),
        workers=1,
        version="2",
    )
    taught_on = simulate_fit(tmp_path / "further", work=tmp_path / "other", options=further, report=lines.append)
    assert taught_on.description.training["start"] == f"mfi-default 1 ({whole.model_sha256[:12]})"
    assert taught_on.description.version == "2"
    moved = network_from_bundle(taught_on, KNOWN).get_weights()
    assert not all(np.array_equal(a, b) for a, b in zip(moved, second, strict=True))
    assert max(float(np.abs(a - b).max()) for a, b in zip(moved, second, strict=True)) < 0.5


def test_oil_that_touches_is_shown_again_and_nothing_else(tmp_path: Path) -> None:
    drawn = render_shards(
        tmp_path, families=("silicone_oil", "cellulose"), volumes=60, seed=3, ranges="training", views_per_volume=2
    )
    shown = show_oil_clusters_again(drawn, times=3)
    was, now = (np.unique(s.group, return_counts=True) for s in (drawn, shown))
    assert np.array_equal(was[0], now[0])
    again = now[1] != was[1]
    oil = np.array([drawn.family[drawn.group == g][0] == "silicone_oil" for g in was[0]])
    # One droplet in eleven is of several, and a fibre, though long, is no cluster of droplets.
    assert 0 < again[oil].sum() <= 0.3 * oil.sum()
    assert not again[~oil].any()
    for g in was[0][again]:
        views = np.flatnonzero(drawn.group == g)
        assert np.isin(np.unique(shown.start[shown.group == g], return_counts=True)[1], (1, 3)).all()
        assert (drawn.ecd_um[views] >= SMALLEST_TOLD_APART_UM).all()
