import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_app.capture.frame import RATIO_ONE
from edge_app.capture.simulation.flow_cell import open_simulation
from edge_app.capture.simulation.sprite_library import SpriteLibrary
from edge_app.classification import (
    Bundle,
    Classifier,
    Crops,
    available_backends,
    cut_crops,
    open_backend,
)
from edge_app.classification.context import field_positions
from edge_app.errors import UserError
from edge_app.measurement.calibration import nominal_calibration
from edge_app.measurement.descriptors import measure
from edge_app.segmentation.segmenter import Segmenter

ROOT = Path(__file__).parents[3]
TFLITE_PYTHON = Path(os.environ.get("EDGE_APP_TFLITE_PYTHON", ROOT / ".venv-tflite-runtime" / "bin" / "python"))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load()


@pytest.fixture(scope="module")
def classifier(bundle: Bundle) -> Classifier:
    return Classifier(bundle, open_backend(bundle, preference="litert").backend)


def _crops(pixels: np.ndarray, log2_reduction: float = 0.0) -> Crops:
    """Crops of known place as the shipped bundle takes them."""
    columns = {"log2_reduction": log2_reduction, "field_known": 1.0}
    context = [[columns.get(name, 0.0) for name in Bundle.load().geometry.context]] * len(pixels)
    return Crops(pixels=pixels, context=np.array(context, np.float32), um_per_px=np.full(len(pixels), 1.33, np.float32))


def particle_crops(n: int, seed: int = 0) -> Crops:
    """Particles of the shipped sprites of all families with camera noise, boxed at 4 % from the background."""
    library = SpriteLibrary.shipped()
    rng = np.random.default_rng(seed)
    parts = []
    while len(parts) < n:
        patch = np.pad(library.patch(int(rng.integers(len(library)))), 4, constant_values=RATIO_ONE).astype(float)
        noisy = patch + 160 * 0.008 * rng.standard_normal(patch.shape)
        ratio = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
        rows, columns = np.nonzero(abs(patch - RATIO_ONE) > 0.045 * RATIO_ONE)
        if len(rows) < 20:
            continue
        x, y = columns.min(), rows.min()
        box = [np.array([v]) for v in (x, y, columns.max() + 1 - x, rows.max() + 1 - y)]
        parts.append(cut_crops(ratio, *box, geometry=Bundle.load().geometry, um_per_px=1.33))
    return Crops.concatenate(parts)


def test_the_result_of_a_crop_does_not_depend_on_its_batch(classifier: Classifier) -> None:
    crops = particle_crops(203)
    together = classifier.classify(crops)
    for rows in (slice(0, 1), slice(5, 8), slice(10, 53), slice(100, 203)):
        some = classifier.classify(crops.take(rows))
        assert np.array_equal(some.probabilities, together.probabilities[rows])
        assert np.array_equal(some.class_index, together.class_index[rows])
        assert np.array_equal(some.confidence, together.confidence[rows])


def test_threads_do_not_change_the_result(bundle: Bundle, classifier: Classifier) -> None:
    crops = particle_crops(64, seed=3)
    two = Classifier(bundle, open_backend(bundle, preference="litert", threads=2).backend)
    assert np.array_equal(two.classify(crops).probabilities, classifier.classify(crops).probabilities)


def test_inputs_are_the_codes_with_the_top_bit_flipped(classifier: Classifier) -> None:
    codes = np.arange(256, dtype=np.uint8)
    pixels = np.full((1, 40, 40, 1), 160, np.uint8)
    pixels.reshape(-1)[:256] = codes
    q, context = classifier.quantised(_crops(pixels, 2.0))
    assert q.reshape(-1)[:256].tolist() == (codes.astype(int) - 128).tolist()
    scale = classifier.bundle.description.quantisation["context"]
    assert (int(context[0, 0]) - scale.zero_point) * scale.scale == pytest.approx(2.0, abs=scale.scale)


def test_shapes_types_and_the_unknown_index(classifier: Classifier) -> None:
    result = classifier.classify(particle_crops(300, seed=4))
    classes = len(classifier.bundle.classes)
    assert classifier.classes == (*classifier.bundle.classes, "unknown")
    assert result.probabilities.shape == (300, classes)
    assert result.class_index.dtype == np.int16
    assert np.allclose(result.probabilities.sum(axis=1), 1, atol=1e-5)
    rule = classifier.bundle.description.rejection
    # These crops have no place in the field.
    weighed = result.probabilities * np.exp(np.asarray(rule.class_offset_unplaced or np.zeros(classes), np.float32))
    weighed /= weighed.sum(axis=1, keepdims=True)
    best = weighed.argmax(axis=1)
    assert np.array_equal(result.confidence, result.probabilities[np.arange(300), best])
    novelty = np.zeros(300) if result.novelty is None else result.novelty
    unknown = (weighed.max(axis=1) < rule.minimum_probability) | (novelty > rule.maximum_novelty)
    assert np.array_equal(result.class_index, np.where(unknown, classes, best))


def test_a_crop_of_unknown_place_may_lie_any_way(classifier: Classifier) -> None:
    crops = particle_crops(60, seed=9)
    assert not crops.context[:, list(classifier.bundle.geometry.context).index("field_known")].any()
    as_they_lie = classifier.classify(crops)
    turned = classifier.classify(dataclasses.replace(crops, pixels=np.rot90(crops.pixels, 1, axes=(1, 2)).copy()))
    assert np.allclose(as_they_lie.probabilities, turned.probabilities, atol=1e-5)
    assert np.allclose(as_they_lie.ecd_um, turned.ecd_um, rtol=1e-4)


def test_known_and_unknown_places_can_be_mixed(classifier: Classifier) -> None:
    crops = particle_crops(40, seed=10)
    crops.context[::2] = _crops(crops.pixels[:1]).context
    together = classifier.classify(crops)
    for rows in (slice(0, None, 2), slice(1, None, 2)):
        alone = classifier.classify(crops.take(np.arange(40)[rows]))
        assert np.allclose(alone.probabilities, together.probabilities[rows], atol=1e-6)
        assert np.allclose(alone.depth_um, together.depth_um[rows], atol=1e-4)


def test_true_size_is_read_off_the_picture(classifier: Classifier) -> None:
    """Beads and droplets of the shipped library, whose true size is known: unbiased, as far off as it says at most."""
    library = SpriteLibrary.shipped()
    rng = np.random.default_rng(5)
    parts, true_um = [], []
    for i in rng.permutation(len(library))[:1500].tolist():
        if library.family_name(i) not in ("bead", "silicone_oil") or not 5 <= library.ecd_um[i] <= 50:
            continue
        patch = np.pad(library.patch(i), 4, constant_values=RATIO_ONE).astype(float)
        ratio = np.clip(np.rint(patch + 1.3 * rng.standard_normal(patch.shape)), 0, 255).astype(np.uint8)
        rows, columns = np.nonzero(abs(patch - RATIO_ONE) > 0.045 * RATIO_ONE)
        box = [np.array([v]) for v in (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)]
        parts.append(cut_crops(ratio, *box, geometry=classifier.bundle.geometry, um_per_px=1.33))
        true_um.append(float(library.ecd_um[i]))
    said = classifier.classify(Crops.concatenate(parts))
    assert said.ecd_um is not None
    assert said.ecd_relative_sd is not None
    ratio_to_truth = said.ecd_um / np.array(true_um)
    assert len(true_um) > 100
    assert np.median(ratio_to_truth) == pytest.approx(1, abs=0.03)
    pull = np.log(ratio_to_truth) / said.ecd_relative_sd
    assert 0.3 < np.std(np.clip(pull, -5, 5)) < 1.2  # spheres are read better than the average it was taught


def test_no_crop_no_call(classifier: Classifier) -> None:
    result = classifier.classify(Crops.empty(classifier.bundle.geometry))
    assert len(result) == 0
    assert result.probabilities.shape == (0, len(classifier.bundle.classes))


def test_crops_of_another_window_are_refused(classifier: Classifier) -> None:
    with pytest.raises(UserError, match=r"\(48, 48, 1\)"):
        classifier.classify(_crops(np.zeros((2, 48, 48, 1), np.uint8), 0.0))


def test_an_unknown_back_end_names_the_known_ones(bundle: Bundle) -> None:
    with pytest.raises(UserError, match="auto, edgetpu, onnx, litert, tflite_runtime"):
        open_backend(bundle, preference="hal9000")


def test_a_back_end_that_cannot_be_used_is_replaced_with_a_warning(bundle: Bundle) -> None:
    state = {s.name: s.problem for s in available_backends()}
    if not state["edgetpu"]:
        pytest.skip("this machine has an Edge TPU")
    opened = open_backend(bundle, preference="edgetpu")
    assert opened.backend.name in {"litert", "tflite_runtime"}
    assert len(opened.warnings) >= 1
    assert "edgetpu" in opened.warnings[0]
    assert opened.backend.name in opened.warnings[0]
    assert open_backend(bundle).warnings == ()


def test_a_model_whose_quantisation_is_not_the_stated_one_is_refused(bundle: Bundle) -> None:
    d = bundle.description
    wrong = {**d.quantisation, "logits": d.quantisation["logits"].model_copy(update={"scale": 0.5})}
    changed = Bundle(
        directory=bundle.directory,
        description=d.model_copy(update={"quantisation": wrong}),
        model=bundle.model,
        prototypes=None,
    )
    with pytest.raises(UserError, match="quantisation of logits differs"):
        open_backend(changed, preference="litert")


CROSS_CHECK = """
import sys
import numpy as np
from edge_app.classification import Bundle, Classifier, Crops, open_backend
bundle = Bundle.load(sys.argv[1])
opened = open_backend(bundle, preference="tflite_runtime")
assert opened.backend.name == "tflite_runtime", opened
with np.load(sys.argv[2]) as data:
    crops = Crops(pixels=data["pixels"], context=data["context"], um_per_px=data["um_per_px"])
result = Classifier(bundle, opened.backend).classify(crops)
np.savez(sys.argv[3], class_index=result.class_index, probabilities=result.probabilities)
"""


def found_crops(frames: int, seed: int) -> Crops:
    """Particles that a run finds at line rate, as the network gets them."""
    source = open_simulation(f"sim:?concentration=175000&size_min_um=4&frames={frames}&seed={seed}")
    calibration = nominal_calibration(um_per_px=1.33, depth_um=100.0)
    segmenter, shots, parts = Segmenter(), list(source.frames()), []
    segmenter.prime([shot.image for shot in shots[: segmenter.prime_frames]])
    for shot in shots:
        result = segmenter.process(shot)
        assert result.ratio is not None
        p = measure(result.ratio, result.regions, frame=0, time_s=0.0, calibration=calibration)
        box = (p.x_px, p.y_px, p.width_px, p.height_px)
        place = field_positions(*box, frame_shape=result.ratio.shape)
        geometry = Bundle.load().geometry
        parts.append(cut_crops(result.ratio, *box, geometry=geometry, um_per_px=1.33, field=place))
    return Crops.concatenate(parts)


def test_tflite_runtime_gives_the_same_classes(classifier: Classifier, tmp_path: Path) -> None:
    if not TFLITE_PYTHON.exists():
        pytest.skip(f"{TFLITE_PYTHON} does not exist: tflite_runtime needs numpy 1 and an environment of its own")
    crops = found_crops(80, seed=5)
    np.savez(tmp_path / "crops.npz", pixels=crops.pixels, context=crops.context, um_per_px=crops.um_per_px)
    out = tmp_path / "result.npz"
    arguments = [str(classifier.bundle.directory), str(tmp_path / "crops.npz"), str(out)]
    done = subprocess.run(
        [str(TFLITE_PYTHON), "-c", CROSS_CHECK, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ours = classifier.classify(crops)
    assert len(np.unique(ours.class_index)) >= 3
    with np.load(out) as theirs:
        same = theirs["class_index"] == ours.class_index
        # The two round differently inside (docs/classification.md): it tips the scale where two classes are as likely.
        assert same.mean() >= 0.99, f"{same.mean():.4f} of {len(crops)} crops have the same class"
        sure = ours.confidence > 0.6
        assert same[sure].mean() >= 0.998
        assert abs(theirs["probabilities"] - ours.probabilities).max() < 0.2


def test_the_device_side_classifies_where_tensorflow_cannot_be_imported() -> None:
    code = (
        "import sys; sys.modules['tensorflow'] = None; sys.modules['keras'] = None\n"
        "import numpy as np\n"
        "from edge_app.classification import Bundle, Classifier, cut_crops, open_backend\n"
        "b = Bundle.load(); c = Classifier(b, open_backend(b).backend)\n"
        "box = [np.full(3, v) for v in (4, 4, 9, 9)]\n"
        "ratio = np.full((40, 40), 160, np.uint8)\n"
        "r = c.classify(cut_crops(ratio, *box, geometry=b.geometry, um_per_px=1.33))\n"
        "assert len(r) == 3\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
