import json
import os
import stat
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from click.testing import CliRunner
from keras import layers

from converters.__main__ import main
from converters.bundle_files import with_files
from converters.edgetpu import COMPILED_NAME, MAPS_PARTLY, check_network, supported_operators
from converters.flat_buffer import FlatTensor, Operator, read_operators
from edge_app.classification.bundle import SHIPPED, Bundle
from edge_app.errors import UserError

SHIPPED_MODEL = (SHIPPED / "model.tflite").read_bytes()


def int8_network(*middle: keras.Layer) -> bytes:
    """Convolution, what is asked for, convolution, pooling, dense; quantised."""
    keras.utils.set_random_seed(0)
    x = crop = keras.Input((16, 16, 1), batch_size=1)
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    for layer in middle:
        x = layer(x)
    x = layers.Conv2D(4, 3, padding="same")(x)
    x = layers.Dense(3)(layers.GlobalAveragePooling2D()(x))
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(crop, x))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    rng = np.random.default_rng(0)
    converter.representative_dataset = lambda: (
        [rng.standard_normal((1, 16, 16, 1)).astype(np.float32)] for _ in range(10)
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


@pytest.fixture(scope="module")
def unsupported() -> bytes:
    return int8_network(layers.LeakyReLU(0.1))


def bundle_with(model: bytes, folder: Path) -> Bundle:
    return with_files(Bundle.load(), folder, {"model.tflite": model})


def test_the_shipped_network_maps_wholly() -> None:
    report = check_network(SHIPPED_MODEL, where="model")
    assert report.wholly
    assert report.mapped_share_of_macs == 1
    done = CliRunner().invoke(main, ["edgetpu"])
    assert done.exit_code == 0, done.output
    assert "maps wholly to the Edge TPU" in done.output
    assert "edgetpu_compiler is not installed" in done.output


def test_operators_and_shapes_are_those_the_interpreter_has() -> None:
    interpreter = Interpreter(model_content=SHIPPED_MODEL)
    interpreter.allocate_tensors()
    shapes = {d["index"]: tuple(d["shape"]) for d in interpreter.get_tensor_details()}
    wanted = [
        (op["op_name"], shapes[op["outputs"][0]])
        for op in interpreter._get_ops_details()
        if op["op_name"] != "DELEGATE"
    ]
    found = [(op.name, op.outputs[0].shape) for op in read_operators(SHIPPED_MODEL, where="model")]
    assert found == wanted


def test_multiplications_are_those_of_the_float_network() -> None:
    macs = sum(op.macs for op in read_operators(int8_network(), where="model"))
    assert macs == 16 * 16 * (9 * 1 * 8 + 9 * 8 * 4) + 4 * 3


def test_from_the_first_operator_that_is_not_supported_all_stays_on_the_cpu(unsupported: bytes) -> None:
    report = check_network(unsupported, where="model")
    names = [o.operator for o in report.operators]
    first = names.index("LEAKY_RELU")
    assert [o.maps for o in report.operators] == [k < first for k in range(len(names))]
    assert report.operators[first].reason == "LEAKY_RELU is not supported by the Edge TPU"
    assert all(f"after operator {first}" in o.reason for o in report.operators[first + 1 :])
    conv = 16 * 16 * 9 * 8
    assert report.mapped_share_of_macs == pytest.approx(conv / (conv + 16 * 16 * 9 * 8 * 4 + 12))


def test_command_says_partly_by_its_exit_code(unsupported: bytes, tmp_path: Path) -> None:
    bundle_with(unsupported, tmp_path / "b")
    done = CliRunner().invoke(main, ["edgetpu", "--bundle", str(tmp_path / "b"), "--json"])
    assert done.exit_code == MAPS_PARTLY == 3
    record = json.loads(done.output)
    assert record["maps_wholly"] is False
    assert record["compiled"] is None
    assert record["source"].startswith("https://coral.ai/")


def test_an_older_runtime_supports_less() -> None:
    report = check_network(int8_network(layers.Conv2D(8, 3, dilation_rate=2, padding="same")), where="m")
    assert report.wholly
    depthwise = int8_network(layers.DepthwiseConv2D(3, dilation_rate=2, padding="same"))
    assert check_network(depthwise, where="m").wholly
    old = check_network(depthwise, where="m", runtime_version=12)
    assert "dilated kernels" in next(o.reason for o in old.operators if not o.maps)
    with pytest.raises(UserError, match="--runtime-version is 99"):
        check_network(depthwise, where="m", runtime_version=99)


def tensor(*shape: int, dtype: str = "INT8", constant: object = None, open_axes: tuple[int, ...] = ()) -> FlatTensor:
    values = None if constant is None else np.asarray(constant)
    return FlatTensor("t", shape, dtype, values is not None, values, open_axes)


def reason(monkeypatch: pytest.MonkeyPatch, op: Operator, version: int = 14) -> str:
    monkeypatch.setattr("converters.edgetpu.read_operators", lambda content, where: (op,))
    return check_network(b"", where="m", runtime_version=version).operators[0].reason


BOX = tensor(1, 8, 8, 6)


@pytest.mark.parametrize(
    ("op", "said"),
    [
        (Operator("ADD", 1, (tensor(1, 8, dtype="FLOAT32"), BOX), (BOX,), {}), "float32, 8-bit"),
        (Operator("ADD", 1, (tensor(2, 8, 8, 6), BOX), (BOX,), {}), "more than three dimensions"),
        (Operator("ADD", 1, (tensor(1, 8, 8, 6, open_axes=(0, 1)), BOX), (BOX,), {}), "not constant at compile time"),
        (Operator("FULLY_CONNECTED", 1, (tensor(1, 6), tensor(4, 6)), (tensor(1, 4),), {"weightsFormat": 0}), "param"),
        (
            Operator(
                "FULLY_CONNECTED",
                1,
                (tensor(5, 6), tensor(4, 6, constant=np.ones((4, 6)))),
                (tensor(5, 4),),
                {"weightsFormat": 0},
            ),
            "output must be one-dimensional",
        ),
        (Operator("MEAN", 1, (BOX, tensor(1, dtype="INT32", constant=[3])), (tensor(1, 8, 8),), {}), "multiple of 4"),
        (Operator("MEAN", 1, (BOX, tensor(1, dtype="INT32", constant=[-4])), (tensor(8, 8, 6),), {}), "batch"),
        (Operator("MAX_POOL_2D", 1, (BOX,), (tensor(1, 4, 4, 6),), {"fusedActivationFunction": 1}), "fused"),
        (Operator("SOFTMAX", 1, (tensor(1, 5, 5),), (tensor(1, 5, 5),), {}), "one-dimensional input"),
        (Operator("PACK", 1, (tensor(6), tensor(6)), (tensor(2, 6),), {"axis": 0}), "batch"),
        (
            Operator("CONCATENATION", 1, (BOX, tensor(1, 8, 8, 6, constant=np.ones((1, 8, 8, 6)))), (BOX,), {}),
            "all zeros",
        ),
        (Operator("HARD_SWISH", 1, (BOX,), (BOX,), {}), "HARD_SWISH is not supported"),
        (Operator("CUSTOM Mine", 1, (BOX,), (BOX,), {}), "CUSTOM Mine is not supported"),
    ],
)
def test_each_limitation_is_found(monkeypatch: pytest.MonkeyPatch, op: Operator, said: str) -> None:
    assert said in reason(monkeypatch, op)


def test_what_keeps_to_the_limitations_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tensor(1, 8, 8, 8)
    for op in (
        Operator("MEAN", 2, (deep, tensor(1, dtype="INT32", constant=[3])), (tensor(1, 8, 8),), {}),
        Operator("MEAN", 2, (BOX, tensor(2, dtype="INT32", constant=[1, 2])), (tensor(1, 6),), {}),
        Operator("SOFTMAX", 2, (tensor(1, 100),), (tensor(1, 100),), {}),
        Operator("PAD", 2, (BOX, tensor(4, 2, dtype="INT32", constant=[[0, 0], [1, 1], [1, 1], [0, 0]])), (BOX,), {}),
    ):
        assert reason(monkeypatch, op) == ""


def test_an_operator_newer_than_the_runtime_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    op = Operator("TRANSPOSE", 1, (BOX, tensor(4, dtype="INT32", constant=[0, 2, 1, 3])), (BOX,), {})
    assert reason(monkeypatch, op) == ""
    assert "needs runtime 14 or newer" in reason(monkeypatch, op, version=13)


def test_the_list_names_its_source_and_only_known_operators() -> None:
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    table = supported_operators()
    assert table["source"].startswith("https://coral.ai/docs/edgetpu/models-intro")
    assert set(table["operators"]) <= set(vars(BuiltinOperator))
    used = {limit for entries in table["operators"].values() for e in entries for limit in e["limits"]}
    assert used == set(table["limits"])


@pytest.mark.parametrize("content", [b"", b"x" * 100, SHIPPED_MODEL[:400], SHIPPED_MODEL[:8] + b"\xff" * 64])
def test_a_damaged_network_is_one_line_and_exit_code_2(tmp_path: Path, content: bytes) -> None:
    bundle_with(content, tmp_path / "b")
    done = CliRunner().invoke(main, ["edgetpu", "--bundle", str(tmp_path / "b")])
    assert done.exit_code == 2, done.output
    assert len(done.output.strip().splitlines()) == 1


def stand_in_compiler(folder: Path, body: str) -> None:
    """The real compiler is not to be had as a package; this one has its options and its words."""
    program = folder / "edgetpu_compiler"
    program.write_text("#!/bin/sh\n" + body)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


COMPILES = """
while [ $# -gt 1 ]; do [ "$1" = -o ] && out=$2; shift; done
{ printf edgetpu; cat "$1"; } > "$out/model_edgetpu.tflite"
echo "Edge TPU Compiler version 16.0.384591198"
echo "Number of operations that will run on Edge TPU: 21"
echo "Number of operations that will run on CPU: %d"
"""


@pytest.mark.parametrize(("on_cpu", "code"), [(0, 0), (2, 3)])
def test_the_compiler_is_asked_where_it_is_and_its_word_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_cpu: int, code: int
) -> None:
    stand_in_compiler(tmp_path, COMPILES % on_cpu)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    done = CliRunner().invoke(main, ["edgetpu", "--out", str(tmp_path / "out"), "--json"])
    assert done.exit_code == code, done.output
    assert json.loads(done.output)["compiled"]["operators_on_cpu"] == on_cpu
    made = Bundle.load(tmp_path / "out")
    assert (made.directory / COMPILED_NAME).read_bytes() == b"edgetpu" + SHIPPED_MODEL
    assert COMPILED_NAME in made.description.files


def test_a_compiler_that_refuses_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_compiler(tmp_path, "echo 'Internal compiler error. Aborting!' >&2; exit 1\n")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    done = CliRunner().invoke(main, ["edgetpu", "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert done.output.strip() == "edgetpu_compiler: ended with 1: Internal compiler error. Aborting!"
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty and not a bundle"):
        with_files(Bundle.load(), tmp_path, {"x": b""})
    assert (tmp_path / "notes.txt").read_text() == "mine"
