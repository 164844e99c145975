"""``tflite_runtime``: where LiteRT has no wheel. Needs numpy 1."""

import importlib.util
from importlib.metadata import version
from typing import Any

import numpy as np

from edge_app.classification.backends.tflite import TfliteBackend
from edge_app.classification.bundle import Bundle

__all__ = ["absent", "open_model", "problem"]


def absent() -> bool:
    """Whether this machine was never meant to have it."""
    return not importlib.util.find_spec("tflite_runtime")


def problem() -> str:
    """Why it cannot be used here; empty if it can."""
    if not importlib.util.find_spec("tflite_runtime"):
        return "package tflite-runtime is not installed"
    if int(np.__version__.split(".")[0]) >= 2:
        return f"tflite-runtime 2.14 needs numpy below 2, found {np.__version__}"
    return ""


def open_model(bundle: Bundle, *, threads: int = 1) -> TfliteBackend:
    """Load the bundle's network."""
    from tflite_runtime.interpreter import Interpreter

    def make() -> Any:
        return Interpreter(model_content=bundle.model, num_threads=threads)

    return TfliteBackend(
        name="tflite_runtime", version=version("tflite-runtime"), threads=threads, make=make, bundle=bundle
    )
