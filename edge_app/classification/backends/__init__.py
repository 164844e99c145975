"""Interpreters that run a bundle's network, one file each, chosen by name or automatically, never silently."""

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from edge_app.classification.backends import edgetpu, litert, onnx, tflite_runtime
from edge_app.classification.bundle import Bundle
from edge_app.errors import UserError

__all__ = ["BACKENDS", "Backend", "BackendStatus", "OpenedBackend", "available_backends", "open_backend"]

I1 = npt.NDArray[np.int8]


class Backend(Protocol):
    """Runs the network of one bundle."""

    @property
    def name(self) -> str:
        """Name in the registry."""

    @property
    def version(self) -> str:
        """Version of the interpreter's package."""

    @property
    def threads(self) -> int:
        """Threads per call."""

    def infer(self, pixels: I1, context: I1) -> dict[str, I1]:
        """Run int8 crops (n, W, W, 1) and context (n, K):  ``logits`` (n, C) and perhaps ``embedding`` (n, E)."""


#: Order in which ``auto`` tries them. The Edge TPU and a GPU come first: whoever plugged one in wants it. Without a GPU
#: ONNX Runtime comes last.
BACKENDS: Final = {"edgetpu": edgetpu, "onnx": onnx, "litert": litert, "tflite_runtime": tflite_runtime}


@dataclass(frozen=True)
class BackendStatus:
    """Whether a back end can be used here, for `doctor`; ``problem`` is empty where it can."""

    name: str
    problem: str


@dataclass(frozen=True)
class OpenedBackend:
    """The back end that was opened, and what to tell the user where it is not the one asked for."""

    backend: Backend
    warnings: tuple[str, ...]


def available_backends() -> list[BackendStatus]:
    """State of each back end on this machine."""
    return [BackendStatus(name, module.problem()) for name, module in BACKENDS.items()]


def open_backend(bundle: Bundle, *, preference: str = "auto", threads: int = 1) -> OpenedBackend:
    """Open the preferred back end, or the next that works, with a warning that names both.

    Parameters
    ----------
    bundle
        The network to run.
    preference
        ``auto`` or a name of `BACKENDS`.
    threads
        Threads of one call (CPU back ends).

    Raises
    ------
    UserError
        The name is unknown, or no back end works here.
    """
    if preference != "auto" and preference not in BACKENDS:
        raise UserError(f"back end {preference!r} is not known, allowed: auto, {', '.join(BACKENDS)}")
    automatic = sorted(BACKENDS, key=lambda name: name == "onnx" and not onnx.accelerated())
    order = automatic if preference == "auto" else [preference, *(b for b in automatic if b != preference)]
    problems: list[tuple[str, str]] = []
    for name in order:
        module = BACKENDS[name]
        problem = module.problem()
        if not problem:
            try:
                backend: Backend = module.open_model(bundle, threads=threads)
            except (RuntimeError, ValueError, OSError) as error:
                problem = str(error).splitlines()[0] if str(error) else type(error).__name__
            else:
                return OpenedBackend(backend, _warnings(problems, used=name, preference=preference))
        problems.append((name, problem))
    found = "; ".join(f"{name}: {problem}" for name, problem in problems)
    raise UserError(f"no interpreter can run {bundle.directory / 'model.tflite'} ({found})")


def _warnings(problems: list[tuple[str, str]], *, used: str, preference: str) -> tuple[str, ...]:
    """What was passed over; no word about one that ``auto`` looked for and this machine just does not have."""
    return tuple(
        f"back end {name} cannot be used ({problem}); using {used}"
        for name, problem in problems
        if preference != "auto" or not BACKENDS[name].absent()
    )
