import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from converters.__main__ import main
from converters.check_particles import check_particles
from converters.onnx import STATEMENT_NAME, OnnxBounds, export_onnx, float_to_onnx, int8_to_onnx
from edge_app.classification import Bundle, Classifier, Crops, open_backend
from edge_app.classification.backends.onnx import FLOAT_NAME, INT8_NAME, OnnxBackend
from edge_app.errors import UserError
from training.fit import network_from_bundle


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("onnx") / "bundle"
    done = CliRunner().invoke(main, ["onnx", "-o", str(folder), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output) == json.loads((folder / STATEMENT_NAME).read_text())
    return Bundle.load(folder)


@pytest.fixture(scope="module")
def crops() -> Crops:
    return check_particles(Bundle.load(), "sim:?concentration=175000&size_min_um=4&frames=12&seed=3")


def test_the_statement_holds_bounds_and_what_was_measured(exported: Bundle) -> None:
    statement = json.loads((exported.directory / STATEMENT_NAME).read_text())
    assert statement["particles"] >= 300
    assert statement["from_model_sha256"] == Bundle.load().model_sha256
    assert set(statement["bounds"]) <= set(statement["measured"])
    for name in (INT8_NAME, FLOAT_NAME):
        assert statement["files"][name] == exported.description.files[name]
        onnx.checker.check_model(onnx.load(exported.directory / name), full_check=True)


def test_int8_on_onnx_gives_the_classes_of_tflite(exported: Bundle, crops: Crops) -> None:
    wanted = Classifier(exported, open_backend(exported, preference="litert").backend).classify(crops)
    opened = open_backend(exported, preference="onnx")
    assert (opened.backend.name, opened.warnings) == ("onnx", ())
    found = Classifier(exported, opened.backend).classify(crops)
    assert (found.class_index == wanted.class_index).mean() >= 0.995
    assert np.abs(found.probabilities - wanted.probabilities).max() < 0.1


def test_float_on_onnx_gives_the_classes_of_tflite_but_for_quantisation(exported: Bundle, crops: Crops) -> None:
    wanted = Classifier(exported, open_backend(exported, preference="litert").backend).classify(crops)
    content = (exported.directory / FLOAT_NAME).read_bytes()
    backend = OnnxBackend(content, exported, provider="CPUExecutionProvider", threads=1)
    assert backend.version.endswith("CPU float32")
    found = Classifier(exported, backend).classify(crops)
    assert (found.class_index == wanted.class_index).mean() >= 0.95


def test_the_result_of_a_crop_does_not_depend_on_its_batch(exported: Bundle, crops: Crops) -> None:
    classifier = Classifier(exported, open_backend(exported, preference="onnx").backend)
    together = classifier.classify(crops)
    for rows in (slice(0, 1), slice(3, 10), slice(20, 150)):
        assert np.array_equal(classifier.classify(crops.take(rows)).probabilities, together.probabilities[rows])


def test_without_a_gpu_auto_takes_litert_and_says_nothing(exported: Bundle) -> None:
    opened = open_backend(exported)
    assert (opened.backend.name, opened.warnings) == ("litert", ())


def test_a_bundle_without_onnx_falls_back_with_a_warning() -> None:
    opened = open_backend(Bundle.load(), preference="onnx")
    assert opened.backend.name == "litert"
    assert f"has no {INT8_NAME}; write one with python -m converters onnx" in opened.warnings[0]


def test_a_provider_that_does_not_start_is_told(exported: Bundle) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has the CUDA provider")
    content = (exported.directory / INT8_NAME).read_bytes()
    with pytest.raises((RuntimeError, ValueError), match="CUDAExecutionProvider"):
        OnnxBackend(content, exported, provider="CUDAExecutionProvider", threads=1)


def test_another_network_is_refused(exported: Bundle) -> None:
    content = onnx.load(exported.directory / INT8_NAME)
    for value in content.graph.node:
        value.input[:] = ["picture" if n == "crop" else n for n in value.input]
    content.graph.input[[i.name for i in content.graph.input].index("crop")].name = "picture"
    with pytest.raises(ValueError, match="inputs"):
        OnnxBackend(content.SerializeToString(), exported, provider="CPUExecutionProvider", threads=1)
    with pytest.raises(RuntimeError):
        OnnxBackend(b"no network", exported, provider="CPUExecutionProvider", threads=1)


def test_the_same_network_gives_the_same_bytes(exported: Bundle) -> None:
    model = network_from_bundle(exported, exported.classes)
    assert float_to_onnx(model) == (exported.directory / FLOAT_NAME).read_bytes()
    assert int8_to_onnx(exported.model, classes=len(exported.classes)) == (exported.directory / INT8_NAME).read_bytes()


def test_an_exceeded_bound_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"float_int8_same_class is .*, allowed is at least 1"):
        export_onnx(Bundle.load(), tmp_path / "out", bounds=OnnxBounds(float_int8_same_class=1.0))
    assert not (tmp_path / "out").exists()
