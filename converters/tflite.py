"""Keras to full-integer TFLite by post-training quantisation with representative crops."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.python.convert import mlir_quantize
from tensorflow.lite.tools import flatbuffer_utils

from converters.joined_pooling import join_before_pooling
from edge_app.capture.frame import RATIO_ONE
from edge_app.classification.bundle import Quantisation
from edge_app.classification.crops import Crops
from edge_app.classification.head import Head

__all__ = ["IntegerModel", "convert_to_int8", "range_ends", "run_int8"]

F4 = npt.NDArray[np.float32]

#: Largest log2 of the reduction that the second input carries (particles of three windows); beyond, it saturates. It
#: shares its quantisation with the pooled features, which reach 1.8: a wider range would coarsen those.
LARGEST_SIZE = 1.6


@dataclass(frozen=True)
class IntegerModel:
    """A flat buffer, the quantisation of ``crop``, ``context``, ``logits`` and ``embedding``, its last layers apart."""

    content: bytes
    quantisation: dict[str, Quantisation]
    head: Head
    size_head: Head | None = None
    novelty_head: Head | None = None


def convert_to_int8(model: Any, representative: Crops, *, code_scale: float, join: bool = True) -> IntegerModel:
    """Quantise weights per channel and activations per tensor to int8.

    Parameters
    ----------
    model : keras.Model
        Inputs crop and context, outputs logits and embedding (`training.networks`). True size is left out: the device
        reads it from the embedding by an exact layer.
    representative : Crops
        A few hundred crops that cover what will be seen; they set the ranges of the activations.
    code_scale : float
        The network's real input is ``(code - 160) / code_scale``.
    join : bool
        Join the context before pooling (`converters.joined_pooling`); False is there to compare with.

    Returns
    -------
    IntegerModel
        Its crop input takes ``code - 128`` exactly.

    Raises
    ------
    ValueError
        The converted input does not have that property, or an output is missing.
    """

    def crops() -> Iterator[dict[str, F4]]:
        for some in (range_ends(representative), representative):
            for i in range(len(some)):
                yield {
                    "crop": (some.pixels[i : i + 1].astype(np.float32) - RATIO_ONE) / np.float32(code_scale),
                    "context": some.context[i : i + 1],
                }

    # Inputs in a list: the converter hands them over in one.
    taken = [model.input[name] for name in ("crop", "context")]
    called = keras.Model(taken, {name: model.output[name] for name in ("logits", "embedding")})
    if join:
        called = join_before_pooling(called)
    converter = tf.lite.TFLiteConverter.from_keras_model(called)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = crops
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter._experimental_calibrate_only = True
    # The converter prints what it saved where; that is no business of a command's output.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        calibrated = narrow_residual_ranges(bytes(converter.convert()))
        content = bytes(
            mlir_quantize(
                calibrated,
                fully_quantize=True,
                input_data_type=tf.int8,
                output_data_type=tf.int8,
                # tflite_runtime 2.14 and the Edge TPU know no per-channel dense layers.
                disable_per_channel_for_dense_layers=True,
            )
        )
    interpreter = Interpreter(model_content=content)
    classes = int(model.get_layer("logits").units)
    quantisation: dict[str, Quantisation] = {}
    for detail in interpreter.get_input_details():
        quantisation["crop" if len(detail["shape"]) == 4 else "context"] = _quantisation(detail)
    for detail in interpreter.get_output_details():
        quantisation["logits" if detail["shape"][-1] == classes else "embedding"] = _quantisation(detail)
    if set(quantisation) != {"crop", "context", "logits", "embedding"}:
        raise ValueError(f"the converted network has {', '.join(sorted(quantisation))}")
    crop = quantisation["crop"]
    if crop.zero_point != RATIO_ONE - 128 or not np.isclose(crop.scale, 1 / code_scale, rtol=1e-4):
        raise ValueError(f"the converted input has scale {crop.scale}, zero point {crop.zero_point}")
    return IntegerModel(
        content=content,
        quantisation=quantisation,
        head=_last_layer(model, "logits"),
        size_head=_last_layer(model, "size") if "size" in model.output else None,
        novelty_head=_last_layer(model, "novelty") if "novelty" in model.output else None,
    )


def range_ends(like: Crops) -> Crops:
    """One crop at both ends of the inputs' ranges, so that the scale of the quantised picture is 1 / code_scale.

    It widens the ranges of the activations behind it too, so whoever wants to know these has to show it first.
    """
    window = like.pixels.shape[1]
    ends = np.zeros((1, window, window, 1), np.uint8)
    ends[0, : window // 2] = 255
    edge = np.zeros((1, like.context.shape[1]), np.float32)
    edge[:, 0] = LARGEST_SIZE
    return Crops(pixels=ends, context=edge, um_per_px=np.ones(1, np.float32))


def _last_layer(model: Any, name: str) -> Head:
    kernel, bias = (np.asarray(w, np.float32) for w in model.get_layer(name).get_weights())
    return Head(kernel=kernel, bias=bias)


def narrow_residual_ranges(calibrated: bytes) -> bytes:
    """Limit the range of a residual branch to what the sum can use.

    Where a linear convolution is added to a ReLU6 and the sum goes through ReLU6 again, the branch has no effect beyond
    -6 and +6, however far it reaches. Quantised at that range it has several times finer steps, so int8 stays closer to
    float, and interpreters that round differently stay closer to each other.

    Parameters
    ----------
    calibrated : bytes
        Float flat buffer with the ranges found on representative data.

    Returns
    -------
    bytes
    """
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(calibrated))
    for graph in model.subgraphs:
        made_by = {int(out): op for op in graph.operators for out in op.outputs}
        uses: dict[int, int] = {}
        for op in graph.operators:
            for tensor in op.inputs:
                uses[int(tensor)] = uses.get(int(tensor), 0) + 1
        for op in graph.operators:
            if not isinstance(op.builtinOptions, schema.AddOptionsT) or not _ends_in_relu6(op):
                continue
            for branch, other in ((0, 1), (1, 0)):
                source, partner = made_by.get(int(op.inputs[branch])), made_by.get(int(op.inputs[other]))
                if source is None or partner is None or uses[int(op.inputs[branch])] > 1 or _ends_in_relu6(source):
                    continue
                if isinstance(source.builtinOptions, schema.Conv2DOptionsT) and _ends_in_relu6(partner):
                    found = graph.tensors[int(op.inputs[branch])].quantization
                    found.min = np.maximum(found.min, -6.0).astype(np.float32)
                    found.max = np.minimum(found.max, 6.0).astype(np.float32)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _ends_in_relu6(op: Any) -> bool:
    function = getattr(op.builtinOptions, "fusedActivationFunction", None)
    return bool(function == schema.ActivationFunctionType.RELU6)


def _quantisation(detail: Any) -> Quantisation:
    scale, zero_point = detail["quantization"]
    return Quantisation(scale=float(scale), zero_point=int(zero_point))


def run_int8(model: IntegerModel, crops: Crops, *, batch: int = 64, built_in: bool = False) -> tuple[F4, F4]:
    """Logits (n, C) and embeddings (n, E) as a bundle of this model will give them, for checks before there is one.

    Parameters
    ----------
    model : IntegerModel
    crops : Crops
    batch : int
    built_in : bool
        By TFLite's own kernels, which round as ``tflite_runtime`` does, in place of XNNPACK; four times slower.

    Returns
    -------
    logits, embedding : ndarray of float32
    """
    kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if built_in else OpResolverType.AUTO
    interpreter = Interpreter(model_content=model.content, experimental_op_resolver_type=kernels)
    for detail in interpreter.get_input_details():
        interpreter.resize_tensor_input(detail["index"], [batch, *detail["shape"][1:]])
    interpreter.allocate_tensors()
    inputs = {len(d["shape"]): d["index"] for d in interpreter.get_input_details()}
    outputs = interpreter.get_output_details()
    q = model.quantisation["embedding"]
    role = next(
        d["index"]
        for d in outputs
        if np.isclose(d["quantization"][0], q.scale) and d["quantization"][1] == q.zero_point
    )
    context = model.quantisation["context"]
    logits: list[F4] = []
    embedding: list[F4] = []
    for at in range(0, len(crops), batch):
        n = len(crops.pixels[at : at + batch])
        pixels = np.zeros((batch, *crops.pixels.shape[1:]), np.int8)
        pixels[:n] = (crops.pixels[at : at + batch] ^ np.uint8(0x80)).view(np.int8)
        beside = np.zeros((batch, crops.context.shape[1]), np.int8)
        steps = np.rint(crops.context[at : at + batch] / np.float32(context.scale)) + context.zero_point
        beside[:n] = np.clip(steps, -128, 127)
        interpreter.set_tensor(inputs[4], pixels)
        interpreter.set_tensor(inputs[2], beside)
        interpreter.invoke()
        raw = interpreter.get_tensor(role)[:n]
        logits.append(model.head.logits(raw, scale=q.scale, zero_point=q.zero_point))
        embedding.append((raw.astype(np.float32) - q.zero_point) * np.float32(q.scale))
    return np.concatenate(logits), np.concatenate(embedding)
