"""Labelled crops in memory, and how they are split: by group, never by picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from edge_app.classification.crops import Crops
from edge_app.errors import UserError

__all__ = ["LabelledCrops", "sampling_weights", "split_groups"]

SIZE_EDGES_PX = (0.0, 8.0, 10.0, 12.5, 16.0, 20.0, 26.0, 34.0, 48.0, np.inf)


@dataclass(frozen=True, kw_only=True)
class LabelledCrops:
    """n crops with their truth.

    ``label`` int (n,) into the classes, ``group`` (n,) what must not be split (run, lot, source image, particle),
    ``box_px`` float32 (n,) the longer side of the box at the network's scale, ``ecd_um`` true size (NaN if unknown),
    ``field_radius`` distance from the middle of the frame in half diagonals, ``depth_um`` distance from the focal
    plane without its sign (NaN if unknown); ``um_per_px`` (n,) the scale of the picture that the crop was cut from.
    """

    pixels: npt.NDArray[np.uint8]
    context: npt.NDArray[np.float32]
    label: npt.NDArray[np.int64]
    group: npt.NDArray[np.generic]
    box_px: npt.NDArray[np.float32]
    ecd_um: npt.NDArray[np.float32]
    field_radius: npt.NDArray[np.float32]
    depth_um: npt.NDArray[np.float32]
    um_per_px: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.label)

    @property
    def crops(self) -> Crops:
        """As the classifier takes them."""
        return Crops(pixels=self.pixels, context=self.context, um_per_px=self.um_per_px)

    def take(self, rows: npt.NDArray[np.generic]) -> LabelledCrops:
        """Keep some rows."""
        return LabelledCrops(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @staticmethod
    def concatenate(parts: Sequence[LabelledCrops]) -> LabelledCrops:
        """Join in the given order."""
        return LabelledCrops(
            **{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(LabelledCrops)}
        )


def split_groups(
    label: npt.NDArray[np.int64], group: npt.NDArray[np.generic], *, share: float, seed: int, classes: Sequence[str]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Set whole groups aside for testing.

    Groups are drawn, in an order fixed by the seed, until every class has about ``share`` of its pictures aside. A
    group is never split, and no class loses its last training group.

    Parameters
    ----------
    label, group : ndarray (n,)
    share : float
        Wanted share of each class to set aside.
    seed : int
    classes : sequence of str
        Names, for messages.

    Returns
    -------
    train, test : ndarray of bool (n,)

    Raises
    ------
    UserError
        If a class lies in one group only: it cannot be on both sides.
    """
    names, index = np.unique(group, return_inverse=True)
    table = np.zeros((len(names), len(classes)), np.int64)
    np.add.at(table, (index, label), 1)
    for c, name in enumerate(classes):
        found = int((table[:, c] > 0).sum())
        if found < 2:
            raise UserError(
                f"class {name}: all its pictures are in {found} group, at least 2 are needed to split by group"
            )
    wanted = share * table.sum(axis=0)
    rng = np.random.default_rng(seed)
    aside = np.zeros(len(names), bool)
    for g in rng.permutation(len(names)).tolist():
        have = table[aside].sum(axis=0)
        helps = bool(((have < wanted) & (table[g] > 0)).any())
        overshoots = bool((have + table[g] > np.maximum(2 * wanted, 1) + 1).all())
        keeps = bool(((table[~aside] > 0).sum(axis=0) - (table[g] > 0) >= 1)[table[g] > 0].all())
        if helps and keeps and not overshoots:
            aside[g] = True
    lacking = [classes[c] for c in np.flatnonzero(table[aside].sum(axis=0) == 0).tolist()]
    if lacking:
        for c in np.flatnonzero(table[aside].sum(axis=0) == 0).tolist():
            candidates = [
                g
                for g in np.flatnonzero((table[:, c] > 0) & ~aside).tolist()
                if (((table[~aside] > 0).sum(axis=0) - (table[g] > 0)) >= 1)[table[g] > 0].all()
            ]
            if not candidates:
                raise UserError(f"class {classes[c]}: its groups cannot be shared out without splitting one")
            aside[min(candidates, key=lambda g: int(table[g].sum()))] = True
    test = aside[index]
    return ~test, test


def sampling_weights(
    label: npt.NDArray[np.int64], box_px: npt.NDArray[np.float32], *, prior: Sequence[float] | npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Probability of drawing each crop so that size tells nothing of the class.

    Within every bin of box size the classes are drawn as ``prior`` says; where a class hardly has that size its weight
    is limited to ten times its mean, so that no single picture dominates.

    Returns
    -------
    ndarray (n,) that sums to 1
    """
    bins = np.digitize(box_px, SIZE_EDGES_PX[1:-1])
    classes = len(prior)
    table = np.zeros((classes, len(SIZE_EDGES_PX) - 1))
    np.add.at(table, (label, bins), 1)
    share = table.sum(axis=0) / table.sum()
    weight = np.asarray(prior)[label] * share[bins] / table[label, bins]
    for c in range(classes):
        rows = label == c
        if rows.any():
            weight[rows] = np.minimum(weight[rows], 10 * np.median(weight[rows]))
            weight[rows] *= prior[c] / weight[rows].sum()
    return weight / weight.sum()
