"""One way to teach a network: seeded, label-smoothed, cosine learning rate, size and depth beside the class."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from edge_app.capture.frame import RATIO_ONE
from edge_app.classification.crops import Crops
from edge_app.classification.learned_size import DEPTH_UNIT_UM
from edge_app.errors import UserError
from training.augment import augment_batch
from training.datasets.labelled import LabelledCrops, sampling_weights

__all__ = ["CODE_SCALE", "Schedule", "network_inputs", "predict", "size_targets", "teach"]

#: The network's real input is (code - 160) / 64: background is 0, as the padding inside convolutions is.
CODE_SCALE = 64.0

F4 = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast.

    ``samples_per_epoch`` crops are drawn with `training.datasets.labelled.sampling_weights`. ``size_weight``: of the
    loss of size and depth beside that of the class. ``ema_momentum``: of the running mean of the weights that is kept
    in the end; 0: the last weights.
    """

    epochs: int = 20
    samples_per_epoch: int = 40_000
    batch: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    label_smoothing: float = 0.05
    warm_up_steps: int = 200
    size_weight: float = 0.25
    ema_momentum: float = 0.998


def network_inputs(crops: LabelledCrops | Crops) -> dict[str, F4]:
    """Crops as the float network takes them."""
    return {"crop": (crops.pixels.astype(np.float32) - RATIO_ONE) / np.float32(CODE_SCALE), "context": crops.context}


def size_targets(crops: LabelledCrops) -> F4:
    """What the size head is to say, float32 (n, 2): ln of the true ECD in px of the window, |z| in `DEPTH_UNIT_UM`."""
    window_px = crops.ecd_um / crops.um_per_px / np.exp2(crops.context[:, 0])
    depth = crops.depth_um / np.float32(DEPTH_UNIT_UM)
    return np.stack([np.log(np.maximum(window_px, np.float32(0.1))), depth], axis=1).astype(np.float32)


def predict(model: Any, crops: LabelledCrops, *, batch: int = 512) -> dict[str, F4]:
    """Outputs of the float network by name: ``logits`` (n, C), ``embedding`` (n, E), perhaps ``size`` (n, 4)."""
    run = tf.function(
        lambda crop, context: model({"crop": crop, "context": context}, training=False), reduce_retracing=True
    )
    parts: dict[str, list[F4]] = {}
    for at in range(0, len(crops), batch):
        inputs = network_inputs(crops.take(np.arange(at, min(at + batch, len(crops)))))
        for name, value in run(inputs["crop"], inputs["context"]).items():
            parts.setdefault(name, []).append(value.numpy())
    return {name: np.concatenate(values) for name, values in parts.items()}


def teach(
    model: Any,
    epoch_crops: Callable[[int], LabelledCrops],
    *,
    prior: npt.NDArray[np.float64],
    schedule: Schedule,
    seed: int,
    after_epoch: Callable[[int, float], None] | None = None,
) -> None:
    """Train in place.

    Parameters
    ----------
    model : keras.Model
        From `training.networks`.
    epoch_crops : callable
        Number of the epoch -> crops to draw from in it.
    prior : ndarray (C,)
        Class mix to draw, sums to 1.
    schedule : Schedule
    seed : int
    after_epoch : callable, optional
        Called with the epoch's number and mean loss.

    Raises
    ------
    UserError
        The loss is not finite.
    """
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    classes = len(prior)
    steps = max(1, schedule.samples_per_epoch // schedule.batch)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=max(1, schedule.epochs * steps - min(schedule.warm_up_steps, steps)),
        warmup_target=schedule.learning_rate,
        warmup_steps=min(schedule.warm_up_steps, steps),
        alpha=0.01,
    )
    optimizer = keras.optimizers.AdamW(
        rate,
        weight_decay=schedule.weight_decay,
        clipnorm=2.0,
        use_ema=schedule.ema_momentum > 0,
        ema_momentum=max(schedule.ema_momentum, 0.5),
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    optimizer.build(model.trainable_variables)
    sized = "size" in model.output

    @tf.function(reduce_retracing=True)
    def step(crop: Any, context: Any, target: Any, size: Any) -> Any:
        with tf.GradientTape() as tape:
            out = model({"crop": crop, "context": context}, training=True)
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(labels=target, logits=out["logits"]))
            total = loss + schedule.size_weight * _size_loss(out["size"], size) if sized else loss
        optimizer.apply_gradients(
            zip(tape.gradient(total, model.trainable_variables), model.trainable_variables, strict=True)
        )
        return loss

    smooth = np.float32(schedule.label_smoothing)
    for epoch in range(schedule.epochs):
        crops = epoch_crops(epoch)
        weights = sampling_weights(crops.label, crops.box_px, prior=prior)
        drawn = rng.choice(len(crops), size=steps * schedule.batch, p=weights, replace=True)
        total = 0.0
        for k in range(steps):
            batch = augment_batch(crops.take(drawn[k * schedule.batch : (k + 1) * schedule.batch]), rng)
            inputs = network_inputs(batch)
            target = np.eye(classes, dtype=np.float32)[batch.label] * (1 - smooth) + smooth / classes
            size = size_targets(batch)
            total += float(
                step(
                    tf.constant(inputs["crop"]),
                    tf.constant(inputs["context"]),
                    tf.constant(target),
                    tf.constant(size),
                )
            )
        if not np.isfinite(total):
            raise UserError(f"the loss is not a number in epoch {epoch + 1}; try a lower learning rate")
        if after_epoch is not None:
            after_epoch(epoch, total / steps)
    if schedule.ema_momentum > 0:
        optimizer.finalize_variable_values(model.trainable_variables)


def _size_loss(said: Any, truth: Any) -> Any:
    """Mean negative log likelihood of size and, at a fifth of the weight, depth; where the truth is not known, none."""
    known = tf.math.is_finite(truth)
    wanted = tf.where(known, truth, tf.zeros_like(truth))
    spread = tf.clip_by_value(tf.stack([said[:, 1], said[:, 3]], axis=1), -4.0, 1.0)
    error = tf.stack([said[:, 0], said[:, 2]], axis=1) - wanted
    each = 0.5 * tf.square(error) * tf.exp(-2 * spread) + spread
    each = tf.where(known, tf.minimum(each, 20.0), tf.zeros_like(each)) * tf.constant([[1.0, 0.2]])
    return tf.reduce_sum(each) / tf.cast(tf.maximum(tf.shape(each)[0], 1), tf.float32)
