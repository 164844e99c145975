"""What a data set holds: counts per class, group and size, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from training.datasets.duplicates import Duplicates
from training.datasets.pictures import LabelledPictures

__all__ = ["SIZE_EDGES_UM", "Summary", "print_summary", "summarise"]

#: Longer side of the picture, um.
SIZE_EDGES_UM: Final = (0.0, 5.0, 8.0, 15.0, 25.0, 70.0, np.inf)
_GROUPS_SHOWN: Final = 24
_PAIRS_SHOWN: Final = 20
_FEW: Final = 20


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Tables of counts.

    Attributes
    ----------
    source : str
    um_per_px : float
    classes, groups : tuple of str
        Names, in the order of the tables' rows.
    by_class : ndarray of int (classes,)
    by_group : ndarray of int (groups, classes)
    by_size : ndarray of int (classes, sizes)
        Longer side of the particle's box in the bins of `SIZE_EDGES_UM`.
    longest_um : ndarray of float32 (n,)
    level : ndarray of float (groups,)
        Mean background level.
    duplicates : Duplicates
    notes : dict of str to int
        What was left out on reading.
    """

    source: str
    um_per_px: float
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    by_class: npt.NDArray[np.int64]
    by_group: npt.NDArray[np.int64]
    by_size: npt.NDArray[np.int64]
    longest_um: npt.NDArray[np.float32]
    level: npt.NDArray[np.float64]
    duplicates: Duplicates
    notes: dict[str, int]

    def warnings(self) -> list[str]:
        """What makes training on these data, or figures from them, doubtful; a line each."""
        lines = []
        groups_of_class = (self.by_group > 0).sum(axis=0)
        for c, name in enumerate(self.classes):
            if groups_of_class[c] < 2:
                only = self.groups[int(np.argmax(self.by_group[:, c]))]
                lines.append(f"class {name} is in group {only} only: it cannot stand on both sides of a split")
            elif self.by_class[c] < _FEW:
                lines.append(f"class {name} has {self.by_class[c]} pictures: its figures will be coarse")
        pure = (self.by_group > 0).sum(axis=1) == 1
        if pure.all() and len(self.groups) > 1 and (self.by_group.sum(axis=1) > 1).any():
            lines.append(
                "no group holds two classes: background and optics of a run can tell the class in place of the particle"
            )
        across, wrong = self.duplicates.across_groups(), self.duplicates.across_classes()
        if across:
            lines.append(f"{len(across)} pair(s) of copies are in different groups: a split may part them")
        if wrong:
            lines.append(f"{len(wrong)} pair(s) of copies have different classes: one label of each is wrong")
        return lines

    def as_json(self) -> dict[str, Any]:
        """Everything, for `json.dumps`."""
        sizes = size_names()
        return {
            "source": self.source,
            "pictures": int(self.by_class.sum()),
            "um_per_px": self.um_per_px,
            "classes": {
                name: {
                    "pictures": int(self.by_class[c]),
                    "groups": int((self.by_group[:, c] > 0).sum()),
                    "by_longer_side_um": dict(zip(sizes, self.by_size[c].tolist(), strict=True)),
                }
                for c, name in enumerate(self.classes)
            },
            "groups": {
                name: {
                    "pictures": int(self.by_group[g].sum()),
                    "background_level": round(float(self.level[g]), 1),
                    "by_class": dict(zip(self.classes, self.by_group[g].tolist(), strict=True)),
                }
                for g, name in enumerate(self.groups)
            },
            "duplicates": self.duplicates.record() | {"list": self.duplicates.as_json()},
            "left_out_or_met": self.notes,
            "warnings": self.warnings(),
        }


def size_names() -> list[str]:
    """Names of the size bins.

    Examples
    --------
    >>> size_names()[:2], size_names()[-1]
    (['0-5', '5-8'], '70+')
    """
    low, high = SIZE_EDGES_UM[:-1], SIZE_EDGES_UM[1:]
    return [f"{a:g}-{b:g}" if np.isfinite(b) else f"{a:g}+" for a, b in zip(low, high, strict=True)]


def summarise(pictures: LabelledPictures, duplicates: Duplicates, *, source: str) -> Summary:
    """Count.

    Parameters
    ----------
    pictures : LabelledPictures
    duplicates : Duplicates
        `training.datasets.splits.duplicates_of`.
    source : str
        Name of the data.

    Returns
    -------
    Summary
    """
    groups, index = np.unique(pictures.group, return_inverse=True)
    classes = len(pictures.classes)
    by_group = np.zeros((len(groups), classes), np.int64)
    np.add.at(by_group, (index, pictures.label), 1)
    longest = pictures.longest_px() * np.float32(pictures.um_per_px)
    by_size = np.zeros((classes, len(SIZE_EDGES_UM) - 1), np.int64)
    np.add.at(by_size, (pictures.label, np.digitize(longest, SIZE_EDGES_UM[1:-1])), 1)
    members = by_group.sum(axis=1)
    return Summary(
        source=source,
        um_per_px=pictures.um_per_px,
        classes=pictures.classes,
        groups=tuple(groups.tolist()),
        by_class=np.bincount(pictures.label, minlength=classes),
        by_group=by_group,
        by_size=by_size,
        longest_um=longest,
        level=np.bincount(index, weights=pictures.level) / members,
        duplicates=duplicates,
        notes=dict(pictures.notes),
    )


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="", box=None, pad_edge=False)
    table.add_column(columns[0])
    for name in columns[1:]:
        table.add_column(name, justify="right")
    return table


def print_summary(summary: Summary, console: Console) -> None:
    """Tables for a terminal.

    Parameters
    ----------
    summary : Summary
    console : rich.console.Console
    """
    n = int(summary.by_class.sum())
    console.print(
        f"{summary.source}: {n} pictures, {len(summary.classes)} classes, {len(summary.groups)} groups, "
        f"{summary.um_per_px:g} um/px",
        highlight=False,
    )
    console.print()
    table = _table("Longer side of the particle, um", "class", "pictures", "groups", *size_names())
    for c, name in enumerate(summary.classes):
        numbers = [summary.by_class[c], (summary.by_group[:, c] > 0).sum(), *summary.by_size[c]]
        table.add_row(name, *map(str, numbers))
    console.print(table)
    console.print()
    table = _table("Groups", "group", "background", *(name.replace("_", " ") for name in summary.classes), "pictures")
    order = np.argsort(-summary.by_group.sum(axis=1), kind="stable")[:_GROUPS_SHOWN]
    for g in np.sort(order).tolist():
        row = summary.by_group[g]
        table.add_row(summary.groups[g], f"{summary.level[g]:.0f}", *map(str, row), str(row.sum()))
    console.print(table)
    if len(summary.groups) > _GROUPS_SHOWN:
        console.print(f"and {len(summary.groups) - _GROUPS_SHOWN} smaller groups", highlight=False)
    console.print()
    pairs = summary.duplicates.pairs
    across = len(summary.duplicates.across_groups())
    console.print(f"Copies: {len(pairs)} pair(s), {across} of them across groups", highlight=False, style="bold")
    ranked = sorted(pairs, key=lambda p: bool(summary.duplicates.group[p.first] == summary.duplicates.group[p.second]))
    for pair in ranked[:_PAIRS_SHOWN]:
        console.print(f"  {summary.duplicates.describe(pair)}", highlight=False, markup=False, soft_wrap=True)
    if len(pairs) > _PAIRS_SHOWN:
        console.print(f"  and {len(pairs) - _PAIRS_SHOWN} more (--json lists all)", highlight=False)
    for reason, count in summary.notes.items():
        console.print(f"{reason}: {count}", highlight=False, markup=False)
    for line in summary.warnings():
        console.print(f"warning: {line}", highlight=False, markup=False, soft_wrap=True, style="yellow")
