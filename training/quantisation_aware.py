"""Fine-tuning under the rounding of int8, for a network that loses too much by post-training quantisation.

The network is run with its weights and activations rounded as ``converters.tflite`` will round them: weights with the
batch normalisation folded in, per channel for convolutions and per tensor for dense layers; activations per tensor at
the range seen on representative crops. Gradients pass the rounding as if it were not there (straight-through), so the
weights move to where rounding hurts less. It learns to answer as the float network did, in size and novelty too: what
int8 took is to come back, nothing else is to change.

The Keras 3 networks of this house are functional models of few kinds of layers, so this is done here:
tensorflow-model-optimization knows Keras 2 only.

References
----------
Jacob et al. 2018, Quantization and training of neural networks for efficient integer-arithmetic-only inference, CVPR,
sections 3.1 and 3.2 (folding, simulated quantisation).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from keras import layers

from converters.joined_pooling import layers_joined
from converters.tflite import range_ends
from edge_app.classification.crops import Crops
from edge_app.errors import UserError
from training.datasets.labelled import LabelledCrops
from training.learning import network_inputs

__all__ = ["LOSS_THAT_ASKS_FOR_IT", "FineTuned", "fine_tune"]

F4 = npt.NDArray[np.float32]

#: Macro-F1 lost to int8 above which `fine_tune` is worth its time.
LOSS_THAT_ASKS_FOR_IT: Final = 0.003
#: The device computes these from the embedding in exact arithmetic, so they are not rounded here.
_EXACT: Final = ("logits", "size", "novelty")
#: Weight of staying with what the float network reads of size and novelty, squared error, beside its classes.
_HELD: Final = 0.25
#: Layers that change no value, and those a converter fuses into the layer before them.
_PASS_ON: Final = (layers.Dropout, layers.Flatten, layers.Reshape, layers.InputLayer)
_FUSED: Final = (layers.ReLU, layers.Activation)


@dataclass(frozen=True)
class FineTuned:
    """Cross-entropy of the rounded network to what it is to answer, on crops set aside, before and after.

    ``kept`` is False where it did not fall: the weights are those from before then.
    """

    steps: int
    before: float
    after: float
    kept: bool


@keras.saving.register_keras_serializable(package="edge_app")
class _RoundedLayer(layers.Layer):
    """A convolution or dense layer with its batch normalisation folded in and its weights rounded; shares variables."""

    def __init__(self, inner: Any, norm: Any | None, over_map: bool = False) -> None:
        super().__init__(name=f"rounded_{inner.name}")
        self.inner, self.norm = inner, norm
        # A dense layer that becomes a convolution (`converters.joined_pooling`) is rounded as one.
        self.over_map = over_map

    def call(self, x: Any) -> Any:
        """Run it."""
        inner = self.inner
        kernel, bias = inner.kernel, inner.bias if inner.use_bias else 0.0
        depthwise = isinstance(inner, layers.DepthwiseConv2D)
        if self.norm is not None:
            n = self.norm
            factor = n.gamma / tf.sqrt(n.moving_variance + n.epsilon)
            shape = (1, 1, -1, 1) if depthwise else (1,) * (len(kernel.shape) - 1) + (-1,)
            kernel = kernel * tf.reshape(factor, shape)
            bias = (bias - n.moving_mean) * factor + n.beta
        dense = isinstance(inner, layers.Dense)
        per_tensor = dense and not self.over_map
        kernel = _rounded_per_tensor(kernel) if per_tensor else _rounded_per_channel(kernel, depthwise)
        if dense:
            y = tf.matmul(x, kernel)
        elif depthwise:
            strides = (1, *inner.strides, 1)
            y = tf.nn.depthwise_conv2d(x, kernel, strides, inner.padding.upper(), dilations=inner.dilation_rate)
        else:
            y = tf.nn.conv2d(x, kernel, inner.strides, inner.padding.upper(), dilations=inner.dilation_rate)
        return inner.activation(y + bias)


@keras.saving.register_keras_serializable(package="edge_app")
class _RoundedTensor(layers.Layer):
    """An activation at the 8-bit steps of a fixed range."""

    def __init__(self, low: float, high: float, name: str) -> None:
        super().__init__(name=f"steps_{name}")
        self.low, self.high = low, high

    def call(self, x: Any) -> Any:
        """Round it."""
        return tf.quantization.fake_quant_with_min_max_args(x, self.low, self.high, num_bits=8)


def _rounded_per_channel(kernel: Any, depthwise: bool) -> Any:
    channels = int(np.prod(kernel.shape[2:])) if depthwise else kernel.shape[-1]
    flat = tf.reshape(kernel, (-1, channels))
    limit = tf.maximum(tf.reduce_max(tf.abs(tf.stop_gradient(flat)), axis=0), 1e-6)
    rounded = tf.quantization.fake_quant_with_min_max_vars_per_channel(flat, -limit, limit, narrow_range=True)
    return tf.reshape(rounded, kernel.shape)


def _rounded_per_tensor(kernel: Any) -> Any:
    limit = tf.maximum(tf.reduce_max(tf.abs(tf.stop_gradient(kernel))), 1e-6)
    return tf.quantization.fake_quant_with_min_max_vars(kernel, -limit, limit, narrow_range=True)


def _followers(model: Any) -> dict[str, list[Any]]:
    """Layers that take each layer's output, by its name."""
    made_by: dict[int, str] = {}
    taken_by: dict[str, list[Any]] = {}

    def note(layer: Any, *args: Any, **kwargs: Any) -> Any:
        for tensor in tf.nest.flatten(args):
            taken_by.setdefault(made_by[id(tensor)], []).append(layer)
        out = layer(*args, **kwargs)
        made_by[id(out)] = layer.name
        kept.append(out)  # an id is good only as long as its tensor lives
        return out

    kept = list(model.inputs)
    made_by.update({id(tensor): f"input_{k}" for k, tensor in enumerate(kept)})
    keras.models.clone_model(model, input_tensors=model.input, clone_function=lambda layer: layer, call_function=note)
    return taken_by


def _ranges(model: Any, names: list[str], crops: Crops) -> dict[str, tuple[float, float]]:
    """Least and largest value of each layer's output, zero included."""
    inner = keras.Model(model.inputs, [model.get_layer(name).output for name in names])
    low, high = np.zeros(len(names)), np.zeros(len(names))
    for some in (range_ends(crops), *(crops.take(slice(at, at + 64)) for at in range(0, len(crops), 64))):
        found = inner(network_inputs(some), training=False)
        for k, value in enumerate(found):
            low[k] = min(low[k], float(tf.reduce_min(value)))
            high[k] = max(high[k], float(tf.reduce_max(value)))
    return {name: (float(low[k]), float(high[k])) for k, name in enumerate(names)}


def rounded_network(model: Any, representative: Crops) -> Any:
    """The network with the rounding of int8 put in; it shares the variables of ``model``.

    Parameters
    ----------
    model : keras.Model
        Functional, from `training.networks`.
    representative : Crops
        Set the ranges of activations.

    Returns
    -------
    keras.Model
    """
    followers = _followers(model)
    joins, over_map = layers_joined(model)

    def only(layer: Any, kinds: Any) -> Any | None:
        after = followers.get(layer.name, [])
        return after[0] if len(after) == 1 and isinstance(after[0], kinds) else None

    def rounds_after(layer: Any) -> bool:
        if layer.name in _EXACT or layer.name in joins or isinstance(layer, _PASS_ON):
            return False
        # What is joined is rounded at the steps of the whole.
        return only(layer, (*_FUSED, layers.BatchNormalization, layers.Concatenate)) is None

    ranges = _ranges(model, [layer.name for layer in model.layers if rounds_after(layer)], representative)
    for layer in model.layers:
        added = only(layer, layers.Add)
        after_sum = None if added is None else only(added, layers.ReLU)
        if layer.name in ranges and after_sum is not None and after_sum.max_value == 6.0:
            # As `converters.tflite.narrow_residual_ranges`: beyond 6 a branch has no effect on the sum. Nor is the
            # upper end ever less: TFLite adds in place, and its calibration takes the sum's values for the branch's.
            ranges[layer.name] = max(ranges[layer.name][0], -6.0), 6.0

    def build(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, layers.BatchNormalization) and id(args[0]) in folded:
            out = args[0]
        elif layer.name not in _EXACT and isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)):
            norm = only(layer, layers.BatchNormalization)
            out = _RoundedLayer(layer, norm, layer.name in over_map)(*args)
            if norm is not None:
                folded.add(id(out))
        else:
            out = layer(*args, **kwargs)
        if layer.name in ranges:
            low, high = ranges[layer.name]
            if high > low:
                out = _RoundedTensor(low, high, layer.name)(out)
        return out

    folded: set[int] = set()  # the network that is made keeps these tensors alive
    return keras.models.clone_model(
        model, input_tensors=model.input, clone_function=lambda layer: layer, call_function=build
    )


def fine_tune(
    model: Any,
    crops: LabelledCrops,
    *,
    representative: Crops | None = None,
    steps: int = 400,
    batch: int = 64,
    learning_rate: float = 2e-4,
    label_share: float = 0.0,
    label_smoothing: float = 0.05,
    set_aside: float = 0.15,
    seed: int = 0,
    report: Callable[[str], None] = lambda line: None,
) -> FineTuned:
    """Fine-tune a taught network under the rounding of int8, in place.

    Parameters
    ----------
    model : keras.Model
        Taught, from `training.networks`. Its batch normalisation stays as it is.
    crops : LabelledCrops
        To learn from; whole groups of them are set aside to see whether it helps.
    representative : Crops, optional
        Set the ranges of activations; default 400 of ``crops``. Give those that the converter gets.
    steps, batch, learning_rate : int, int, float
        AdamW, cosine to a hundredth.
    label_share, label_smoothing : float
        Share of the (smoothed) labels in what is learned; the rest is the float network's own answer.
    set_aside : float
        Share of groups.
    seed : int
    report : callable
        Takes one line of progress.

    Returns
    -------
    FineTuned

    Raises
    ------
    UserError
        Fewer than two groups, or the loss is not finite.
    """
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.unique(crops.group))
    if len(groups) < 2:
        raise UserError("quantisation-aware fine-tuning needs crops of at least 2 groups, one to see whether it helps")
    aside = np.isin(crops.group, groups[: max(1, round(set_aside * len(groups)))])
    if representative is None:
        representative = crops.crops.take(rng.permutation(len(crops))[:400])
    rounded = rounded_network(model, representative)
    inputs = network_inputs(crops)
    said = _answers(model, inputs)
    others = [name for name in ("size", "novelty") if name in said]
    answer = np.asarray(tf.nn.softmax(said["logits"]))
    label = np.eye(answer.shape[1], dtype=np.float32)[crops.label]
    label = label * np.float32(1 - label_smoothing) + np.float32(label_smoothing / answer.shape[1])
    target = np.float32(label_share) * label + np.float32(1 - label_share) * answer
    norms = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    was_trainable = [layer.trainable for layer in norms]
    for layer in norms:
        layer.trainable = False
    variables = list(model.trainable_variables)
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, decay_steps=steps, alpha=0.01)
    optimizer = keras.optimizers.AdamW(rate, weight_decay=1e-5, clipnorm=1.0)
    optimizer.build(variables)

    @tf.function(reduce_retracing=True)
    def step(crop: Any, context: Any, wanted: Any, *held: Any) -> Any:
        with tf.GradientTape() as tape:
            out = rounded({"crop": crop, "context": context}, training=False)
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(labels=wanted, logits=out["logits"]))
            for name, value in zip(others, held, strict=True):
                loss += _HELD * tf.reduce_mean(tf.square(out[name] - value))
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    def distance() -> float:
        rows = np.flatnonzero(aside)
        total = 0.0
        for at in range(0, len(rows), 256):
            some = rows[at : at + 256]
            fed = {name: value[some] for name, value in inputs.items()}
            logits = rounded(fed, training=False)["logits"]
            total += float(tf.reduce_sum(tf.nn.softmax_cross_entropy_with_logits(labels=target[some], logits=logits)))
        return total / len(rows)

    before, start = distance(), [np.array(v) for v in model.get_weights()]
    learn = np.flatnonzero(~aside)
    every = max(1, steps // 10)
    for k in range(steps):
        some = rng.choice(learn, size=min(batch, len(learn)), replace=False)
        held = [said[name][some] for name in others]
        loss = float(step(inputs["crop"][some], inputs["context"][some], target[some], *held))
        if not np.isfinite(loss):
            model.set_weights(start)
            raise UserError(f"the loss is not a number in step {k + 1} of quantisation-aware fine-tuning")
        if (k + 1) % every == 0:
            report(f"quantisation-aware step {k + 1}/{steps}: loss {loss:.4f}")
    after = distance()
    kept = after < before
    if not kept:
        model.set_weights(start)
    for layer, trainable in zip(norms, was_trainable, strict=True):
        layer.trainable = trainable
    return FineTuned(steps=steps, before=before, after=after, kept=kept)


def _answers(model: Any, inputs: dict[str, F4]) -> dict[str, F4]:
    parts: dict[str, list[F4]] = {}
    for at in range(0, len(inputs["crop"]), 256):
        some = {name: value[at : at + 256] for name, value in inputs.items()}
        for name, value in model(some, training=False).items():
            parts.setdefault(name, []).append(np.asarray(value))
    return {name: np.concatenate(values) for name, values in parts.items()}
