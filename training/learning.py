"""One way to teach a network: seeded, resumable, on one processor or many, size and depth beside the class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edge_app.capture.frame import RATIO_ONE
from edge_app.classification.crops import Crops
from edge_app.classification.learned_size import DEPTH_UNIT_UM
from edge_app.errors import UserError
from training.augment import augment_batch
from training.datasets.labelled import LabelledCrops, sampling_weights
from training.degrade import degrade_batch
from training.dither import dithered_network
from training.fitting.losses import class_losses, novelty_loss, size_loss
from training.fitting.machines import Machines
from training.fitting.quiet_import import quiet_start
from training.fitting.schedule import Schedule, StageRate, learning_rates
from training.fitting.stages import stages_of
from training.fitting.state import TeachingState, differing
from training.fitting.validation import ValidationFigures

with quiet_start():
    import keras
    import tensorflow as tf

# Warns of functions made anew; here each network has its own.
tf.get_logger().setLevel("ERROR")

__all__ = [
    "CODE_SCALE",
    "DivergedError",
    "Keeping",
    "Schedule",
    "Taught",
    "Validation",
    "network_inputs",
    "predict",
    "predict_all_ways",
    "size_targets",
    "teach",
]

#: The network's real input is (code - 160) / 64: background is 0, as the padding inside convolutions is.
CODE_SCALE = 64.0

#: Column of the context that says whether the place in the field is known.
FIELD_KNOWN = "field_known"

#: A gradient longer than this is shortened, variable by variable.
_LONGEST_GRADIENT = 2.0

F4 = npt.NDArray[np.float32]


class DivergedError(UserError):
    """The loss is not a number any more."""


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
    return _ask(_asked(model), crops, batch=batch)


def _asked(model: Any) -> Callable[[Any, Any], Mapping[str, Any]]:
    run: Callable[[Any, Any], Mapping[str, Any]] = tf.function(
        lambda crop, context: model({"crop": crop, "context": context}, training=False), reduce_retracing=True
    )
    return run


def _ask(run: Callable[[Any, Any], Mapping[str, Any]], crops: LabelledCrops, *, batch: int) -> dict[str, F4]:
    parts: dict[str, list[F4]] = {}
    for at in range(0, len(crops), batch):
        inputs = network_inputs(crops.take(np.arange(at, min(at + batch, len(crops)))))
        for name, value in run(inputs["crop"], inputs["context"]).items():
            parts.setdefault(name, []).append(tf.cast(value, tf.float32).numpy())
    return {name: np.concatenate(values) for name, values in parts.items()}


def predict_all_ways(model: Any, crops: LabelledCrops, *, columns: Sequence[str]) -> F4:
    """Logits (n, C) as the device comes to them.

    A network that is told the place in the field, of a crop whose place is not known, is asked in all eight ways that
    a square can lie.

    Parameters
    ----------
    model : keras.Model
    crops : LabelledCrops
    columns : sequence of str
        Names of the context, `CropGeometry.context`.
    """
    run = _asked(model)
    logits = _ask(run, crops, batch=512)["logits"]
    if FIELD_KNOWN in columns:
        rows = np.flatnonzero(crops.context[:, list(columns).index(FIELD_KNOWN)] < 0.5)
        if len(rows):
            some = crops.take(rows)
            parts = [logits[rows]]
            for k in range(1, 8):
                turned = np.rot90(some.pixels, k % 4, axes=(1, 2))[:, :, :: 1 if k < 4 else -1]
                parts.append(_ask(run, replace(some, pixels=np.ascontiguousarray(turned)), batch=512)["logits"])
            logits[rows] = np.mean(parts, axis=0)
    return logits


class Watcher(Protocol):
    """Is told of every step; see `training.fitting.progress.TrainingProgress`."""

    def begin(self, words: str, *, steps: int, done: int = 0) -> None:
        """Steps in all, and how many an earlier sitting has done."""

    def advance(self, *, loss: float) -> None:
        """One step more."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Crops of groups that are not learned from; they say which epoch is kept, and when it is enough.

    ``keep_start``: the network as it was before is kept unless an epoch is better on them: its loss lower and its
    macro-F1 not lower.
    """

    crops: LabelledCrops
    keep_start: bool = False


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """Where the state is kept after every epoch, and what the training was started with.

    A state with another ``identity`` is refused: two trainings would be mixed.
    """

    path: Path
    identity: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Taught:
    """What came of it.

    ``history``: a row per epoch with `training.fitting.history.COLUMNS`, epoch 0 before the first step where there is a
    validation set. ``kept_epoch``: whose weights the network has now. ``stopped_early``: before the last epoch.
    ``resumed_after``: epochs that an earlier sitting had done.
    """

    history: tuple[dict[str, Any], ...]
    kept_epoch: int
    stopped_early: bool = False
    resumed_after: int = 0

    @property
    def kept_start(self) -> bool:
        """Whether teaching did not help and the network is as it was."""
        return self.kept_epoch == 0

    def row(self, epoch: int) -> dict[str, Any]:
        """Figures of an epoch."""
        return next(row for row in self.history if row["epoch"] == epoch)


@dataclass(frozen=True)
class _Course:
    """Variables that learn together, from an epoch on and at a rate of their own."""

    optimizer: Any
    variables: list[Any]
    rate: float
    first_epoch: int


def _courses(model: Any, schedule: Schedule, machines: Machines) -> list[_Course]:
    if schedule.stages:
        parts = [
            ([v for layer in layers for v in layer.trainable_variables], stage)
            for layers, stage in zip(stages_of(model), schedule.stages, strict=False)
        ]
    else:
        parts = [(list(model.trainable_variables), StageRate())]
    courses = []
    for variables, stage in parts:
        if not variables:
            continue
        common: dict[str, Any] = {
            "weight_decay": schedule.weight_decay,
            "use_ema": schedule.ema_momentum > 0,
            "ema_momentum": max(schedule.ema_momentum, 0.5),
            "loss_scale_factor": machines.loss_scale,
        }
        if schedule.optimizer == "adamw":
            optimizer = keras.optimizers.AdamW(schedule.learning_rate, **common)
        else:
            optimizer = keras.optimizers.SGD(schedule.learning_rate, momentum=0.9, **common)
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        optimizer.build(variables)
        courses.append(_Course(optimizer, variables, stage.rate, stage.first_epoch(schedule.epochs)))
    return courses


class _Lesson:
    """A network with its optimizers: makes steps, gives its state, takes it back."""

    def __init__(
        self, model: Any, schedule: Schedule, machines: Machines, *, taught_mix: npt.NDArray[np.float64]
    ) -> None:
        self.model, self.schedule, self.machines = model, schedule, machines
        self.sized = "size" in model.output
        self.tells_strangers = False
        with machines.strategy.scope():
            self.taught = dithered_network(model, steps=schedule.dither_steps)
            self.courses = _courses(model, schedule, machines)
        self._steps: dict[tuple[int, bool], Callable[..., Any]] = {}
        self._answers = _asked(model)
        # The network learns the mix that it is taught; it is judged, and used, for equal shares.
        self._shift = -np.log(len(taught_mix) * np.asarray(taught_mix)).astype(np.float32)

    def active(self, epoch: int) -> int:
        """How many courses learn in an epoch; those of a network begin in order."""
        return sum(course.first_epoch <= epoch for course in self.courses)

    def step(self, active: int, batch: list[npt.NDArray[Any]], rate: np.float32) -> float:
        """One batch; returns the mean loss of the class."""
        kind = active, self.tells_strangers
        if kind not in self._steps:
            self._steps[kind] = self._make_step(self.courses[:active])
        return float(self._steps[kind](*self.machines.share_out(batch), tf.constant(rate)))

    def _make_step(self, courses: list[_Course]) -> Callable[..., Any]:
        schedule, strategy, replicas = self.schedule, self.machines.strategy, self.machines.replicas
        variables = [v for course in courses for v in course.variables]

        def replica(crop: Any, context: Any, target: Any, weight: Any, size: Any, rate: Any) -> Any:
            with tf.GradientTape() as tape:
                out = self.taught({"crop": crop, "context": context}, training=True)
                each = class_losses(out["logits"], target, robust_q=schedule.robust_q)
                loss = tf.reduce_mean(weight * each)
                total = loss + schedule.size_weight * size_loss(out["size"], size) if self.sized else loss
                if self.tells_strangers:
                    # The shares of a stranger's label are all 0.
                    total += schedule.novelty_weight * novelty_loss(out["novelty"], 1 - tf.reduce_sum(target, axis=1))
                if replicas > 1:
                    loss, total = loss / replicas, total / replicas
                if self.machines.loss_scale is not None:
                    total *= self.machines.loss_scale
            gradients = tape.gradient(total, [v.value for v in variables])
            # A head that is not asked, novelty where there are no strangers, has no gradient.
            found = [k for k, g in enumerate(gradients) if g is not None]
            given = [gradients[k] for k in found]
            if replicas > 1:
                given = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, given)
            longest = _LONGEST_GRADIENT * (self.machines.loss_scale or 1.0)
            # The optimizer adds up what the replicas give it, and each gives the whole gradient.
            given = [tf.clip_by_norm(g, longest) / replicas for g in given]
            by_variable = dict(zip(found, given, strict=True))
            at = 0
            for course in courses:
                course.optimizer.learning_rate = rate * course.rate
                rows = range(at, at + len(course.variables))
                pairs = [(by_variable[k], variables[k]) for k in rows if k in by_variable]
                course.optimizer.apply_gradients(pairs)
                at += len(course.variables)
            return loss

        @tf.function(reduce_retracing=True)
        def step(crop: Any, context: Any, target: Any, weight: Any, size: Any, rate: Any) -> Any:
            losses = strategy.run(replica, args=(crop, context, target, weight, size, rate))
            return strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None) if replicas > 1 else losses

        return step

    def use_averages(self) -> list[tuple[Any, npt.NDArray[Any]]]:
        """Put the running means of the weights into the network; returns what was there."""
        if self.schedule.ema_momentum <= 0:
            return []
        before = []
        for course in self.courses:
            # A course that has made no step has no mean yet.
            if int(course.optimizer.iterations.numpy()) > 0:
                before += [(variable, variable.numpy()) for variable in course.variables]
                course.optimizer.finalize_variable_values(course.variables)
        return before

    @staticmethod
    def put(values: list[tuple[Any, npt.NDArray[Any]]]) -> None:
        """Assign."""
        for variable, value in values:
            variable.assign(value)

    def measured(self, crops: LabelledCrops) -> ValidationFigures:
        """Figures of the network as it is."""
        return ValidationFigures.of(_ask(self._answers, crops, batch=512)["logits"], crops, log_prior=self._shift)

    def weights(self) -> list[npt.NDArray[Any]]:
        """What a layer holds after teaching."""
        return [np.asarray(v.numpy()) for v in self.model.weights]

    @property
    def optimizer_variables(self) -> list[Any]:
        """All, course by course."""
        return [v for course in self.courses for v in course.optimizer.variables]


def teach(
    model: Any,
    epoch_crops: Callable[[int], LabelledCrops],
    *,
    prior: npt.NDArray[np.float64],
    schedule: Schedule,
    seed: int,
    after_epoch: Callable[[int, float], None] | None = None,
    validation: Validation | None = None,
    keeping: Keeping | None = None,
    class_weights: npt.NDArray[np.float64] | None = None,
    machines: Machines | None = None,
    watcher: Watcher | None = None,
    after_row: Callable[[list[dict[str, Any]]], None] | None = None,
) -> Taught:
    """Train in place.

    Parameters
    ----------
    model : keras.Model
        From `training.networks`, built in ``machines.network_scope()``.
    epoch_crops : callable
        Number of the epoch -> crops to draw from in it; the same crops whenever it is asked. Label -1: none of the
        classes, for a network that has the output ``novelty``.
    prior : ndarray (C,)
        Class mix to draw, sums to 1.
    schedule : Schedule
    seed : int
    after_epoch : callable, optional
        Called with the epoch's number and mean loss.
    validation : Validation, optional
        Without it the last weights are kept.
    keeping : Keeping, optional
        Keeps the state, so that a killed training goes on with the next epoch and ends with the same weights.
    class_weights : ndarray (C,), optional
        Weight of each class in the loss.
    machines : Machines, optional
    watcher : Watcher, optional
    after_row : callable, optional
        Called after each epoch with the history so far, its newest row last.

    Returns
    -------
    Taught

    Raises
    ------
    UserError
        The loss is not finite, or the kept state is of another training.
    """
    machines = Machines.here() if machines is None else machines
    if schedule.batch % machines.replicas:
        raise UserError(
            f"batch is {schedule.batch}, must be a multiple of the {machines.replicas} replicas that share it"
        )
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    weights_of_class = np.ones(len(prior)) if class_weights is None else class_weights
    mix = prior * weights_of_class
    lesson = _Lesson(model, schedule, machines, taught_mix=mix / mix.sum())
    steps = schedule.steps_per_epoch
    history: list[dict[str, Any]] = []
    best: list[npt.NDArray[Any]] = []
    best_epoch, waited, first, stopped = -1, 0, 0, False

    state = None if keeping is None else TeachingState.load(keeping.path)
    if state is not None and keeping is not None:
        if others := differing(state.identity, keeping.identity):
            raise UserError(
                f"{keeping.path}: the state of another training ({'; '.join(others)}); --restart begins again without "
                "it, --work keeps both"
            )
        _restore(lesson, state, keeping.path)
        rng.bit_generator.state = state.generator
        history, best = [dict(row) for row in state.history], list(state.best)
        best_epoch, waited, first, stopped = state.best_epoch, state.waited, state.epoch, state.stopped
    machines.agree(first, what="the epoch that the folder of the state says was the last (it must be on a shared disk)")

    def note(row: dict[str, Any]) -> None:
        history.append(row)
        if after_row is not None:
            after_row(history)

    if watcher is not None:
        watcher.begin("teaching", steps=schedule.epochs * steps, done=first * steps)
    if validation is not None and not history:
        figures = lesson.measured(validation.crops)
        note(_row(0, None, None, 0, figures, 0.0))
        if validation.keep_start:
            best, best_epoch = lesson.weights(), 0
    started = monotonic()
    for epoch in range(first, schedule.epochs):
        if stopped:
            break
        mean_loss = _one_epoch(lesson, epoch, epoch_crops(epoch), rng, prior, weights_of_class, watcher)
        if not np.isfinite(mean_loss):
            raise DivergedError(f"the loss is not a number in epoch {epoch + 1}; try a lower learning rate")
        measured_now = None
        if validation is not None:
            before = lesson.use_averages()
            measured_now = lesson.measured(validation.crops)
            if not np.isfinite(measured_now.loss):
                raise DivergedError(f"the loss is not a number after epoch {epoch + 1}; try a lower learning rate")
            if _better(measured_now, history, best_epoch, keep_start=validation.keep_start):
                best, best_epoch, waited = lesson.weights(), epoch + 1, 0
            else:
                waited += 1
            lesson.put(before)
            if lesson.active(epoch + 1) > lesson.active(epoch):
                waited = 0  # a stage that joins deserves its own time
        rate = float(learning_rates(schedule, epoch)[-1])
        note(_row(epoch + 1, mean_loss, rate, lesson.active(epoch), measured_now, monotonic() - started))
        started = monotonic()
        stopped = (
            validation is not None and 0 < schedule.patience <= waited and lesson.active(epoch) == len(lesson.courses)
        )
        if keeping is not None and machines.chief:
            TeachingState(
                epoch=epoch + 1,
                network=[v.numpy() for v in lesson.taught.variables],
                optimizers=[v.numpy() for v in lesson.optimizer_variables],
                generator=rng.bit_generator.state,
                identity=keeping.identity,
                history=history,
                best=best,
                best_epoch=best_epoch,
                waited=waited,
                stopped=stopped,
            ).save(keeping.path)
        if after_epoch is not None:
            after_epoch(epoch, mean_loss)
    if best:
        lesson.put(list(zip(model.weights, best, strict=True)))
    else:
        lesson.use_averages()
    last = int(history[-1]["epoch"])
    return Taught(
        history=tuple(history),
        kept_epoch=best_epoch if best else last,
        stopped_early=stopped and last < schedule.epochs,
        resumed_after=first,
    )


def _one_epoch(
    lesson: _Lesson,
    epoch: int,
    crops: LabelledCrops,
    rng: np.random.Generator,
    prior: npt.NDArray[np.float64],
    weights_of_class: npt.NDArray[np.float64],
    watcher: Watcher | None,
) -> float:
    """Mean loss of its steps."""
    schedule, classes = lesson.schedule, len(prior)
    steps, smooth = schedule.steps_per_epoch, np.float32(schedule.label_smoothing)
    chance = _chances(crops, prior, stranger_share=schedule.stranger_share)
    lesson.tells_strangers = bool((crops.label < 0).any()) and "novelty" in lesson.model.output
    drawn = rng.choice(len(crops), size=steps * schedule.batch, p=chance, replace=True)
    active = lesson.active(epoch)
    total = 0.0
    for k, rate in enumerate(learning_rates(schedule, epoch)):
        batch = augment_batch(crops.take(drawn[k * schedule.batch : (k + 1) * schedule.batch]), rng)
        batch = degrade_batch(batch, rng, share=schedule.degraded_share)
        inputs = network_inputs(batch)
        target = np.eye(classes, dtype=np.float32)[batch.label] * (1 - smooth) + smooth / classes
        weight = weights_of_class[batch.label].astype(np.float32)
        known = batch.label >= 0
        if not known.all():
            # A stranger says nothing of the classes; the mean is over the others.
            target *= known[:, None]
            weight *= known * np.float32(len(known) / max(1, int(known.sum())))
        loss = lesson.step(active, [inputs["crop"], inputs["context"], target, weight, size_targets(batch)], rate)
        total += loss
        if not np.isfinite(loss):
            break
        if watcher is not None:
            watcher.advance(loss=loss)
    return total / steps


def _chances(crops: LabelledCrops, prior: npt.NDArray[np.float64], *, stranger_share: float) -> npt.NDArray[np.float64]:
    """Probability of drawing each crop, strangers (label -1) in their share."""
    known = crops.label >= 0
    if known.all():
        return sampling_weights(crops.label, crops.box_px, prior=prior)
    chance = np.full(len(crops), stranger_share / (~known).sum())
    chance[known] = (1 - stranger_share) * sampling_weights(crops.label[known], crops.box_px[known], prior=prior)
    return chance / chance.sum()


def _better(now: ValidationFigures, history: list[dict[str, Any]], best_epoch: int, *, keep_start: bool) -> bool:
    """Lower loss than the best epoch, and where the start counts, a macro-F1 that is not lower than the start's."""
    if best_epoch < 0:
        return True
    rows = {row["epoch"]: row for row in history}
    if keep_start and now.macro_f1 < rows[0]["validation_macro_f1"]:
        return False
    return bool(now.loss < rows[best_epoch]["validation_loss"])


def _row(
    epoch: int, loss: float | None, rate: float | None, stages: int, figures: ValidationFigures | None, seconds: float
) -> dict[str, Any]:
    measured = {} if figures is None else {f"validation_{k}": v for k, v in asdict(figures).items()}
    return {"epoch": epoch, "loss": loss, "learning_rate": rate, "stages": stages, **measured, "seconds": seconds}


def _restore(lesson: _Lesson, state: TeachingState, path: Path) -> None:
    for variables, values in (
        (lesson.taught.variables, state.network),
        (lesson.optimizer_variables, state.optimizers),
    ):
        if [tuple(v.shape) for v in variables] != [np.shape(a) for a in values]:
            raise UserError(f"{path}: the state of another network; --restart begins again without it")
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
