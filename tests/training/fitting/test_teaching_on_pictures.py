"""Fine-tuning on labelled pictures leaves alone what they say nothing about."""

import cv2
import numpy as np
import pytest

from edge_app.classification.bundle import Bundle
from training.datasets.labelled import LabelledCrops
from training.datasets.pictures import LabelledPictures
from training.fitting.options import FitOptions
from training.fitting.start import network_from_bundle
from training.fitting.teaching import Logs, teach_pictures
from training.fitting.validation_groups import set_validation_aside
from training.learning import predict


def discs_and_rings(n: int = 40, *, seed: int = 0) -> LabelledPictures:
    """Dark discs and dark rings of 9 to 22 px in four runs, at level 160."""
    rng = np.random.default_rng(seed)
    pictures = []
    for i in range(n):
        side = int(rng.integers(14, 28))
        picture = np.full((side, side), 160.0, np.float32)
        middle = (side // 2, side // 2)
        cv2.circle(picture, middle, side // 2 - 3, 90.0, -1 if i % 2 else 2)
        blurred = cv2.GaussianBlur(picture, (0, 0), 0.8)
        pictures.append(np.clip(blurred + rng.normal(0, 1.5, blurred.shape), 0, 255).astype(np.uint8))
    return LabelledPictures(
        pictures=pictures,
        files=[f"{i}.png" for i in range(n)],
        label=(np.arange(n) % 2).astype(np.int64),
        group=np.array([f"run{i // 2 % 4}" for i in range(n)]),
        level=np.full(n, 160.0, np.float32),
        classes=("ring", "silicone_oil"),
        um_per_px=1.33,
    )


def read_um(model: object, crops: LabelledCrops) -> np.ndarray:
    return np.exp(predict(model, crops)["size"][:, 0]) * crops.um_per_px * np.exp2(crops.context[:, 0])


def test_sizes_are_read_as_before() -> None:
    bundle = Bundle.load()
    other = discs_and_rings(seed=9).crops(bundle.geometry)
    classes = ("ring", "silicone_oil")
    start = network_from_bundle(bundle, classes)
    if "size" not in start.output:
        pytest.skip("the shipped bundle reads no sizes")
    options = FitOptions(epochs=8, learning_rate=2e-3)
    fitted = teach_pictures(
        discs_and_rings(),
        None,
        init=bundle,
        geometry=bundle.geometry,
        options=options,
        logs=Logs(report=lambda _: None),
    )
    moved = np.log(read_um(fitted.model, other) / read_um(start, other))
    assert np.abs(moved).max() > 0  # the network did learn
    assert abs(np.median(moved)) < 0.03
    assert np.quantile(np.abs(moved), 0.9) < 0.12
    assert fitted.record["epochs_made"] == fitted.record["kept_epoch"] == 8


def test_groups_are_set_aside_or_it_is_said_why_not() -> None:
    pictures = discs_and_rings()
    teaching, validation, words = set_validation_aside(pictures, share=0.25, seed=1)
    assert validation is not None
    assert not set(teaching.group) & set(validation.group)
    assert len(teaching) + len(validation) == len(pictures)
    assert words == f"validation set: {len(validation)} pictures of {len(set(validation.group))} groups"
    few = pictures.take(np.arange(8))
    teaching, validation, words = set_validation_aside(few, share=0.25, seed=1)
    assert validation is None
    assert teaching is few
    assert words == "class ring would have 1 aside and 3 to learn from"
    half = pictures.take(np.flatnonzero(np.isin(pictures.group, ["run0", "run1"])))
    assert set_validation_aside(half, share=0.2, seed=1)[2] == "class ring would have 5 aside and 5 to learn from"
    assert set_validation_aside(pictures, share=0, seed=1)[1:] == (None, "none is wanted")
