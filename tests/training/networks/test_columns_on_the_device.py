"""What a network is told beside the picture: the device gives it what it measured, training what the device would."""

from functools import partial
from typing import Any

import numpy as np
import pytest

from converters import convert_to_int8, write_bundle
from edge_app.capture.simulation.flow_cell import open_simulation
from edge_app.classification.backends import open_backend
from edge_app.classification.bundle import Bundle
from edge_app.classification.classifier import Classifier
from edge_app.classification.context import SIZE_SHARES, VOCABULARY, particle_columns, size_shares
from edge_app.classification.crops import CropGeometry, Crops
from edge_app.classification.rejection import Classification, Rejection
from edge_app.classification.tight_crops import crops_of_pictures
from edge_app.config import load_settings
from edge_app.errors import UserError
from edge_app.loop import Loop
from edge_app.measurement.shape_moments import USR
from edge_app.pipeline import choose_calibration, frame_volume_ml
from edge_app.segmentation.segmenter import Segmenter
from edge_app.windowing import ClosedWindow, WindowBuilder
from training.datasets.exposure import simulated_crops
from training.datasets.views import ViewStore
from training.learning import CODE_SCALE
from training.networks import build_network
from training.optics import KNOWN
from training.optics.generate import one_volume
from training.optics.scene import RANGES

GEOMETRY = CropGeometry(window_px=24, context=VOCABULARY)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """An untaught network that asks for all there is."""
    n = len(KNOWN)
    model = build_network("multi_modal", classes=n, window_px=24, alpha=0.25, head=16, context=len(VOCABULARY))
    rng = np.random.default_rng(0)
    crops = Crops(
        pixels=rng.integers(0, 256, (8, 24, 24, 1)).astype(np.uint8),
        context=rng.random((8, len(VOCABULARY))).astype(np.float32),
        um_per_px=np.ones(8, np.float32),
    )
    return write_bundle(
        tmp_path_factory.mktemp("bundle") / "b",
        name="asks-for-all",
        bundle_version="1",
        classes=KNOWN,
        geometry=GEOMETRY,
        code_scale=CODE_SCALE,
        model=convert_to_int8(model, crops, code_scale=CODE_SCALE),
        float_weights=None,
        temperature=1.0,
        log_prior=np.zeros(n),
        assumed_mix=[1 / n] * n,
        rejection=Rejection(),
        confusion=np.eye(n, n + 1),
        metrics={},
        training={},
        prototypes=np.zeros((n, 64), np.float32),
        reference_embeddings=np.zeros((n, 64), np.float32),
        reference_labels=np.arange(n),
        card="",
    )


class Watched(Classifier):
    """Remembers what it was given."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.seen: list[Crops] = []

    def classify(self, crops: Crops) -> Classification:
        self.seen.append(crops)
        return super().classify(crops)


def run(bundle: Bundle, *, min_ecd_um: float) -> tuple[list[ClosedWindow], Crops]:
    settings = load_settings(None, {"segmentation.stuck.enabled": "false"})
    source = open_simulation("sim:?concentration=100000&seed=5&frames=10")
    calibration = choose_calibration(settings.flow_cell, source.info)
    classifier = Watched(bundle, open_backend(bundle, threads=1).backend)
    loop = Loop(
        source=source,
        segmenter=Segmenter(settings.segmentation),
        classifier=classifier,
        calibration=calibration,
        builder=WindowBuilder(
            run_id="r",
            classes=classifier.classes,
            frame_volume_ml=partial(frame_volume_ml, calibration=calibration, info=source.info),
            length_s=60.0,
        ),
        min_ecd_um=min_ecd_um,
        hash_frames=False,
    )
    return list(loop.windows()), Crops.concatenate(classifier.seen)


def test_the_loop_tells_what_it_measured_and_the_sizes_of_the_run_so_far(bundle: Bundle) -> None:
    (window,), seen = run(bundle, min_ecd_um=0.0)
    particles = window.particles
    assert len(seen) == len(particles) > 100
    table = {name: seen.context[:, k] for k, name in enumerate(VOCABULARY)}
    for name, values in particle_columns(VOCABULARY, particles).items():
        if name not in SIZE_SHARES:
            assert np.array_equal(table[name], values), name
    shares = np.stack([table[name] for name in SIZE_SHARES], axis=1)
    for sequence in np.unique(particles.frame):
        so_far = size_shares(particles.ecd_um[particles.frame <= sequence])
        assert abs(shares[particles.frame == sequence] - so_far).max() < 1e-6
    assert all(table[name].std() > 0 for name in USR)


def test_particles_too_small_to_count_are_in_the_run_and_in_no_crop(bundle: Bundle) -> None:
    (everything,), seen = run(bundle, min_ecd_um=0.0)
    (large,), seen_large = run(bundle, min_ecd_um=6.0)
    rows = everything.particles.ecd_um >= 6.0
    assert 0 < rows.sum() < len(rows)
    assert np.array_equal(seen.context[rows], seen_large.context)
    assert np.array_equal(seen.pixels[rows], seen_large.pixels)
    assert len(large.particles) == rows.sum()


def test_pictures_cut_by_another_instrument_are_refused_in_one_line(bundle: Bundle) -> None:
    pictures = [np.full((12, 12), 200, np.uint8)]
    with pytest.raises(UserError, match="asks for log2_ecd_um, which is not known of these pictures") as caught:
        crops_of_pictures(pictures, geometry=bundle.geometry, um_per_px=1.33, levels=np.array([200.0], np.float32))
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def store() -> ViewStore:
    views, groups = [], []
    for index, family in enumerate(("silicone_oil", "bead", "glass")):
        found = one_volume(index, families=(family,), seed=5, ranges=RANGES["training"], views_per_volume=2)
        views += found
        groups += [index] * len(found)
    return ViewStore.from_views(views, groups)


def test_photographs_are_the_same_whatever_the_network_asks_for(store: ViewStore) -> None:
    draw = partial(simulated_crops, store, classes=KNOWN, seed=3)
    plain, full = draw(geometry=CropGeometry(window_px=24)), draw(geometry=GEOMETRY)
    assert len(full) > 0
    assert np.array_equal(plain.pixels, full.pixels)
    assert np.array_equal(plain.context, full.context[:, : plain.context.shape[1]])
    again = draw(geometry=GEOMETRY)
    assert np.array_equal(full.context, again.context)


def test_simulated_columns_are_those_of_the_particle(store: ViewStore) -> None:
    crops = simulated_crops(store, classes=KNOWN, seed=3, geometry=CropGeometry(window_px=96, context=VOCABULARY))
    table = {name: crops.context[:, k] for k, name in enumerate(VOCABULARY)}
    # Optics and threshold make a mask up to twice as wide as the particle, or find a part of it.
    assert abs(table["log2_ecd_um"] - np.log2(crops.ecd_um)).max() < 1.3
    # The mask lies inside the crop.
    assert (table["intensity_min"] >= crops.pixels.min(axis=(1, 2, 3)) / 160 - 1e-6).all()
    assert (table["intensity_max"] <= crops.pixels.max(axis=(1, 2, 3)) / 160 + 1e-6).all()
    assert np.stack([table[name] for name in SIZE_SHARES], axis=1).sum(axis=1) == pytest.approx(np.ones(len(crops)))
    round_ones = np.isin(crops.label, [KNOWN.index("silicone_oil"), KNOWN.index("bead")])
    assert table["circularity"][round_ones].mean() > 0.7
