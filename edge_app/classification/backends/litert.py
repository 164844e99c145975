"""LiteRT (``ai_edge_litert``): the default interpreter, XNNPACK on the CPU."""

import importlib.util
from importlib.metadata import version
from typing import Any

from edge_app.classification.backends.tflite import TfliteBackend
from edge_app.classification.bundle import Bundle

__all__ = ["absent", "open_model", "problem"]


def absent() -> bool:
    """Whether this machine was never meant to have it."""
    return False


def problem() -> str:
    """Why it cannot be used here; empty if it can."""
    return "" if importlib.util.find_spec("ai_edge_litert") else "package ai-edge-litert is not installed"


def open_model(bundle: Bundle, *, threads: int = 1) -> TfliteBackend:
    """Load the bundle's network."""
    from ai_edge_litert.interpreter import Interpreter

    def make() -> Any:
        return Interpreter(model_content=bundle.model, num_threads=threads)

    return TfliteBackend(name="litert", version=version("ai-edge-litert"), threads=threads, make=make, bundle=bundle)
