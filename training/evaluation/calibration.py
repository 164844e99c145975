"""Whether a confidence of 0.9 is right nine times in ten."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_app.classification.rejection import probabilities_of

__all__ = [
    "ReliabilityBin",
    "at_temperature",
    "expected_calibration_error",
    "find_temperature",
    "reliability",
]

F4 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.integer]


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """Particles whose confidence lies between ``low`` and ``high``: mean confidence, and the share called rightly."""

    low: float
    high: float
    particles: int
    confidence: float
    right: float


def reliability(confidence: F4, right: npt.NDArray[np.bool_], *, bins: int = 15) -> list[ReliabilityBin]:
    """Bins of equal width that hold a particle."""
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        ReliabilityBin(
            low=b / bins,
            high=(b + 1) / bins,
            particles=int((index == b).sum()),
            confidence=float(confidence[index == b].mean()),
            right=float(right[index == b].mean()),
        )
        for b in np.unique(index).tolist()
    ]


def expected_calibration_error(confidence: F4, right: npt.NDArray[np.bool_], *, bins: int = 15) -> float:
    """Mean distance of confidence and share right over bins of equal width, weighted by their particles."""
    found = reliability(confidence, right, bins=bins)
    return float(sum(b.particles * abs(b.confidence - b.right) for b in found) / max(1, len(confidence)))


def at_temperature(probabilities: F4, *, temperature: float, log_prior: npt.ArrayLike, new: float) -> F4:
    """The same network's probabilities had another temperature been chosen.

    Parameters
    ----------
    probabilities : ndarray of float32 (n, C)
        ``softmax(logits / temperature + log_prior)``.
    temperature : float
        The one behind ``probabilities``.
    log_prior : array_like (C,)
    new : float
        The one wanted; 1: as the network was taught.

    Examples
    --------
    >>> p = probabilities_of(np.array([[2.0, 0.0]], np.float32), temperature=2.0)
    >>> at_temperature(p, temperature=2.0, log_prior=[0, 0], new=1.0).round(3).tolist()
    [[0.8809999823570251, 0.11900000274181366]]
    """
    shift = np.asarray(log_prior, np.float32)
    scaled = np.log(np.maximum(probabilities, np.float32(1e-30))) - shift
    return probabilities_of(scaled * np.float32(temperature), temperature=new, log_prior=shift)


def find_temperature(logits: F4, label: Ints, *, log_prior: npt.ArrayLike = 0.0) -> float:
    """Temperature between 0.3 and 4 with the least negative log likelihood; ``log_prior`` is added to scaled logits."""
    rows = np.arange(len(label))

    def loss(temperature: float) -> float:
        scaled = logits.astype(np.float64) / temperature + np.asarray(log_prior, np.float64)
        scaled -= scaled.max(axis=1, keepdims=True)
        return float(np.mean(np.log(np.exp(scaled).sum(axis=1)) - scaled[rows, label]))

    grid = np.geomspace(0.3, 4.0, 60)
    return float(grid[int(np.argmin([loss(t) for t in grid]))])
