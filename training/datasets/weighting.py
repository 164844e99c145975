"""How much each class counts where one has many more pictures than another."""

from __future__ import annotations

from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from edge_app.errors import UserError

__all__ = ["WEIGHTINGS", "Weighting", "class_mix", "class_weights"]

Weighting = Literal["none", "sqrt", "inverse", "effective"]
WEIGHTINGS: Final[tuple[str, ...]] = get_args(Weighting)

#: A class of many more pictures than this gains little from more of them (1 / (1 - beta) prototypes).
PROTOTYPES: Final = 1000.0


def class_weights(
    label: npt.NDArray[np.int64], classes: int, *, method: Weighting = "effective", prototypes: float = PROTOTYPES
) -> npt.NDArray[np.float64]:
    """Weight of a picture of each class in the loss.

    ``none`` 1; ``inverse`` 1 / n; ``sqrt`` 1 / sqrt(n); ``effective`` 1 / E with the effective number of pictures
    E = (1 - beta^n) / (1 - beta), beta = 1 - 1 / ``prototypes``: the n-th picture of a class shows less that is new
    than the first. Small classes are weighted as by ``inverse``, large ones are no longer pushed down.

    Parameters
    ----------
    label : ndarray of int (n,)
    classes : int
        Number of classes; every class has a picture.
    method : {'none', 'sqrt', 'inverse', 'effective'}
    prototypes : float
        Different looks that a class has, above 1.

    Returns
    -------
    ndarray of float64 (classes,)
        Scaled so that the mean over all pictures is 1: the learning rate keeps its meaning.

    Raises
    ------
    UserError
        A class has no picture.

    References
    ----------
    Y. Cui et al., Class-balanced loss based on effective number of samples, CVPR 2019.

    Examples
    --------
    >>> class_weights(np.array([0, 0, 0, 1]), 2, method="inverse").round(3).tolist()
    [0.667, 2.0]
    """
    counts = np.bincount(label, minlength=classes).astype(np.float64)
    if (counts == 0).any():
        raise UserError(f"class number {int(np.flatnonzero(counts == 0)[0])}: no picture to weight")
    if prototypes <= 1:
        raise ValueError(f"prototypes is {prototypes}, must be above 1")
    if method == "none":
        raw = np.ones(classes)
    elif method == "sqrt":
        raw = 1 / np.sqrt(counts)
    elif method == "inverse":
        raw = 1 / counts
    elif method == "effective":
        # (1 - beta^n) / (1 - beta) without losing digits for a beta close to 1.
        raw = 1 / (-np.expm1(counts * np.log1p(-1 / prototypes)) * prototypes)
    else:
        raise UserError(f"class weighting is {method}, allowed are {', '.join(WEIGHTINGS)}")
    return raw * counts.sum() / (raw * counts).sum()


def class_mix(
    label: npt.NDArray[np.int64], classes: int, *, method: Weighting = "sqrt", prototypes: float = PROTOTYPES
) -> npt.NDArray[np.float64]:
    """Class mix to draw pictures in, for `training.datasets.labelled.sampling_weights`; sums to 1.

    Drawing a class as often as its pictures weigh together: ``none`` keeps the mix of the data, ``inverse`` makes it
    even, ``sqrt`` and ``effective`` lie between.

    Examples
    --------
    >>> class_mix(np.array([0] * 4 + [1]), 2, method="sqrt").round(3).tolist()
    [0.667, 0.333]
    """
    counts = np.bincount(label, minlength=classes)
    mix = class_weights(label, classes, method=method, prototypes=prototypes) * counts
    return np.asarray(mix / mix.sum(), np.float64)
