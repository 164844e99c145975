"""Text tables as instruments and spreadsheets write them: any separator, decimal comma or line ending."""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["TextTable", "column_key", "is_text", "parse_number", "read_table", "read_text", "to_column"]


def read_text(path: Path) -> str:
    """Read a text file whose encoding nobody states: UTF-8 or UTF-16 by its mark, UTF-8, else Windows-1252.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    data = path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def is_text(path: Path) -> bool:
    """Whether a file may be a text table by its first bytes: a workbook or raw frames hold zeros.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(1 << 16)
    return head[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" not in head


def column_key(name: str) -> str:
    """Reduce a column name to what does not vary: no unit, case, blanks or punctuation; ``#`` is ``number``.

    Examples
    --------
    >>> [column_key(n) for n in ("ECD(um)", " ecd [\u00b5m]", "Frame #", "#", "Max Feret Diameter (um)", "X_Left")]
    ['ecd', 'ecd', 'framenumber', 'number', 'maxferetdiameter', 'xleft']
    """
    bare = re.sub(r"[(\[].*?[)\]]", "", name).casefold().replace("#", "number")
    return re.sub(r"[^a-z0-9]+", "", bare)


def parse_number(text: str, *, thousands_comma: bool = False, thousands_dot: bool = False) -> float:
    """Read a number; text that is none is NaN.

    Parameters
    ----------
    thousands_comma
        Whether ``1,234`` means 1234 (a comma-separated file with quoted numbers) and not 1.234.
    thousands_dot
        Whether ``1.234`` means 1234 (a file whose decimal sign is the comma).

    Examples
    --------
    >>> parse_number("0,5544"), parse_number("1,234", thousands_comma=True), parse_number(" 1.5e3 "), parse_number("")
    (0.5544, 1234.0, 1500.0, nan)
    """
    text = text.strip().strip('"').replace("\u2212", "-")
    if thousands_comma and _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    elif thousands_dot and _THOUSANDS_DOT.fullmatch(text):
        text = text.replace(".", "").replace(",", ".")
    elif "," in text:
        # 1.234,5 and 1,234.5: the last of the two is the decimal sign.
        text = text.replace(".", "") if text.rfind(".") < text.rfind(",") else text.replace(",", "")
        text = text.replace(",", ".")
    try:
        return float(text)
    except ValueError:
        return float("nan")


_THOUSANDS = re.compile(r"[-+]?[1-9][0-9]{0,2}(,[0-9]{3})+(\.[0-9]*)?")
_THOUSANDS_DOT = re.compile(r"[-+]?[1-9][0-9]{0,2}(\.[0-9]{3})+(,[0-9]*)?")
_DECIMAL_COMMA = re.compile(r"[-+]?([0-9.]*[0-9],([0-9]{1,2}|[0-9]{4,})|0,[0-9]+)")
"""A number whose comma cannot stand before thousands."""
_NO_VALUE = frozenset({"", "-", "nan", "n/a", "na", "#n/a", "null", "none"})


def to_column(
    values: Sequence[str], *, thousands_comma: bool = False, thousands_dot: bool = False
) -> npt.NDArray[np.generic]:
    """Type a text column: int64 where every value is whole, float64 (NaN where empty) where numbers, else text.

    Examples
    --------
    >>> to_column(["1", "2"]).dtype.name, to_column(["1,5", ""]).dtype.name, to_column(["a"]).dtype.kind
    ('int64', 'float64', 'U')
    """
    numbers = np.array(
        [parse_number(v, thousands_comma=thousands_comma, thousands_dot=thousands_dot) for v in values],
        dtype=np.float64,
    )
    blank = np.array([v.strip().casefold() in _NO_VALUE for v in values], dtype=bool)
    if (np.isnan(numbers) & ~blank).any() or (len(values) and blank.all()):
        return np.array(list(values), dtype=np.str_)
    whole = not np.isnan(numbers).any() and (numbers == np.floor(numbers)).all() and (np.abs(numbers) < 2**53).all()
    return numbers.astype(np.int64) if whole else numbers


@dataclass(frozen=True)
class TextTable:
    """Header and rows as text; ``ragged`` counts rows whose number of fields is not the header's."""

    names: tuple[str, ...]
    rows: list[list[str]]
    ragged: int
    separator: str

    @cached_property
    def decimal_comma(self) -> bool:
        """Whether most columns with a comma in them can only be read with it as the decimal sign."""
        said = [self._says_decimal_comma(i) for i in range(len(self.names))]
        return said.count(True) > said.count(False)

    def _says_decimal_comma(self, index: int) -> bool | None:
        with_comma = [row[index].strip() for row in self.rows if "," in row[index]]
        return any(_DECIMAL_COMMA.fullmatch(cell) for cell in with_comma) if with_comma else None

    def column(self, name: str) -> npt.NDArray[np.generic]:
        """Typed column by its exact name; the decimal sign is the column's own, else that of the table."""
        index = self.names.index(name)
        return to_column(
            [row[index] for row in self.rows],
            thousands_comma=self.separator == "," and not (self.decimal_comma or self._says_decimal_comma(index)),
            thousands_dot=self.decimal_comma,
        )


def read_table(text: str, *, is_header: Callable[[Sequence[str]], bool], search_lines: int = 200) -> TextTable | None:
    """Find the header line of a table and read the rows below it.

    Parameters
    ----------
    text
        The file; lines above the header are passed over.
    is_header
        Says whether these fields are the table's header.

    Returns
    -------
    The table, or None if no line of the first ``search_lines`` is the header with any of the separators
    tab, semicolon, comma, bar.
    """
    lines = text.splitlines()
    for at, line in enumerate(lines[:search_lines]):
        for separator in "\t;,|":
            if separator not in line:
                continue
            try:
                names = [n.strip() for n in next(csv.reader([line], delimiter=separator))]
            except csv.Error:  # a line without end, of a file that is no table
                continue
            while names and not names[-1]:
                names.pop()
            if not is_header(names):
                continue
            rows, ragged = [], 0
            for row in _read_rows(lines, at + 1, separator, len(names)):
                if row is None:
                    ragged += 1
                elif any(field.strip() for field in row):
                    rows.append(row[: len(names)])
            return TextTable(tuple(names), rows, ragged, separator)
    return None


def _read_rows(lines: list[str], start: int, separator: str, fields: int) -> Iterator[list[str] | None]:
    """Yield the rows from line ``start`` on, None for one that has not the header's fields.

    A quote that is opened and never closed would take in all lines below it: its line is then read by itself.
    """

    def fits(row: list[str]) -> bool:
        return len(row) >= fields and not any(field.strip() for field in row[fields:])

    while start < len(lines):
        reader = csv.reader(islice(lines, start, None), delimiter=separator, strict=True)
        done = 0
        try:
            for row in reader:
                good = fits(row)
                if reader.line_num - done > 1 and not good:
                    break
                done = reader.line_num
                yield row if good or not any(field.strip() for field in row) else None
            else:
                return
        except csv.Error:
            pass
        try:
            row = next(csv.reader([lines[start + done]], delimiter=separator))
        except csv.Error:
            row = []
        yield row if fits(row) else None
        start += done + 1
