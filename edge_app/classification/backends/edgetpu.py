"""Coral Edge TPU, as a delegate of LiteRT. It takes one crop per call, and only a network compiled for it."""

import ctypes
import ctypes.util
import importlib.util
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from edge_app.classification.backends.tflite import TfliteBackend
from edge_app.classification.bundle import Bundle

__all__ = ["absent", "open_model", "problem"]

LIBRARY: Final = "libedgetpu.so.1"
#: USB ids of the accelerator before and after its firmware is loaded, and the driver's device nodes on PCIe.
USB_IDS: Final = {("1a6e", "089a"), ("18d1", "9302")}


def _device_present() -> bool:
    if any(Path("/dev").glob("apex_*")):
        return True
    for product in Path("/sys/bus/usb/devices").glob("*/idProduct"):
        try:
            found = (product.with_name("idVendor").read_text().strip(), product.read_text().strip())
        except OSError:
            continue
        if found in USB_IDS:
            return True
    return False


def absent() -> bool:
    """Whether this machine has no Edge TPU at all."""
    return not _device_present()


def problem() -> str:
    """Why it cannot be used here; empty if it can."""
    if not _device_present():
        return "no Edge TPU on USB or PCIe"
    if not importlib.util.find_spec("ai_edge_litert"):
        return "package ai-edge-litert is not installed"
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return f"{LIBRARY} is not installed"
    return ""


def open_model(bundle: Bundle, *, threads: int = 1) -> TfliteBackend:
    """Load ``model_edgetpu.tflite`` of the bundle.

    Raises
    ------
    ValueError
        The bundle has no network compiled for the Edge TPU.
    """
    from ai_edge_litert.interpreter import Interpreter, load_delegate

    name = "model_edgetpu.tflite"
    if name not in bundle.description.files:
        raise ValueError(f"bundle {bundle.directory} has no {name}; compile it with edgetpu_compiler")
    content = (bundle.directory / name).read_bytes()

    def make() -> Any:
        return Interpreter(model_content=content, experimental_delegates=[load_delegate(LIBRARY)])

    return TfliteBackend(
        name="edgetpu", version=version("ai-edge-litert"), threads=threads, make=make, bundle=bundle, largest_batch=1
    )
