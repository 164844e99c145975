"""The whole way that the shipped bundle goes, on a scale of minutes, not hours."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_app.classification import Bundle, CropGeometry
from training import simulated
from training.datasets.views import ViewStore, render_shards
from training.learning import Schedule
from training.optics import KNOWN
from training.simulated import LIBRARIES, PRIOR, TEACHING, RollingExposures, SimulatedFit, simulate_fit


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


def test_from_nothing_to_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volumes = {n: 30 if n.startswith("train") else 14 for n in LIBRARIES}
    small = {n: replace(library, volumes=volumes[n], large_share=0.0) for n, library in LIBRARIES.items()}
    monkeypatch.setattr(simulated, "LIBRARIES", small)
    options = SimulatedFit(schedule=Schedule(epochs=1, samples_per_epoch=1024, batch=64), workers=1)
    lines: list[str] = []
    bundle = simulate_fit(tmp_path / "bundle", work=tmp_path / "work", options=options, report=lines.append)
    assert Bundle.load(tmp_path / "bundle").model_sha256 == bundle.model_sha256
    assert bundle.classes == KNOWN
    assert {"test", "heldout", "unknown"} <= set(bundle.description.metrics)
    assert 0 < bundle.description.training["views"] <= 30 * 6 + 30 * 8 + 30 * 8
    assert any("epoch 1/1" in line for line in lines)
