"""What belongs together: a groups file as labs write it, or a rule that reads the group off the path."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from edge_app.capture.image_files import IMAGE_SUFFIXES
from edge_app.errors import UserError
from training.datasets.tables import read_columns

__all__ = ["GroupRule", "Groups", "read_split"]

#: A later page of a stack is named after its file: all pages of a file have one group.
_PAGE: Final = re.compile(r" page \d+$")


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Group of each picture, and what the table holds besides.

    Attributes
    ----------
    group : ndarray of str (n,)
        In the order of the pictures.
    source : str
        Where the groups are from, for messages.
    without_picture : int
        Entries of the table that stand for no picture.
    repeated : int
        Entries that say once more what an earlier one says.
    """

    group: npt.NDArray[np.str_]
    source: str
    without_picture: int = 0
    repeated: int = 0


def _entry_parts(text: str) -> tuple[str, ...]:
    """Path of an entry in lower case: Windows or POSIX, absolute or not, without ``.``."""
    # Some systems store an umlaut as a letter and its dots: a table from elsewhere must find it all the same.
    plain = unicodedata.normalize("NFC", text.strip()).casefold()
    return tuple(p for p in re.split(r"[\\/]+", plain) if p and p != ".")


class _PictureIndex:
    """Finds the picture that an entry means: its path below the data, a longer path that ends so, or its bare name."""

    def __init__(self, files: Sequence[str]) -> None:
        self.files = files
        self._full: dict[tuple[str, ...], list[int]] = {}
        self._tail: dict[tuple[str, ...], set[str]] = {}
        for i, file in enumerate(files):
            path = _PAGE.sub("", file)
            parts = _entry_parts(path)
            self._full.setdefault(parts, []).append(i)
            if file != path:
                self._full.setdefault(_entry_parts(file), []).append(i)
            for k in range(1, len(parts)):
                self._tail.setdefault(parts[-k:], set()).add(path)

    def rows(self, entry: str, *, where: str) -> list[int]:
        """Pictures of an entry, [] where there is none.

        Raises
        ------
        UserError
            The entry is the end of several pictures' paths.
        """
        parts = _entry_parts(entry)
        for k in range(len(parts), 1, -1):
            if parts[-k:] in self._full:
                return self._full[parts[-k:]]
        found = sorted(self._tail.get(parts, ()))
        if len(found) > 1:
            raise UserError(f"{where}: {entry} may be {found[0]} or {found[1]}; give the class folder")
        return self._full[_entry_parts(found[0])] if found else []


def _by_picture(
    path: Path, entries: Sequence[tuple[str, ...]], files: Sequence[str], *, column: str
) -> tuple[list[str | None], int, int]:
    """Value of each picture; entries without a picture and repeated ones are counted."""
    index = _PictureIndex(files)
    values: list[str | None] = [None] * len(files)
    without, repeated = 0, 0
    for number, (entry, value) in enumerate(entries, start=1):
        where = f"{path}: entry {number}"
        if Path(_PAGE.sub("", entry)).suffix.lower() not in IMAGE_SUFFIXES:
            raise UserError(f"{where}: {entry} does not end like a picture file (.png, .tif, .pgm, .bmp, .jpg)")
        rows = index.rows(entry, where=where)
        without += not rows
        repeated += any(values[i] is not None for i in rows)
        for i in rows:
            if values[i] not in (None, value):
                raise UserError(
                    f"{where}: {files[i]} is in {column} {values[i]} and in {column} {value}; a picture has one "
                    f"{column}, as a group stands on one side of the split"
                )
            values[i] = value
    return values, without, repeated


@dataclass(frozen=True, kw_only=True)
class GroupRule:
    """Where the groups come from; exactly one of the three is given.

    Attributes
    ----------
    table : Path, optional
        CSV with ``file`` and ``group``.
    folder_level : int, optional
        1: the folder right below the class folder, 2: the one below that.
    regex : str, optional
        Searched in the path below the class folder; the group is what its brackets match (without brackets: all of it).
    """

    table: Path | None = None
    folder_level: int | None = None
    regex: str | None = None

    @staticmethod
    def of(
        *, groups: Path | None = None, group_by: str | None = None, group_regex: str | None = None, where: str
    ) -> GroupRule:
        """Check what the command line says.

        Parameters
        ----------
        groups : Path, optional
        group_by : str, optional
            ``folder`` or ``folder:2``.
        group_regex : str, optional
        where : str
            Name of the data, for messages.

        Raises
        ------
        UserError
            None or several are given, or one cannot be used.
        """
        given = [
            name
            for name, value in (("--groups", groups), ("--group-by", group_by), ("--group-regex", group_regex))
            if value is not None
        ]
        if not given:
            raise UserError(
                f"{where}: nothing says which pictures belong together; give --groups FILE.csv (columns file, group), "
                "--group-by folder or --group-regex PATTERN"
            )
        if len(given) > 1:
            raise UserError(f"{' and '.join(given)} are given, one of them is allowed")
        if group_by is not None:
            match = re.fullmatch(r"folder(?::([1-9]))?", group_by)
            if match is None:
                raise UserError(f"--group-by is {group_by}, allowed are folder and folder:1 to folder:9")
            return GroupRule(folder_level=int(match[1] or 1))
        if group_regex is not None:
            try:
                re.compile(group_regex)
            except re.error as error:
                raise UserError(f"--group-regex {group_regex}: not a regular expression ({error})") from None
            return GroupRule(regex=group_regex)
        return GroupRule(table=groups)

    def groups_of(self, files: Sequence[str]) -> Groups:
        """Group of each picture.

        Parameters
        ----------
        files : sequence of str
            Paths below the data folder, the class folder first.

        Raises
        ------
        UserError
            A picture has no group or two.
        """
        if self.table is not None:
            _, entries = read_columns(self.table, ("file", "group"))
            values, without, repeated = _by_picture(self.table, entries, files, column="group")
            missing = [file for file, value in zip(files, values, strict=True) if value is None]
            if missing:
                more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
                raise UserError(f"{self.table}: no group for {missing[0]}{more}; every picture needs one")
            return Groups(
                group=np.array(values, np.str_),
                source=str(self.table),
                without_picture=without,
                repeated=repeated,
            )
        found = [self._from_path(file) for file in files]
        rule = f"--group-regex {self.regex}" if self.regex is not None else f"--group-by folder:{self.folder_level}"
        lacking = [file for file, value in zip(files, found, strict=True) if not value]
        if lacking:
            more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
            raise UserError(f"{rule}: gives no group for {lacking[0]}{more}; every picture needs one")
        return Groups(group=np.array(found, np.str_), source=rule)

    def _from_path(self, file: str) -> str | None:
        below = _PAGE.sub("", file).split("/")[1:]
        if self.folder_level is not None:
            return below[self.folder_level - 1] if len(below) > self.folder_level else None
        assert self.regex is not None
        match = re.search(self.regex, "/".join(below))
        if match is None:
            return None
        return "-".join(g for g in match.groups() if g) if match.groups() else match[0]


_SIDES: Final[Mapping[str, bool]] = {
    "train": False,
    "training": False,
    "fit": False,
    "test": True,
    "testing": True,
    "measure": True,
    "held-out": True,
}


def read_split(
    path: Path, *, files: Sequence[str], group: npt.NDArray[np.str_]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Read a split that is given: a side for each group, or for each picture.

    Parameters
    ----------
    path : Path
        CSV with ``group,side`` or ``file,side``; a side is ``train`` or ``test``. With both columns, ``group`` counts.
    files : sequence of str
    group : ndarray of str (n,)

    Returns
    -------
    train, test : ndarray of bool (n,)
        Pictures that the file does not name stand on neither side (only with ``file,side``).

    Raises
    ------
    UserError
        A group stands on two sides, a side is none of the two or empty, or a group of the data is not named.
    """
    columns, entries = read_columns(path, ("group", "side"), ("file", "side"))
    sides: list[str | None]
    if columns[0] == "file":
        sides, _, _ = _by_picture(path, entries, files, column="side")
    else:
        side_of: dict[str, str] = {}
        for number, (name, side) in enumerate(entries, start=1):
            if side_of.setdefault(name, side).casefold() != side.casefold():
                raise UserError(
                    f"{path}: entry {number}: group {name} stands on two sides, {side_of[name]} and {side}; a group is "
                    "never split"
                )
        sides = [side_of.get(str(name)) for name in group]
        lacking = sorted({str(g) for g, side in zip(group, sides, strict=True) if side is None})
        if lacking:
            raise UserError(f"{path}: group {lacking[0]} of the data has no side; every group needs one")
    strange = sorted({side for side in sides if side is not None and side.casefold() not in _SIDES})
    if strange:
        raise UserError(f"{path}: side {strange[0]} is not known, allowed are train and test")
    known = np.array([side is not None for side in sides])
    aside = np.array([side is not None and _SIDES[side.casefold()] for side in sides])
    train, test = known & ~aside, known & aside
    shared = sorted(set(group[train].tolist()) & set(group[test].tolist()))
    if shared:
        one, two = (files[int(np.flatnonzero(side & (group == shared[0]))[0])] for side in (train, test))
        raise UserError(
            f"{path}: group {shared[0]} stands on two sides ({one} in train, {two} in test); a group is never split"
        )
    if not train.any() or not test.any():
        raise UserError(f"{path}: no picture in {'train' if not train.any() else 'test'}; both sides need some")
    return train, test
