from pathlib import Path

import numpy as np

from converters.bundle_writer import write_bundle
from converters.tflite import IntegerModel
from edge_app.classification import Bundle
from edge_app.classification.drift import class_drift, drift_reference, read_drift_reference


def test_a_bundle_carries_its_drift_reference(tmp_path: Path) -> None:
    source = Bundle.load()
    rng = np.random.default_rng(0)
    n, d = len(source.classes), source.description
    assert source.head is not None
    width = source.head.kernel.shape[0]
    window = (
        rng.random((1200, width)).astype(np.float32),
        rng.integers(0, n, 1200),
        np.ones(1200, np.float32),
        rng.uniform(8, 30, 1200),
    )
    drift = drift_reference(*window, classes=source.classes, draws=50)
    made = write_bundle(
        tmp_path / "bundle",
        name="drift",
        bundle_version="1",
        classes=source.classes,
        geometry=source.geometry,
        code_scale=d.input.code_scale,
        model=IntegerModel(source.model, dict(d.quantisation), source.head),
        float_weights=None,
        temperature=1.0,
        log_prior=np.zeros(n),
        assumed_mix=[1 / n] * n,
        rejection=d.rejection,
        confusion=np.eye(n, n + 1),
        metrics={},
        training={},
        prototypes=np.zeros((n, width), np.float32),
        reference_embeddings=np.zeros((0, width), np.float32),
        reference_labels=np.zeros(0, np.int64),
        card="",
        drift=drift,
    )
    read = read_drift_reference(made.directory)
    assert read is not None
    assert repr(class_drift(read, *window)) == repr(class_drift(drift, *window))
    assert (made.directory / "reference.npz").stat().st_size < 70_000
    assert made.head is not None
    assert read_drift_reference(source.directory) is not None, "the shipped bundle has one too"
