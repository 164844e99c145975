"""A bundle's network as ONNX: the int8 network with its very codes, and the float network, both checked before use.

``model.onnx`` is the TFLite network operator by operator, quantisation steps included (QDQ): int8 codes in, int8 codes
out, so a device that runs it gives nearly always the very codes of TFLite. ``model_float.onnx`` is the float network
for TensorRT, whose int8 knows no zero points and cannot take the first. ``onnx.json`` states what was found against
which bounds; a network that exceeds one is refused and nothing is written.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import numpy.typing as npt

from converters.bundle_files import with_files
from converters.check_particles import CHECK_SOURCE, check_particles
from converters.tflite import IntegerModel, run_int8
from edge_app.classification.backends.onnx import FLOAT_NAME, INT8_NAME, PROVIDERS, OnnxBackend, available_providers
from edge_app.classification.backends.quiet import native_stderr_silenced
from edge_app.classification.bundle import Bundle
from edge_app.classification.classifier import Classifier
from edge_app.classification.crops import Crops
from edge_app.errors import UserError
from training.fit import network_from_bundle
from training.learning import network_inputs

__all__ = ["OPSET", "STATEMENT_NAME", "OnnxBounds", "export_onnx", "float_to_onnx", "int8_to_onnx"]

F4 = npt.NDArray[np.float32]

STATEMENT_NAME: Final = "onnx.json"
#: Known to ONNX Runtime from 1.12 on and to TensorRT from 8.6 on (JetPack 5).
OPSET: Final = 17


@dataclass(frozen=True, kw_only=True)
class OnnxBounds:
    """What an exported network must keep to on the check particles, on the CPU.

    Float: largest differences from Keras of logits and embedding. Int8: share of embedding codes equal to TFLite's,
    largest difference of a code, share of particles with the same class. Between the two networks: share of particles
    with the same class, that is what quantisation may change.
    """

    float_logit_difference: float = 1e-3
    float_embedding_difference: float = 1e-3
    int8_equal_codes: float = 0.97
    int8_code_difference: int = 12
    int8_same_class: float = 0.99
    float_int8_same_class: float = 0.95


def float_to_onnx(model: Any) -> bytes:
    """The float network: ``crop`` (n, W, W, 1) and ``context`` (n, K) real in, ``logits`` and ``embedding`` out."""
    import keras

    inner = keras.Model(model.inputs, {name: model.output[name] for name in ("logits", "embedding")})
    inner({i.name: np.zeros((1, *i.shape[1:]), np.float32) for i in inner.inputs})  # Keras exports what has run once

    def convert(path: Path) -> None:
        inner.export(path, format="onnx", opset_version=OPSET, verbose=False)

    return _canonical(_converted(convert), classes=int(model.output["logits"].shape[-1]))


def int8_to_onnx(content: bytes, *, classes: int) -> bytes:
    """The int8 network of a TFLite flat buffer: codes in, codes out."""

    def convert(path: Path) -> None:
        import tf2onnx

        source = path.with_suffix(".tflite")
        source.write_bytes(content)
        tf2onnx.convert.from_tflite(str(source), opset=OPSET, output_path=str(path))

    return _canonical(_converted(convert), classes=classes)


def _converted(convert: Callable[[Path], None]) -> bytes:
    """Run a converter without what it says on the way."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), native_stderr_silenced():
        warnings.simplefilter("ignore")
        logging.getLogger("tf2onnx").setLevel(logging.ERROR)
        path = Path(folder) / "model.onnx"
        with contextlib.redirect_stdout(io.StringIO()):
            convert(path)
        return path.read_bytes()


def _canonical(content: bytes, *, classes: int) -> bytes:
    """Names that say what they are and never change: converters number tensors by what they did before."""
    import onnx

    model = onnx.load_from_string(content)
    graph = model.graph
    names: dict[str, str] = {"": ""}
    for value in graph.input:
        names[value.name] = "crop" if len(value.type.tensor_type.shape.dim) == 4 else "context"
    for value in graph.output:
        names[value.name] = "logits" if value.type.tensor_type.shape.dim[-1].dim_value == classes else "embedding"
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    wanted = Counter(["crop", "context", "logits", "embedding"])
    if Counter(n for n in names.values() if n) != wanted:
        raise ValueError(f"the exported network has {', '.join(sorted(names.values()))}")
    constants = {
        constant.name: onnx.TensorProto.FromString(constant.SerializeToString()) for constant in graph.initializer
    }
    for k, node in enumerate(graph.node):
        for i, name in enumerate(node.input):
            if name in constants:
                names.setdefault(name, f"constant_{k}_{i}")
        for i, name in enumerate(node.output):
            names.setdefault(name, f"{node.op_type}_{k}" + (f"_{i}" if i else ""))
    in_order = [constants[name] for name in names if name in constants]
    del graph.initializer[:]
    graph.initializer.extend(in_order)
    for k, node in enumerate(graph.node):
        node.name, node.doc_string = f"{node.op_type}_{k}", ""
        if not node.domain:
            node.ClearField("domain")  # tf2onnx sets it to nothing, or not at all, as it happens
        node.input[:] = [names[n] for n in node.input]
        node.output[:] = [names[n] for n in node.output]
    for item in (*graph.input, *graph.output, *graph.initializer):
        item.name, item.doc_string = names[item.name], ""
    del graph.value_info[:]
    graph.name, graph.doc_string, model.doc_string = "network", "", ""
    model.producer_name, model.producer_version = "edge-app", ""
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _run(content: bytes, inputs: Mapping[str, npt.NDArray[Any]], provider: str) -> dict[str, npt.NDArray[Any]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(content, options, providers=[(provider, PROVIDERS[provider])])
    parts = [
        session.run(["logits", "embedding"], {name: values[at : at + 64] for name, values in inputs.items()})
        for at in range(0, len(inputs["crop"]), 64)
    ]
    return {name: np.concatenate([p[k] for p in parts]) for k, name in enumerate(("logits", "embedding"))}


def _same_class(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    return float((a.argmax(axis=1) == b.argmax(axis=1)).mean())


def _float_figures(content: bytes, wanted: Mapping[str, F4], crops: Crops, provider: str) -> dict[str, float]:
    found = _run(content, network_inputs(crops), provider)
    return {
        "float_logit_difference": float(np.abs(found["logits"] - wanted["logits"]).max()),
        "float_embedding_difference": float(np.abs(found["embedding"] - wanted["embedding"]).max()),
        "float_same_class": _same_class(found["logits"], wanted["logits"]),
    }


def _int8_figures(bundle: Bundle, content: bytes, crops: Crops, provider: str) -> dict[str, float]:
    """Against TFLite; classes through the bundle's exact last layer, as the device reads them."""
    head = bundle.head
    if head is None:
        raise UserError(
            f"{bundle.directory}: has no last layer in reference.npz; write the bundle again with this version"
        )
    quantisation = bundle.description.quantisation
    q = quantisation["embedding"]
    backend = OnnxBackend(content, bundle, provider=provider, threads=1)
    codes = backend.infer(*Classifier(bundle, backend).quantised(crops))["embedding"]
    with native_stderr_silenced():
        logits, real = run_int8(IntegerModel(bundle.model, dict(quantisation), head), crops)
    wanted = np.rint(real / q.scale).astype(int) + q.zero_point
    apart = np.abs(codes.astype(int) - wanted)
    return {
        "int8_equal_codes": float((apart == 0).mean()),
        "int8_code_difference": float(apart.max()),
        "int8_same_class": _same_class(head.logits(codes, scale=q.scale, zero_point=q.zero_point), logits),
    }


def _check(figures: Mapping[str, float], bounds: OnnxBounds, where: Path) -> None:
    for name, bound in asdict(bounds).items():
        at_most = name.endswith("_difference")
        if not (figures[name] <= bound if at_most else figures[name] >= bound):
            side = "at most" if at_most else "at least"
            raise UserError(f"{where}: ONNX refused: {name} is {figures[name]:.4g}, allowed is {side} {bound:g}")


def export_onnx(bundle: Bundle, out: Path, *, bounds: OnnxBounds = OnnxBounds()) -> dict[str, Any]:
    """Write a copy of a bundle that holds its network as ONNX, after checking it on simulated particles.

    Parameters
    ----------
    bundle : Bundle
        With float weights.
    out : Path
        Folder of the copy; the bundle's own folder to add the files there.
    bounds : OnnxBounds

    Returns
    -------
    dict
        The content of ``onnx.json``: bounds, what was measured on the CPU, and where TensorRT or CUDA can be used here,
        what was measured there.

    Raises
    ------
    UserError
        A package of the extra ``training`` is missing, a bound is exceeded, or the folder cannot be written.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise UserError(f"{error.name} is not installed: pip install 'edge-app[training]'") from error
    crops = check_particles(bundle)
    model = network_from_bundle(bundle, bundle.classes)
    wanted = {name: np.asarray(v) for name, v in model.predict(network_inputs(crops), verbose=0).items()}
    real = float_to_onnx(model)
    codes = int8_to_onnx(bundle.model, classes=len(bundle.classes))
    figures: dict[str, dict[str, float]] = {}
    for provider in available_providers():
        figures[provider] = _float_figures(real, wanted, crops, provider)
        if provider != "TensorrtExecutionProvider":
            figures[provider] |= _int8_figures(bundle, codes, crops, provider)
    measured = figures.pop("CPUExecutionProvider")
    backend = OnnxBackend(codes, bundle, provider="CPUExecutionProvider", threads=1)
    logits, _ = Classifier(bundle, backend).outputs(crops)
    measured["float_int8_same_class"] = _same_class(logits, wanted["logits"])
    _check(measured, bounds, bundle.directory)
    files = {INT8_NAME: codes, FLOAT_NAME: real}
    statement: dict[str, Any] = {
        "schema": "mfi.onnx/1",
        "opset": OPSET,
        "from_model_sha256": bundle.model_sha256,
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        "particles": len(crops),
        "source": CHECK_SOURCE,
        "bounds": asdict(bounds),
        "measured": {name: round(value, 8) for name, value in measured.items()},
        "measured_on_accelerators": figures,
        "versions": {name: version(name) for name in ("onnx", "onnxruntime", "tf2onnx", "keras")},
    }
    with_files(bundle, out, {**files, STATEMENT_NAME: (json.dumps(statement, indent=1) + "\n").encode()})
    return statement
