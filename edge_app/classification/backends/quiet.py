"""Keeps native libraries from writing to standard error while they start."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["native_stderr_silenced"]


@contextmanager
def native_stderr_silenced() -> Iterator[None]:
    """Send file descriptor 2 to nowhere inside the block.

    TFLite announces its CPU delegate on standard error from C++, with no option to turn that off; commands promise
    one line there at most. Python's own messages in the block are lost too, so the block is kept short.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
