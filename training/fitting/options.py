"""How labelled pictures are learned from: what the command line offers, checked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_app.classification.bundle import Bundle
from edge_app.errors import UserError
from training.datasets.weighting import WEIGHTINGS, Weighting
from training.fitting.schedule import DITHER_STEPS, FINE_TUNING, OPTIMIZERS, OptimizerName, Schedule, StageRate
from training.networks import NETWORKS

__all__ = ["FitOptions"]


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How pictures are learned from; the command line shows the same names.

    Attributes
    ----------
    epochs, batch : int
    learning_rate : float, optional
        Default: low from a bundle, high from nothing.
    optimizer : {'adamw', 'sgd'}
        ``sgd`` with momentum 0.9.
    balance : {'none', 'sqrt', 'inverse', 'effective'}
        How rare classes are drawn more often, `training.datasets.weighting`.
    weigh_loss : bool
        Weigh the loss as ``balance`` says instead of drawing more often.
    label_smoothing : float
    robust_q : float
        Above 0: generalised cross-entropy, for labels that are partly wrong.
    patience : int
        Epochs without progress on the validation set before the end; 0: all epochs.
    validation_share : float
        Share of each class, in whole groups, that says which epoch is kept; 0: none.
    stages : tuple of StageRate
        Of a pretrained network, from its heads on; empty: all of it at once.
    network : str
        Where nothing is started from.
    seed : int
    """

    epochs: int = 20
    batch: int = 64
    learning_rate: float | None = None
    optimizer: OptimizerName = "adamw"
    balance: Weighting = "sqrt"
    weigh_loss: bool = False
    label_smoothing: float = 0.08
    robust_q: float = 0.0
    patience: int = 6
    validation_share: float = 0.2
    stages: tuple[StageRate, ...] = FINE_TUNING
    network: str = "fused_residual"
    seed: int = 1

    def check(self, *, init: Bundle | None) -> None:
        """Refuse what cannot be.

        Raises
        ------
        UserError
        """
        for name, value, low, high in (
            ("epochs", self.epochs, 1, 100_000),
            ("batch", self.batch, 1, 65_536),
            ("patience", self.patience, 0, 100_000),
            ("seed", self.seed, 0, 2**32 - 1),
        ):
            if not low <= value <= high:
                bound = f"at least {low}" if value < low else f"at most {high}"
                raise UserError(f"--{name} is {value}, must be {bound}")
        if self.learning_rate is not None and not 0 < self.learning_rate < np.inf:
            raise UserError(f"--learning-rate is {self.learning_rate:g}, must be above 0")
        for name, number, limit in (
            ("label-smoothing", self.label_smoothing, 0.5),
            ("robust", self.robust_q, 1.0),
            ("validation-share", self.validation_share, 0.5),
        ):
            if not 0 <= number <= limit:
                raise UserError(f"--{name} is {number:g}, must be 0 to {limit:g}")
        for name, word, allowed in (
            ("balance", self.balance, WEIGHTINGS),
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("network", self.network, tuple(NETWORKS)),
        ):
            if word not in allowed:
                raise UserError(f"--{name} is {word}, allowed are {', '.join(allowed)}")
        if init is not None and self.network != FitOptions.network:
            raise UserError(
                f"--network is {self.network}, but {init.directory} has its own; leave it out or --init none"
            )

    def schedule(self, pictures: int, *, pretrained: bool) -> Schedule:
        """As many steps as the pictures are worth."""
        samples = int(np.clip(4 * pictures, max(256, self.batch), 40_000))
        steps = self.epochs * max(1, samples // self.batch)
        rate = self.learning_rate
        if rate is None:
            rate = (1e-3 if pretrained else 2e-3) if self.optimizer == "adamw" else (1e-2 if pretrained else 5e-2)
        return Schedule(
            epochs=self.epochs,
            samples_per_epoch=samples,
            batch=self.batch,
            learning_rate=rate,
            label_smoothing=self.label_smoothing,
            warm_up_steps=50 if pretrained else 200,
            # The mean is to look back over a tenth of the training; a longer one would still hold the start.
            ema_momentum=float(np.clip(1 - 10 / steps, 0.5, 0.998)),
            optimizer=self.optimizer,
            robust_q=self.robust_q,
            stages=self.stages if pretrained else (),
            patience=self.patience,
            dither_steps=DITHER_STEPS,
        )
