"""One way to teach a network: seeded, label-smoothed, cosine learning rate, optional teacher."""

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
from edge_app.errors import UserError
from training.augment import augment_batch
from training.datasets.labelled import LabelledCrops, sampling_weights

__all__ = ["CODE_SCALE", "Schedule", "network_inputs", "predict", "teach"]

#: The network's real input is (code - 160) / 64: background is 0, as the padding inside convolutions is.
CODE_SCALE = 64.0

F4 = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast.

    ``samples_per_epoch`` crops are drawn with `training.datasets.labelled.sampling_weights`.
    """

    epochs: int = 20
    samples_per_epoch: int = 40_000
    batch: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    label_smoothing: float = 0.05
    warm_up_steps: int = 200


def network_inputs(pixels: npt.NDArray[np.uint8], size: F4) -> dict[str, F4]:
    """Crops as the float network takes them."""
    return {"crop": (pixels.astype(np.float32) - RATIO_ONE) / np.float32(CODE_SCALE), "size": size}


def predict(model: Any, crops: LabelledCrops, *, batch: int = 512) -> tuple[F4, F4]:
    """Logits (n, C) and embeddings (n, E) of the float network."""
    run = tf.function(lambda crop, size: model({"crop": crop, "size": size}, training=False), reduce_retracing=True)
    logits, embedding = [], []
    for at in range(0, len(crops), batch):
        inputs = network_inputs(crops.pixels[at : at + batch], crops.size[at : at + batch])
        out = run(inputs["crop"], inputs["size"])
        logits.append(out["logits"].numpy())
        embedding.append(out["embedding"].numpy())
    return np.concatenate(logits), np.concatenate(embedding)


def teach(
    model: Any,
    epoch_crops: Callable[[int], LabelledCrops],
    *,
    prior: npt.NDArray[np.float64],
    schedule: Schedule,
    seed: int,
    teacher: Callable[[F4, F4], F4] | None = None,
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
    teacher : callable, optional
        (crop, size) of a batch -> class probabilities (n, C) to learn besides the labels, half and half.
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
    optimizer = keras.optimizers.AdamW(rate, weight_decay=schedule.weight_decay, clipnorm=2.0)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    optimizer.build(model.trainable_variables)

    @tf.function(reduce_retracing=True)
    def step(crop: Any, size: Any, target: Any) -> Any:
        with tf.GradientTape() as tape:
            logits = model({"crop": crop, "size": size}, training=True)["logits"]
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(labels=target, logits=logits))
        optimizer.apply_gradients(
            zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
        )
        return loss

    smooth = np.float32(schedule.label_smoothing)
    for epoch in range(schedule.epochs):
        crops = epoch_crops(epoch)
        weights = sampling_weights(crops.label, crops.box_px, prior=prior)
        drawn = rng.choice(len(crops), size=steps * schedule.batch, p=weights, replace=True)
        total = 0.0
        for k in range(steps):
            rows = drawn[k * schedule.batch : (k + 1) * schedule.batch]
            inputs = network_inputs(augment_batch(crops.pixels[rows], rng), crops.size[rows])
            target = np.eye(classes, dtype=np.float32)[crops.label[rows]] * (1 - smooth) + smooth / classes
            if teacher is not None:
                target = np.float32(0.3) * target + np.float32(0.7) * teacher(inputs["crop"], inputs["size"])
            total += float(step(tf.constant(inputs["crop"]), tf.constant(inputs["size"]), tf.constant(target)))
        if not np.isfinite(total):
            raise UserError(f"the loss is not a number in epoch {epoch + 1}; try a lower learning rate")
        if after_epoch is not None:
            after_epoch(epoch, total / steps)
