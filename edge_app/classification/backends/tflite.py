"""What the TFLite interpreters of all packages share: one interpreter per batch size, tensors found by name."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edge_app.classification.backends.quiet import native_stderr_silenced
from edge_app.classification.batches import batch_sizes
from edge_app.classification.bundle import Bundle

__all__ = ["TfliteBackend"]

I1 = npt.NDArray[np.int8]

LARGEST_BATCH: Final = 64


class _Session:
    """One interpreter with a fixed batch: resized and allocated once, as that costs more than a call."""

    def __init__(self, interpreter: Any, batch: int, lengths: dict[int, str]) -> None:
        for detail in interpreter.get_input_details():
            if batch != detail["shape"][0]:
                interpreter.resize_tensor_input(detail["index"], [batch, *detail["shape"][1:]])
        with native_stderr_silenced():
            interpreter.allocate_tensors()
        self._interpreter = interpreter
        inputs = interpreter.get_input_details()
        self._crop = next(d["index"] for d in inputs if len(d["shape"]) == 4)
        self._context = next((d["index"] for d in inputs if len(d["shape"]) == 2), None)
        self._outputs = {lengths[d["index"]]: d["index"] for d in interpreter.get_output_details()}

    def run(self, pixels: I1, context: I1) -> dict[str, I1]:
        it = self._interpreter
        it.set_tensor(self._crop, pixels)
        if self._context is not None:
            it.set_tensor(self._context, context)
        it.invoke()
        return {name: it.get_tensor(index) for name, index in self._outputs.items()}


class TfliteBackend:
    """Any package with TFLite's `Interpreter` class.

    Parameters
    ----------
    name, version, threads
        As reported.
    make
        Makes a fresh interpreter of the bundle's model.
    bundle
        Its quantisation tells the outputs apart and is checked against the model's.
    largest_batch
        1 for accelerators that take no more.
    """

    def __init__(
        self,
        *,
        name: str,
        version: str,
        threads: int,
        make: Callable[[], Any],
        bundle: Bundle,
        largest_batch: int = LARGEST_BATCH,
    ) -> None:
        self.name = name
        self.version = version
        self.threads = threads
        self._make = make
        self._largest = largest_batch
        first = make()
        self._roles = _output_roles(first, bundle)
        self._window = bundle.description.input.window_px
        self._sessions: dict[int, _Session] = {1: _Session(first, 1, self._roles)}

    def infer(self, pixels: I1, context: I1) -> dict[str, I1]:
        """Run n >= 1 crops; see `Backend.infer`."""
        parts: list[dict[str, I1]] = []
        at = 0
        for count, batch in batch_sizes(len(pixels), self._largest):
            session = self._sessions.get(batch)
            if session is None:
                session = self._sessions[batch] = _Session(self._make(), batch, self._roles)
            some, beside = pixels[at : at + count], context[at : at + count]
            if count < batch:
                some = np.concatenate([some, np.zeros((batch - count, *some.shape[1:]), np.int8)])
                beside = np.concatenate([beside, np.zeros((batch - count, beside.shape[1]), np.int8)])
            parts.append({name: out[:count] for name, out in session.run(some, beside).items()})
            at += count
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def _output_roles(interpreter: Any, bundle: Bundle) -> dict[int, str]:
    """Tensor index -> role. Converters rename outputs, so they are told apart by length: C logits, E != C embedding."""
    d = bundle.description
    for detail in [*interpreter.get_input_details(), *interpreter.get_output_details()]:
        if detail["dtype"] is not np.int8:
            raise ValueError(f"{bundle.directory / 'model.tflite'}: tensor {detail['name']} is not int8")
    roles: dict[int, str] = {}
    for detail in interpreter.get_output_details():
        role = "logits" if int(detail["shape"][-1]) == len(d.classes) else "embedding"
        scale, zero_point = detail["quantization"]
        stated = d.quantisation.get(role)
        if role in roles.values() or stated is None:
            raise ValueError(f"{bundle.directory / 'model.tflite'}: unexpected output {detail['name']}")
        if not np.isclose(scale, stated.scale, rtol=1e-5) or zero_point != stated.zero_point:
            raise ValueError(f"{bundle.directory / 'model.tflite'}: quantisation of {role} differs from bundle.json")
        roles[int(detail["index"])] = role
    if "logits" not in roles.values():
        raise ValueError(f"{bundle.directory / 'model.tflite'}: no output with {len(d.classes)} classes")
    return roles
