"""Two sides that share no group, and what leaks between them all the same."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from edge_app.errors import UserError
from training.datasets.duplicates import Duplicates, find_duplicates
from training.datasets.groups import read_split
from training.datasets.labelled import split_groups
from training.datasets.pictures import LabelledPictures

__all__ = ["duplicates_of", "split_pictures", "warn_of_duplicates"]

_LISTED: Final = 3


def split_pictures(
    pictures: LabelledPictures, *, split: Path | None = None, share: float = 0.2, seed: int = 1
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Sides to train on and to measure with: as a file says, else drawn.

    Parameters
    ----------
    pictures : LabelledPictures
    split : Path, optional
        See `training.datasets.groups.read_split`.
    share, seed
        Of the draw, `training.datasets.labelled.split_groups`.

    Returns
    -------
    train, test : ndarray of bool (n,)

    Raises
    ------
    UserError
        A group on two sides, or a class that is missing on one.
    """
    if split is None:
        return split_groups(pictures.label, pictures.group, share=share, seed=seed, classes=pictures.classes)
    train, test = read_split(split, files=pictures.files, group=pictures.group)
    for c, name in enumerate(pictures.classes):
        for side, which in ((train, "train"), (test, "test")):
            if not (side & (pictures.label == c)).any():
                raise UserError(f"{split}: class {name} has no picture in {which}; both sides need every class")
    return train, test


def duplicates_of(pictures: LabelledPictures) -> Duplicates:
    """Copies among labelled pictures, `training.datasets.duplicates.find_duplicates`."""
    return find_duplicates(
        pictures.pictures,
        files=pictures.files,
        group=pictures.group,
        label=pictures.label,
        classes=pictures.classes,
    )


def warn_of_duplicates(
    duplicates: Duplicates,
    train: npt.NDArray[np.bool_],
    test: npt.NDArray[np.bool_],
    *,
    refuse: bool = False,
) -> list[str]:
    """Lines about copies that stand on both sides of a split.

    Parameters
    ----------
    duplicates : Duplicates
    train, test : ndarray of bool (n,)
        Pictures on neither side do no harm.
    refuse : bool
        Raise instead.

    Returns
    -------
    list of str
        Empty if there is none.

    Raises
    ------
    UserError
        With ``refuse``, if there is one.
    """
    side = np.where(train, 1, np.where(test, 2, 0))
    parted = [p for p in duplicates.across(side) if side[p.first] and side[p.second]]
    if not parted:
        return []
    pair = "pair of copies stands" if len(parted) == 1 else "pairs of copies stand"
    first = f"{len(parted)} {pair} on both sides of the split"
    if refuse:
        raise UserError(f"{first}, refused: {duplicates.describe(parted[0])}")
    lines = [f"warning: {first}; the figures flatter. Give copies one group, or take one of each out"]
    lines += [f"  {duplicates.describe(p)}" for p in parted[:_LISTED]]
    if len(parted) > _LISTED:
        lines.append(f"  and {len(parted) - _LISTED} more: python -m training data lists them all")
    return lines
