"""Groups that say when it is enough: neither learned from nor measured with."""

from __future__ import annotations

from typing import Final

import numpy as np

from edge_app.errors import UserError
from training.datasets.labelled import split_groups
from training.datasets.pictures import LabelledPictures

__all__ = ["set_validation_aside"]

#: Fewer pictures of a class than this say nothing about when to stop.
FEWEST_TO_VALIDATE: Final = 4


def set_validation_aside(
    pictures: LabelledPictures, *, share: float, seed: int
) -> tuple[LabelledPictures, LabelledPictures | None, str]:
    """Take whole groups out of the pictures to learn from, to see when it is enough.

    Parameters
    ----------
    pictures : LabelledPictures
        Without those that measure the result.
    share : float
        0: none.
    seed : int

    Returns
    -------
    teaching : LabelledPictures
    validation : LabelledPictures or None
        None where too few groups or pictures would be left on a side.
    words : str
        What was set aside, or why nothing was.
    """
    if share == 0:
        return pictures, None, "none is wanted"
    try:
        train, aside = split_groups(
            pictures.label, pictures.group, share=share, seed=seed + 1, classes=pictures.classes
        )
    except UserError as error:
        return pictures, None, str(error)
    fewest = np.bincount(pictures.label[aside], minlength=len(pictures.classes))
    left = np.bincount(pictures.label[train], minlength=len(pictures.classes))
    for c, name in enumerate(pictures.classes):
        # A run that is half of the pictures teaches more than it tells.
        if fewest[c] < FEWEST_TO_VALIDATE or left[c] < 2 * fewest[c]:
            where = f"{fewest[c]} aside and {left[c]} to learn from"
            return pictures, None, f"class {name} would have {where}"
    groups = len(np.unique(pictures.group[aside]))
    words = f"validation set: {int(aside.sum())} pictures of {groups} groups"
    return pictures.take(np.flatnonzero(train)), pictures.take(np.flatnonzero(aside)), words
