"""Whether a confidence of 0.9 is right nine times in ten."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["expected_calibration_error", "find_temperature"]

F4 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.integer]


def expected_calibration_error(confidence: F4, right: npt.NDArray[np.bool_], *, bins: int = 15) -> float:
    """Mean distance of confidence and share right over bins of equal width, weighted by their particles."""
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    error = 0.0
    for b in range(bins):
        rows = index == b
        if rows.any():
            error += rows.mean() * abs(float(confidence[rows].mean()) - float(right[rows].mean()))
    return float(error)


def find_temperature(logits: F4, label: Ints) -> float:
    """Temperature between 0.3 and 4 with the least negative log likelihood."""
    rows = np.arange(len(label))

    def loss(temperature: float) -> float:
        scaled = logits.astype(np.float64) / temperature
        scaled -= scaled.max(axis=1, keepdims=True)
        return float(np.mean(np.log(np.exp(scaled).sum(axis=1)) - scaled[rows, label]))

    grid = np.geomspace(0.3, 4.0, 60)
    return float(grid[int(np.argmin([loss(t) for t in grid]))])
