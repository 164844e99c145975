"""Import TensorFlow without the lines that its C++ part prints before anyone can tell it not to."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet_start"]


@contextmanager
def quiet_start() -> Iterator[None]:
    """Nothing on the process's standard error inside: a mistake of the user is to be the only line there.

    Python errors still come through, since they are raised and not printed. Once TensorFlow is imported this does
    nothing, so that no other thread's lines are lost later.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        descriptor = sys.__stderr__.fileno() if sys.__stderr__ is not None else -1
    except (OSError, ValueError):
        descriptor = -1
    if descriptor < 0 or "tensorflow" in sys.modules:
        yield
        return
    sys.__stderr__.flush()  # type: ignore[union-attr]
    kept = os.dup(descriptor)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, descriptor)
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)
        os.close(nowhere)
