"""What is made small: the error of the class, and beside it that of size and depth."""

from __future__ import annotations

from typing import Any

from training.fitting.quiet_import import quiet_start

with quiet_start():
    import tensorflow as tf

__all__ = ["class_losses", "novelty_loss", "size_loss"]


def class_losses(logits: Any, target: Any, *, robust_q: float = 0.0) -> Any:
    """Loss of each picture, float32 (n,).

    With ``robust_q`` q the generalised cross-entropy sum over t (1 - p^q) / q: as q goes to 0 it becomes the
    cross-entropy, at 1 it is the mean absolute error, and in between a picture that all others contradict, most likely
    a wrong label, pulls less.

    Parameters
    ----------
    logits : tensor (n, C)
    target : tensor (n, C)
        Share of each class in the label, sums to 1.
    robust_q : float
        0 to 1.

    References
    ----------
    Z. Zhang, M. Sabuncu, Generalized cross entropy loss for training deep neural networks with noisy labels, 2018.
    """
    logits = tf.cast(logits, tf.float32)
    if robust_q == 0:
        return tf.nn.softmax_cross_entropy_with_logits(labels=target, logits=logits)
    power = tf.exp(robust_q * tf.nn.log_softmax(logits))
    return tf.reduce_sum(target * (1 - power), axis=1) / robust_q


def size_loss(said: Any, truth: Any) -> Any:
    """Mean negative log likelihood of size and, at a fifth of the weight, depth; where the truth is not known, none."""
    said = tf.cast(said, tf.float32)
    known = tf.math.is_finite(truth)
    wanted = tf.where(known, truth, tf.zeros_like(truth))
    spread = tf.clip_by_value(tf.stack([said[:, 1], said[:, 3]], axis=1), -4.0, 1.0)
    error = tf.stack([said[:, 0], said[:, 2]], axis=1) - wanted
    each = 0.5 * tf.square(error) * tf.exp(-2 * spread) + spread
    each = tf.where(known, tf.minimum(each, 20.0), tf.zeros_like(each)) * tf.constant([[1.0, 0.2]])
    return tf.reduce_sum(each) / tf.cast(tf.maximum(tf.shape(each)[0], 1), tf.float32)


def novelty_loss(said: Any, strange: Any) -> Any:
    """Mean cross-entropy of telling crops of none of the classes (``strange`` 1) from the others (0)."""
    said = tf.cast(said[:, 0], tf.float32)
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=strange, logits=said))
