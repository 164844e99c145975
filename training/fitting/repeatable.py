"""Same seed, same weights."""

from __future__ import annotations

from training.fitting.quiet_import import quiet_start

with quiet_start():
    import tensorflow as tf

__all__ = ["make_repeatable"]


def make_repeatable() -> None:
    """Let TensorFlow add up in the same order every time, in this process; on one kind of processor that is enough.

    What it costs is in docs/training.md.
    """
    tf.config.experimental.enable_op_determinism()
