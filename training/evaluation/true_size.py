"""Size as the network reads it against the true one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from training.evaluation.problem import Answers

__all__ = ["DEPTH_BINS_UM", "true_size_figures"]

F8 = npt.NDArray[np.float64]

DEPTH_BINS_UM = ((0.0, 15.0), (15.0, 30.0), (30.0, 45.0), (45.0, 90.0))


def _of(ratio: F8, truth: F8, which: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Median bias and half the distance between the 16th and the 84th percentile."""
    if which.sum() < 5:
        return {"particles": int(which.sum())}
    low, middle, high = np.percentile(ratio[which], [16, 50, 84])
    return {
        "particles": int(which.sum()),
        "bias_percent": round(100 * float(middle - 1), 2),
        "spread_percent": round(50 * float(high - low), 2),
        "bias_um": round(float(np.median((ratio[which] - 1) * truth[which])), 3),
    }


def true_size_figures(answers: Answers, *, bins: Sequence[tuple[float, float]]) -> dict[str, Any] | None:
    """Median bias and spread of the learned size over size, defocus and class.

    Returns
    -------
    dict or None
        None where the network reads no size or the truth is not known.
    """
    learned = answers.classification.ecd_um
    if learned is None:
        return None
    truth = answers.photographs.crops.ecd_um.astype(np.float64)
    known = np.isfinite(truth) & np.isfinite(learned) & (truth > 0)
    if not known.any():
        return None
    ratio = np.where(known, learned / np.where(known, truth, 1), np.nan)
    depth = np.abs(answers.photographs.crops.depth_um)
    stated = answers.classification.ecd_relative_sd
    within = None
    if stated is not None:
        within = round(float((np.abs(ratio[known] - 1) <= stated[known]).mean()), 4)
    table = [
        {
            "size_um": f"{low:g}-{high:g}",
            "all": _of(ratio, truth, known & (truth >= low) & (truth < high)),
            **{
                f"|z| {a:g}-{b:g} um": _of(
                    ratio, truth, known & (truth >= low) & (truth < high) & (depth >= a) & (depth < b)
                )
                for a, b in DEPTH_BINS_UM
            },
        }
        for low, high in bins
    ]
    figures: dict[str, Any] = {"particles": int(known.sum()), "within_stated_sd": within, "by_size_and_depth": table}
    depth_read = answers.classification.depth_um
    if depth_read is not None and np.isfinite(depth).any():
        error = np.abs(depth_read - depth)[known & np.isfinite(depth)]
        figures["depth_median_error_um"] = round(float(np.median(error)), 2)
    return figures
