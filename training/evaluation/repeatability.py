"""Whether the same particle, pictured again, is called the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from training.evaluation.photographs import Photographs
from training.evaluation.problem import Answers

__all__ = ["repeatability_figures"]


def repeatability_figures(
    taken: Sequence[Photographs],
    ask: Callable[[Photographs], Answers],
    *,
    ecd_um: npt.NDArray[np.floating],
    bins: Sequence[tuple[float, float]],
) -> dict[str, Any]:
    """Share of calls that differ from the particle's most frequent one.

    Parameters
    ----------
    taken : sequence of Photographs
        The same particles, each time.
    ask : callable
    ecd_um : ndarray (rows,)
        Size of the particle of each row, NaN where unknown.
    bins : sequence of (float, float)
        Sizes to tell apart, um.
    """
    answers = [ask(p) for p in taken]
    rows = np.concatenate([a.row for a in answers])
    called = np.concatenate([a.called for a in answers])
    right = np.concatenate([a.called == a.truth for a in answers])
    votes = np.zeros((len(ecd_um), int(called.max(initial=0)) + 1), np.int64)
    np.add.at(votes, (rows, called), 1)
    seen = votes.sum(axis=1)
    modal = votes.max(axis=1)
    several = seen >= 2

    def of(which: npt.NDArray[np.bool_]) -> dict[str, Any]:
        chosen = which & several
        total = int(seen[chosen].sum())
        return {
            "particles": int(chosen.sum()),
            "changed_share": round(float((seen - modal)[chosen].sum() / total), 4) if total else None,
            "particles_with_a_change": round(float((modal < seen)[chosen].mean()), 4) if chosen.any() else None,
        }

    return {
        "times": len(taken),
        "right_share": round(float(right.mean()), 4) if len(right) else None,
        **of(several),
        "by_size_um": {f"{a:g}-{b:g}": of((ecd_um >= a) & (ecd_um < b)) for a, b in bins}
        if np.isfinite(ecd_um).any()
        else {},
    }
