import hashlib
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from click.testing import CliRunner

from converters.__main__ import main
from converters.tflite import IntegerModel, convert_to_int8, run_int8
from edge_app.classification import Bundle, Classifier, Crops, open_backend
from training.fit import network_from_bundle
from training.learning import CODE_SCALE, network_inputs


@pytest.fixture(scope="module")
def crops() -> Crops:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:40, 0:40] - 19.5
    pixels = np.empty((400, 40, 40, 1), np.uint8)
    for i in range(400):
        r = np.hypot(x, y * rng.uniform(0.4, 1)) / rng.uniform(2, 14)
        ratio = 1 + rng.uniform(-0.9, 0.2) * np.exp(-(((r - rng.uniform(0, 1)) / 0.35) ** 2))
        pixels[i, :, :, 0] = np.clip(np.rint(160 * (ratio + 0.008 * rng.standard_normal(r.shape))), 0, 255)
    columns = len(Bundle.load().geometry.context)
    return Crops(pixels=pixels, context=np.zeros((400, columns), np.float32), um_per_px=np.full(400, 1.33, np.float32))


@pytest.fixture(scope="module")
def integer(crops: Crops) -> IntegerModel:
    bundle = Bundle.load()
    return convert_to_int8(network_from_bundle(bundle, bundle.classes), crops, code_scale=CODE_SCALE)


def test_int8_agrees_with_the_float_network(crops: Crops, integer: IntegerModel) -> None:
    bundle = Bundle.load()
    model = network_from_bundle(bundle, bundle.classes)
    wanted = model.predict(network_inputs(crops), verbose=0)
    logits, embedding = run_int8(integer, crops)
    assert (wanted["logits"].argmax(axis=1) == logits.argmax(axis=1)).mean() >= 0.95
    assert np.median(abs(wanted["logits"] - logits)) < 0.2
    assert np.corrcoef(wanted["embedding"].ravel(), embedding.ravel())[0, 1] > 0.98


def test_the_input_takes_the_code_as_it_is(integer: IntegerModel) -> None:
    crop = integer.quantisation["crop"]
    assert crop.zero_point == 32
    assert crop.scale == pytest.approx(1 / 64, rel=1e-4)


def test_residual_branches_are_quantised_no_wider_than_they_can_act(integer: IntegerModel) -> None:
    interpreter = Interpreter(model_content=integer.content)
    interpreter.allocate_tensors()
    scales = {d["index"]: d["quantization"][0] for d in interpreter.get_tensor_details()}
    sums = [op for op in interpreter._get_ops_details() if op["op_name"] == "ADD"]
    assert len(sums) >= 4
    for op in sums:
        assert max(scales[i] for i in op["inputs"]) <= 12.01 / 255


def test_conversion_is_deterministic(crops: Crops, integer: IntegerModel) -> None:
    bundle = Bundle.load()
    again = convert_to_int8(network_from_bundle(bundle, bundle.classes), crops, code_scale=CODE_SCALE)
    a, _ = run_int8(integer, crops)
    b, _ = run_int8(again, crops)
    assert np.array_equal(a, b)


def test_the_device_and_the_converter_compute_the_same(crops: Crops) -> None:
    bundle = Bundle.load()
    classifier = Classifier(bundle, open_backend(bundle, preference="litert").backend)
    known = bundle.geometry.context.index("field_known")
    crops = replace(crops, context=crops.context + np.eye(crops.context.shape[1], dtype=np.float32)[known])
    logits, embedding = classifier.outputs(crops)
    assert bundle.head is not None
    model = IntegerModel(content=bundle.model, quantisation=bundle.description.quantisation, head=bundle.head)
    want_logits, want_embedding = run_int8(model, crops)
    assert np.array_equal(logits, want_logits)
    assert embedding is not None
    assert np.array_equal(embedding, want_embedding)


def test_shipped_figures_hold_the_int8_loss_within_half_a_point() -> None:
    metrics = Bundle.load().description.metrics
    for name in ("test", "heldout"):
        assert metrics[name]["int8_loss"] <= 0.005


def test_command_converts_a_bundle_again(tmp_path: Path, crops: Crops) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(30):
        cv2.imwrite(str(folder / f"{i}.png"), crops.pixels[i, 8:32, 8:32, 0])
    out = tmp_path / "model.tflite"
    done = CliRunner().invoke(main, ["tflite", "--pictures", str(folder), "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert "same class as float" in done.output
    assert out.read_bytes()[4:8] == b"TFL3"


def test_command_tells_a_missing_folder_in_one_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["tflite", "--pictures", str(tmp_path / "no"), "-o", str(tmp_path / "m.tflite")])
    assert done.exit_code == 2
    assert len(done.output.strip().splitlines()) == 1


def test_bundle_json_names_every_file_it_ships() -> None:
    bundle = Bundle.load()
    stated = json.loads((bundle.directory / "bundle.json").read_text())["files"]
    found = {p.name for p in bundle.directory.iterdir()} - {"bundle.json"}
    assert set(stated) == found
    for name in found:
        assert hashlib.sha256((bundle.directory / name).read_bytes()).hexdigest() == stated[name]
