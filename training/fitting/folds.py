"""Folds for cross-validation: whole groups, every class in its share as far as the groups allow."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edge_app.errors import UserError

__all__ = ["group_folds"]


def group_folds(
    label: npt.NDArray[np.int64], group: npt.NDArray[np.generic], *, folds: int, seed: int, classes: Sequence[str]
) -> npt.NDArray[np.int64]:
    """Fold of each picture.

    Parameters
    ----------
    label, group : ndarray (n,)
    folds : int
        Wanted; with fewer groups there are as many folds as groups.
    seed : int
    classes : sequence of str
        Names, for messages.

    Returns
    -------
    ndarray of int (n,)
        0 to folds - 1; a group is in one fold.

    Raises
    ------
    UserError
        Fewer than two groups, or a class that is missing in what is left to learn from in some fold.

    Examples
    --------
    >>> label = np.array([0, 1, 0, 1, 0, 1])
    >>> run = np.array(["a", "a", "b", "b", "c", "c"])
    >>> sorted(group_folds(label, run, folds=5, seed=1, classes=("oil", "glass")).tolist())
    [0, 0, 1, 1, 2, 2]
    """
    from sklearn.model_selection import StratifiedGroupKFold

    if folds < 2:
        raise UserError(f"--folds is {folds}, must be at least 2")
    groups = len(np.unique(group))
    if groups < 2:
        raise UserError(f"all pictures are in {groups} group, at least 2 are needed to cross-validate by group")
    maker = StratifiedGroupKFold(n_splits=min(folds, groups), shuffle=True, random_state=seed)
    fold = np.zeros(len(label), np.int64)
    with warnings.catch_warnings():
        # It warns of classes with fewer groups than folds; that is checked below, by what matters.
        warnings.simplefilter("ignore", UserWarning)
        for k, (_, test) in enumerate(maker.split(np.zeros(len(label)), label, group)):
            fold[test] = k
    for c, name in enumerate(classes):
        if len(np.unique(group[label == c])) < 2:
            raise UserError(f"class {name}: all its pictures are in one group, at least 2 are needed to cross-validate")
        for k in np.unique(fold).tolist():
            if not (label[fold != k] == c).any():
                raise UserError(
                    f"class {name}: all its groups fall into fold {k + 1}; choose fewer --folds or another --seed"
                )
    return fold
