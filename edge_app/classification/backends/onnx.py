"""ONNX Runtime, for a Jetson (TensorRT, CUDA) or any CPU; needs a bundle that ``python -m converters onnx`` wrote.

CUDA and the CPU run ``model.onnx``, the int8 network with the very codes of TFLite. TensorRT knows no zero points, so
it runs ``model_float.onnx``: the codes are turned into the real numbers they stand for, and the real outputs into
codes.
"""

import importlib.util
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edge_app.classification.backends.quiet import native_stderr_silenced
from edge_app.classification.batches import batch_sizes
from edge_app.classification.bundle import Bundle, Quantisation

__all__ = [
    "FLOAT_NAME",
    "INT8_NAME",
    "OnnxBackend",
    "absent",
    "accelerated",
    "available_providers",
    "open_model",
    "problem",
]

I1 = npt.NDArray[np.int8]

INT8_NAME: Final = "model.onnx"
FLOAT_NAME: Final = "model_float.onnx"
#: The order in which they are tried, with their options; without TF32, which would drop digits of float32.
PROVIDERS: Final[dict[str, dict[str, str]]] = {
    "TensorrtExecutionProvider": {},
    "CUDAExecutionProvider": {"use_tf32": "0"},
    "CPUExecutionProvider": {},
}
LARGEST_BATCH: Final = 64
_PACKAGES: Final = ("onnxruntime", "onnxruntime-gpu")


def available_providers() -> list[str]:
    """Those of `PROVIDERS` that the installed package has, in that order; it may still fail to start one."""
    import onnxruntime

    there = set(onnxruntime.get_available_providers())
    return [name for name in PROVIDERS if name in there]


def accelerated() -> bool:
    """Whether the installed package can use a GPU; where it cannot, ``auto`` takes ONNX Runtime last."""
    return not problem() and available_providers()[0] != "CPUExecutionProvider"


def absent() -> bool:
    """Whether this machine was never meant to have it."""
    return not accelerated()


def problem() -> str:
    """Why it cannot be used here; empty if it can."""
    return "" if importlib.util.find_spec("onnxruntime") else "package onnxruntime is not installed"


def _version() -> str:
    for package in _PACKAGES:
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return "unknown"


class OnnxBackend:
    """A session of ONNX Runtime.

    Parameters
    ----------
    content
        ONNX network with inputs ``crop`` and ``context``, outputs ``logits`` and ``embedding``; int8 codes or float32.
    bundle
        Its quantisation turns codes into real numbers and back where the network is float32.
    provider
        A name of `PROVIDERS`.
    threads
        Threads of one call on the CPU.

    Raises
    ------
    RuntimeError
        The provider cannot be started here.
    ValueError
        It is another network.
    """

    def __init__(self, content: bytes, bundle: Bundle, *, provider: str, threads: int) -> None:
        import onnxruntime

        if provider not in available_providers():
            raise RuntimeError(f"{provider} is not in the installed onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        chosen = [(provider, PROVIDERS[provider])]
        if provider != "CPUExecutionProvider":
            chosen.append(("CPUExecutionProvider", {}))
        try:
            with native_stderr_silenced():
                self._session: Any = onnxruntime.InferenceSession(content, options, providers=chosen)
        except Exception as error:  # its own classes of errors, without a common one
            raise RuntimeError(f"{provider}: {str(error).splitlines()[0]}") from error
        if self._session.get_providers()[0] != provider:
            raise RuntimeError(f"{provider} is in the package but does not start on this machine")
        inputs = {i.name: i.type for i in self._session.get_inputs()}
        outputs = {o.name for o in self._session.get_outputs()}
        types = set(inputs.values())
        if set(inputs) != {"crop", "context"} or not outputs >= {"logits"} or len(types) != 1:
            raise ValueError(
                f"ONNX network of {bundle.directory} has inputs {sorted(inputs)}, outputs {sorted(outputs)}"
            )
        self._outputs = sorted(outputs)
        self._real = types == {"tensor(float)"}
        self._quantisation = bundle.description.quantisation
        self.name = "onnx"
        self.threads = threads
        self.provider = provider
        short = provider.removesuffix("ExecutionProvider")
        self.version = f"{_version()} {short} {'float32' if self._real else 'int8'}"

    def infer(self, pixels: I1, context: I1) -> dict[str, I1]:
        """Run n >= 1 crops; see `edge_app.classification.backends.Backend.infer`."""
        parts: list[list[I1]] = []
        at = 0
        for count, batch in batch_sizes(len(pixels), LARGEST_BATCH):
            # Fixed batches, padded: TensorRT builds an engine per shape, and a crop's result depends on no other crop.
            fill = ((0, batch - count),)
            some = {
                "crop": np.pad(pixels[at : at + count], fill + ((0, 0),) * 3),
                "context": np.pad(context[at : at + count], (*fill, (0, 0))),
            }
            fed = {name: self._as_real(name, codes) if self._real else codes for name, codes in some.items()}
            found = self._session.run(self._outputs, fed)
            parts.append([self._as_codes(n, v[:count]) for n, v in zip(self._outputs, found, strict=True)])
            at += count
        return {name: np.concatenate([p[k] for p in parts]) for k, name in enumerate(self._outputs)}

    def _as_real(self, name: str, codes: I1) -> npt.NDArray[np.float32]:
        q: Quantisation = self._quantisation[name]
        return (codes.astype(np.float32) - q.zero_point) * np.float32(q.scale)

    def _as_codes(self, name: str, values: npt.NDArray[Any]) -> I1:
        if not self._real:
            return np.asarray(values, np.int8)
        q: Quantisation = self._quantisation[name]
        return np.clip(np.rint(values / np.float32(q.scale)) + q.zero_point, -128, 127).astype(np.int8)


def _network_for(provider: str, bundle: Bundle) -> str:
    """File that a provider runs: the one meant for it, or the other where that is not there."""
    wanted = FLOAT_NAME if provider == "TensorrtExecutionProvider" else INT8_NAME
    for name in (wanted, INT8_NAME, FLOAT_NAME):
        if name in bundle.description.files:
            return name
    raise ValueError(f"bundle {bundle.directory} has no {INT8_NAME}; write one with python -m converters onnx")


def open_model(bundle: Bundle, *, threads: int = 1) -> OnnxBackend:
    """Open the bundle's ONNX network on the first provider that starts: TensorRT, CUDA, CPU.

    Raises
    ------
    ValueError
        The bundle has no ONNX network.
    RuntimeError
        The package has a GPU provider and none starts: a back end that is meant for the CPU is the better choice then.
    """
    providers = available_providers()
    failed: list[str] = []
    for provider in providers:
        if failed and provider == "CPUExecutionProvider":
            break
        content = (bundle.directory / _network_for(provider, bundle)).read_bytes()
        try:
            return OnnxBackend(content, bundle, provider=provider, threads=threads)
        except RuntimeError as error:
            failed.append(str(error))
    raise RuntimeError("; ".join(failed))
