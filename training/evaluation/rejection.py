"""When a particle is called unknown, judged by the composition that is reported in the end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edge_app.classification.rejection import Rejection, decide
from training.evaluation.scores import confusion_shares

__all__ = ["choose_rejection", "composition_error", "composition_errors", "nearest_prototypes"]

F4 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.integer]

#: Tried for the probability of being none of the classes; 1 rejects nothing.
NOVELTY_THRESHOLDS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)


def composition_error(reported: npt.NDArray[np.float64], true: npt.NDArray[np.float64]) -> float:
    """Half the sum of absolute differences of two compositions (Bray-Curtis for shares), 0 to 1."""
    return float(0.5 * np.abs(reported - true).sum())


def nearest_prototypes(embedding: F4, label: Ints, classes: int) -> F4:
    """Mean embedding of each class, shape (C, E)."""
    return np.stack([embedding[label == c].mean(axis=0) for c in range(classes)]).astype(np.float32)


def choose_rejection(
    known: F4,
    label: Ints,
    unknown: F4,
    *,
    known_novelty: F4 | None = None,
    unknown_novelty: F4 | None = None,
    class_offset: tuple[float, ...] | None = None,
    unknown_share: float = 0.10,
    highest: float = 0.38,
    mixes: int = 60,
    seed: int = 0,
) -> tuple[Rejection, dict[str, float]]:
    """Rule by which a particle is called unknown, by the error of the reported composition.

    Parameters
    ----------
    known, unknown : ndarray of float32 (n, C), (m, C)
        Calibrated probabilities of crops of the classes, and of families outside them.
    label : ndarray of int (n,)
    known_novelty, unknown_novelty : ndarray of float32 (n,), (m,), optional
        Probability of being none of the classes, from networks that say it; then both thresholds are chosen together.
    class_offset : tuple of float, optional
        As in `edge_app.classification.rejection.Rejection`; goes into the rule.
    unknown_share : float
        Share of unknown particles in the mixes.
    highest : float
        No threshold above it is tried: what is lost to ``unknown`` above it is mostly small silicone oil.
    mixes : int
        Random class mixes (flat Dirichlet) to average over.
    seed : int

    Returns
    -------
    rule : Rejection
    figures : dict
        Composition error without and with it.
    """
    classes = known.shape[1]
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(classes), size=mixes) * (1 - unknown_share)
    true = np.column_stack([shares, np.full(mixes, unknown_share)])

    def error(rule: Rejection) -> float:
        table = confusion_shares(label, decide(known, rejection=rule, novelty=known_novelty).class_index, classes)
        called = decide(unknown, rejection=rule, novelty=unknown_novelty).class_index
        stray = np.bincount(called, minlength=classes + 1) / len(unknown)
        reported = shares @ table + unknown_share * stray
        return float(np.mean([composition_error(r, t) for r, t in zip(reported, true, strict=True)]))

    novelties = (1.0,) if known_novelty is None or unknown_novelty is None else NOVELTY_THRESHOLDS
    rules = [
        Rejection(minimum_probability=float(p), maximum_novelty=n, class_offset=class_offset)
        for n in novelties
        for p in np.round(np.arange(0.0, highest + 1e-9, 0.02), 2)
    ]
    errors = [error(rule) for rule in rules]
    best = int(np.argmin(errors))
    return rules[best], {
        "composition_error_without": round(errors[0], 4),
        "composition_error_with": round(errors[best], 4),
    }


def composition_errors(
    label: Ints,
    calls: Sequence[tuple[Ints, Ints]],
    *,
    classes: int,
    unknown_shares: Sequence[float],
    mixes: int = 200,
    seed: int = 0,
) -> npt.NDArray[np.float64]:
    """Mean composition error of each way of calling at each share of unknown particles.

    Parameters
    ----------
    label : ndarray of int (n,)
    calls : sequence of (ndarray (n,), ndarray (m,))
        What particles of the classes were called, and what particles of none of them were; C is unknown.
    classes : int
    unknown_shares : sequence of float
    mixes : int
        Random mixes of the classes that occur (flat Dirichlet) to average over.
    seed : int

    Returns
    -------
    ndarray (calls, shares)
    """
    present = np.bincount(label, minlength=classes) > 0
    mix = np.zeros((mixes, classes))
    mix[:, present] = np.random.default_rng(seed).dirichlet(np.ones(int(present.sum())), size=mixes)
    errors = np.empty((len(calls), len(unknown_shares)))
    for r, (of_known, of_unknown) in enumerate(calls):
        table = confusion_shares(label, of_known, classes)
        stray = np.bincount(of_unknown, minlength=classes + 1) / max(1, len(of_unknown))
        for k, share in enumerate(unknown_shares):
            true = np.column_stack([mix * (1 - share), np.full(mixes, share)])
            reported = (1 - share) * mix @ table + share * stray
            errors[r, k] = 0.5 * np.abs(reported - true).sum(axis=1).mean()
    return errors
