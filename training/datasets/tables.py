"""Small tables that labs write by hand or by spreadsheet: groups, splits, labels."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edge_app.capture.particle_table import read_table, read_text
from edge_app.errors import UserError

__all__ = ["read_columns"]

_SEARCHED_LINES: Final = 50


def read_columns(path: Path, *alternatives: tuple[str, ...]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Entries of a table that has one of these sets of columns, in any case and order, among others.

    Parameters
    ----------
    path : Path
    alternatives : tuple of str
        Column names in lower case; the first set that is there counts.

    Returns
    -------
    columns : tuple of str
        The set that is there.
    entries : list of tuple of str
        The values of these columns, entry by entry, without blanks around them.

    Raises
    ------
    UserError
        No such columns, no entry, an entry that lacks a value, a line with more or fewer fields than the header.
    """

    def plain(header: Sequence[str]) -> list[str]:
        return [name.strip().strip('"').casefold() for name in header]

    def found_in(header: Sequence[str]) -> tuple[str, ...] | None:
        return next((columns for columns in alternatives if set(columns) <= set(plain(header))), None)

    try:
        text = read_text(path)
        table = read_table(text, is_header=lambda h: found_in(h) is not None, search_lines=_SEARCHED_LINES)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except csv.Error as error:
        raise UserError(f"{path}: not a CSV file ({error})") from None
    if table is None:
        first = next((line for line in text.splitlines() if line.strip()), "")
        names = ", ".join(p.strip() for p in re.split(r"[,;\t|]", first) if p.strip())
        if len(names) > 120 or not names.isprintable():
            names = "not those of a table"
        needed = " or ".join(", ".join(columns) for columns in alternatives)
        raise UserError(f"{path}: columns are {names or 'none'}, needed are {needed}")
    columns = found_in(table.names)
    assert columns is not None
    if table.ragged:
        raise UserError(f"{path}: {table.ragged} line(s) do not have the {len(table.names)} columns of the header")
    if not table.rows:
        raise UserError(f"{path}: no entry below the header")
    places = [plain(table.names).index(column) for column in columns]
    entries = [tuple(row[k].strip() for k in places) for row in table.rows]
    for number, entry in enumerate(entries, start=1):
        if not all(entry):
            raise UserError(f"{path}: entry {number}: {' or '.join(columns)} is empty")
    return columns, entries
