"""Ctrl-C ends a command in order, at whatever moment it comes."""

import signal
from types import FrameType

__all__ = ["Interrupted", "take_interrupts"]


class Interrupted(KeyboardInterrupt):
    """SIGINT arrived.

    A class of its own: the interpreter remembers a plain `KeyboardInterrupt` that passes through the ``exec`` of a
    string (as `dataclasses` and `namedtuple` use it while modules are loaded), and then ends by the signal, whatever
    exit code the program gave after catching it.
    """


def take_interrupts() -> None:
    """From now on SIGINT raises `Interrupted` in the main thread."""
    signal.signal(signal.SIGINT, _raise)


def _raise(signal_number: int, frame: FrameType | None) -> None:
    raise Interrupted
