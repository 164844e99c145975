"""How fast the bundle is on this machine, and how many multiplications a crop takes."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from edge_app.classification.backends import open_backend
from edge_app.classification.bundle import Bundle
from edge_app.classification.classifier import Classifier
from edge_app.classification.crops import Crops

__all__ = ["MacsByOperator", "count_macs", "speed_figures"]


@dataclass(frozen=True, kw_only=True)
class MacsByOperator:
    """Multiply-accumulates of one crop, by operator of the int8 network."""

    by_operator: dict[str, int]

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.by_operator.values())


def count_macs(model: bytes) -> MacsByOperator:
    """Count from the shapes in a TFLite flat buffer.

    Parameters
    ----------
    model : bytes
        With a batch of 1.
    """
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    found = flatbuffer_utils.convert_bytearray_to_object(bytearray(model))
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    counted: dict[str, int] = {}
    for graph in found.subgraphs:
        for op in graph.operators:
            code = found.operatorCodes[op.opcodeIndex]
            name = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
            if name not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
                continue
            kernel = graph.tensors[op.inputs[1]].shape
            out = graph.tensors[op.outputs[0]].shape
            # Kernels: (out, h, w, in), (1, h, w, out), (out, in); every output value takes one dot product.
            each = int(np.prod(kernel[1:3])) if name == "DEPTHWISE_CONV_2D" else int(np.prod(kernel[1:]))
            counted[name] = counted.get(name, 0) + int(np.prod(out[1:])) * each
    return MacsByOperator(by_operator=counted)


def _microseconds(classifier: Classifier, crops: Crops, batch: int, *, calls: int) -> float:
    """Per crop, the fastest of the calls, from uint8 crops to classes: what else runs here only slows a call down."""
    some = crops.take(np.arange(batch) % len(crops))
    classifier.classify(some)
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        classifier.classify(some)
        times.append(time.perf_counter() - start)
    return 1e6 * min(times) / batch


def speed_figures(bundle: Bundle, crops: Crops, *, calls: int = 30) -> dict[str, Any]:
    """Microseconds per crop at batch 1 and 32 with 1 and 2 threads, MACs, and size of the network file.

    Parameters
    ----------
    bundle : Bundle
    crops : Crops
        Any.
    calls : int
        Timed calls of each.
    """
    rows = []
    version = name = ""
    for threads in (1, 2):
        backend = open_backend(bundle, threads=threads).backend
        name, version = backend.name, backend.version
        classifier = Classifier(bundle, backend)
        for batch in (1, 32):
            spent = _microseconds(classifier, crops, batch, calls=calls)
            rows += [{"threads": threads, "batch": batch, "us_per_crop": round(spent, 1)}]
    macs = count_macs(bundle.model)
    return {
        "backend": f"{name} {version}",
        "cores": os.cpu_count(),
        "timings": rows,
        "macs": macs.total,
        "macs_by_operator": macs.by_operator,
        "model_kib": round(len(bundle.model) / 1024, 1),
    }
