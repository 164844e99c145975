"""How far the reported class mix is from the true one, whatever the mix: the artificial-prevalence protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_app.classification.prevalence import confusion_corrected, emq

__all__ = ["METHODS", "MixErrors", "absolute_error", "mix_errors", "relative_error"]

F4 = npt.NDArray[np.float32]
F8 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]

#: As they are named in the report.
METHODS = {"count": "counting the calls", "acc": "confusion matrix (ACC)", "emq": "expectation maximisation (EMQ)"}


def absolute_error(true: F8, found: F8) -> F8:
    """Distance of shares (..., C) of each class, (..., C)."""
    return np.abs(found - true)


def relative_error(true: F8, found: F8, *, smoothing: float) -> F8:
    """The distance as a fraction of the true share, both smoothed so that a share of 0 has one.

    Parameters
    ----------
    true, found : ndarray (..., C)
    smoothing : float
        Usually 1 / (2 particles of the sample).

    References
    ----------
    A. Esuli, A. Moreo, F. Sebastiani, QuaPy, CIKM 2021; F. Sebastiani, Information Retrieval Journal 23 (2020) 255.
    """
    classes = true.shape[-1]
    below = 1 + smoothing * classes
    smooth_true, smooth_found = (true + smoothing) / below, (found + smoothing) / below
    return np.abs(smooth_found - smooth_true) / smooth_true


@dataclass(frozen=True, kw_only=True)
class MixErrors:
    """Errors over all samples: true and found shares (S, C) by method."""

    true: F8
    found: Mapping[str, F8]
    sample: int

    def mae(self, method: str) -> F8:
        """Mean absolute error of each class, (C,)."""
        return absolute_error(self.true, self.found[method]).mean(axis=0)

    def rae(self, method: str) -> F8:
        """Mean relative error of each class, (C,)."""
        return relative_error(self.true, self.found[method], smoothing=1 / (2 * self.sample)).mean(axis=0)


def mix_errors(
    truth: Ints,
    called: Ints,
    probabilities: F4,
    *,
    confusion: npt.ArrayLike,
    assumed_prior: npt.ArrayLike,
    mixes: int = 200,
    sample: int = 500,
    seed: int = 0,
) -> MixErrors:
    """Report the class mix of many samples whose true mix goes from 0 to 100 % of each class.

    Each sample draws its mix uniformly from all mixes of the classes that occur, then that many particles of each class
    with replacement. The three reports are those of a device: what was called (unknown left out), the calls corrected
    by the bundle's confusion matrix, and expectation maximisation on the calibrated probabilities.

    Parameters
    ----------
    truth, called : ndarray of int (n,)
        ``called`` may be C (unknown).
    probabilities : ndarray of float32 (n, C)
    confusion : array_like (C, C + 1)
        Shares, rows true class.
    assumed_prior : array_like (C,)
        Mix behind the probabilities.
    mixes, sample : int
        Samples, and particles in each.
    seed : int
    """
    classes = probabilities.shape[1]
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(truth == c) for c in range(classes)]
    present = np.flatnonzero([len(r) > 0 for r in rows])
    true = np.zeros((mixes, classes))
    found = {method: np.zeros((mixes, classes)) for method in METHODS}
    for k in range(mixes):
        counts = rng.multinomial(sample, rng.dirichlet(np.ones(len(present))))
        drawn = np.concatenate([rng.choice(rows[c], size=n) for c, n in zip(present.tolist(), counts, strict=True)])
        true[k, present] = counts / sample
        named = np.bincount(called[drawn], minlength=classes + 1)
        known = named[:classes].sum()
        found["count"][k] = named[:classes] / known if known else 1 / classes
        found["acc"][k] = confusion_corrected(named, confusion)
        found["emq"][k] = emq(probabilities[drawn], assumed_prior=assumed_prior, tolerance=1e-5)
    return MixErrors(true=true, found=found, sample=sample)
