"""How long, how fast, which stages when: everything about teaching that is a number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt

__all__ = ["DITHER_STEPS", "FINE_TUNING", "OPTIMIZERS", "OptimizerName", "Schedule", "StageRate", "learning_rates"]

OptimizerName = Literal["adamw", "sgd"]
OPTIMIZERS: Final[tuple[str, ...]] = get_args(OptimizerName)

#: Width of the dither that networks are taught under, in steps of int8: twice what one rounding does.
DITHER_STEPS: Final = 2.0

#: Learning rate at the end of the cosine, as a fraction of the highest.
FINAL_RATE: Final = 0.01


@dataclass(frozen=True, kw_only=True)
class StageRate:
    """When a stage of a pretrained network joins, and how fast it learns.

    Attributes
    ----------
    after : float
        Share of the epochs that it stays frozen, 0 to 1.
    rate : float
        Factor on the learning rate.
    """

    after: float = 0.0
    rate: float = 1.0

    def first_epoch(self, epochs: int) -> int:
        """Number of the first epoch, from 0, in which it learns."""
        return int(np.ceil(self.after * epochs))


#: Heads first, then stage by stage towards the picture, ever slower; what lies deeper (edges, rings) stays as it is.
FINE_TUNING: Final = (
    StageRate(after=0.0, rate=1.0),
    StageRate(after=0.1, rate=0.5),
    StageRate(after=0.25, rate=0.25),
    StageRate(after=0.4, rate=0.1),
)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast.

    Attributes
    ----------
    epochs : int
    samples_per_epoch : int
        Crops drawn, as `training.datasets.labelled.sampling_weights` says.
    batch : int
    learning_rate : float
        The highest.
    weight_decay, label_smoothing, warm_up_steps
    size_weight : float
        Of the loss of size and depth beside that of the class.
    stranger_share, novelty_weight : float
        Share of each batch, where there are crops of none of the classes (label -1), and weight of the loss of telling
        them.
    ema_momentum : float
        Of the running mean of the weights that is kept in the end; 0: the last weights.
    optimizer : {'adamw', 'sgd'}
    robust_q : float
        0 is cross-entropy, above it the generalised cross-entropy that believes a wrong label less.
    stages : tuple of StageRate
        Of a pretrained network from its heads on, those beyond stay frozen; empty: all at once.
    patience : int
        Epochs without progress on the validation set before the end; 0: no early end.
    degraded_share : float
        Share of each batch that is degraded (`training.degrade`).
    dither_steps : float
        Width of the dither of activations, in steps of int8 (`training.dither`).
    """

    epochs: int = 20
    samples_per_epoch: int = 40_000
    batch: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    label_smoothing: float = 0.05
    warm_up_steps: int = 200
    size_weight: float = 0.25
    stranger_share: float = 0.1
    novelty_weight: float = 0.4
    ema_momentum: float = 0.998
    optimizer: OptimizerName = "adamw"
    robust_q: float = 0.0
    stages: tuple[StageRate, ...] = ()
    patience: int = 0
    degraded_share: float = 0.0
    dither_steps: float = 0.0

    @property
    def steps_per_epoch(self) -> int:
        """Batches drawn in one epoch."""
        return max(1, self.samples_per_epoch // self.batch)


def learning_rates(schedule: Schedule, epoch: int) -> npt.NDArray[np.float32]:
    """Learning rate of each step of an epoch: a linear warm-up of at most one epoch, then a cosine to a hundredth.

    Parameters
    ----------
    schedule : Schedule
    epoch : int
        From 0.

    Returns
    -------
    ndarray of float32 (steps,)

    Examples
    --------
    >>> schedule = Schedule(epochs=2, samples_per_epoch=256, batch=64, learning_rate=1.0, warm_up_steps=2)
    >>> learning_rates(schedule, 0).round(2).tolist()
    [0.0, 0.5, 1.0, 0.93]
    """
    steps = schedule.steps_per_epoch
    warm_up = min(schedule.warm_up_steps, steps)
    step = np.arange(epoch * steps, (epoch + 1) * steps, dtype=np.float64)
    done = np.clip((step - warm_up) / max(1, schedule.epochs * steps - warm_up), 0, 1)
    cosine = (1 - FINAL_RATE) * 0.5 * (1 + np.cos(np.pi * done)) + FINAL_RATE
    rising = step / warm_up if warm_up else np.ones_like(step)
    return (schedule.learning_rate * np.where(step < warm_up, rising, cosine)).astype(np.float32)
