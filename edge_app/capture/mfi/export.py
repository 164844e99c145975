"""What an MFI export holds: its options, its pictures, its particle table."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from edge_app.capture.frame import LARGEST_NUMBER
from edge_app.capture.image_files import is_left_out, list_images
from edge_app.capture.mfi.table import MFI_COLUMNS, MfiTable, read_mfi_table
from edge_app.capture.picture_structure import KINDS
from edge_app.capture.problems import Problems
from edge_app.capture.uri import SourceUri, parse_path_uri, validate_options
from edge_app.errors import UserError

__all__ = ["DEFAULT_PATTERN", "MfiExport", "MfiOptions", "find_mfi_export"]

_TABLE_SUFFIXES: Final = frozenset({".csv", ".txt", ".tsv", ".tab", ".dat", ".xls"})
"""``.xls`` because the instrument's text export is often given that ending; a real workbook is not read."""

DEFAULT_PATTERN: Final = r"([0-9]+)(?!.*[0-9])"
"""The last number in a name."""


class MfiOptions(BaseModel):
    """Options of ``mfi:``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pattern: str = Field(
        default=DEFAULT_PATTERN,
        description="regular expression searched in the file's name without its ending; its first group is the number "
        "of the frame (or particle picture); default: the last number in the name",
    )
    table: str | None = Field(default=None, description="file name of the particle table; default: found by its header")
    rate_hz: float | None = Field(
        default=None, gt=0, le=100_000, description="frames per second; default: from the table's time stamps, else 10"
    )
    bits: int | None = Field(default=None, ge=8, le=16, description="bits in use in 16-bit files; default: found out")
    um_per_px: float | None = Field(default=None, gt=0, le=100, description="scale of the instrument")
    depth_um: float | None = Field(default=None, gt=0, le=100_000, description="inner depth of the flow cell")


@dataclass(frozen=True)
class MfiExport:
    """Pictures and table of an export, before anything says whether the pictures are frames or particles.

    Attributes
    ----------
    where, options, pattern
        What was asked for; a table that ``where`` named is in ``options``.
    images
        Pictures in natural name order, one at least.
    table
        None where the folder has none.
    problems
        What was wrong so far; goes on in the source that is made of the export.
    """

    where: SourceUri
    options: MfiOptions
    pattern: re.Pattern[str]
    images: list[Path]
    table: MfiTable | None
    problems: Problems

    def number_of(self, path: Path) -> int | None:
        """Number in a picture's name (of its frame or its particle); None if it has none."""
        match = self.pattern.search(path.stem)
        text = match[1] if match else None
        return int(text) if text and text.isdecimal() and int(text) <= LARGEST_NUMBER else None


def find_mfi_export(uri: str) -> MfiExport:
    """Find the pictures and the table of ``mfi:PATH``: in the folder, else below it.

    Parameters
    ----------
    uri
        PATH is the folder or the table in it.

    Raises
    ------
    UserError
        If an option is wrong, the folder cannot be read or holds no picture, or the table that is named is none.
    """
    where = parse_path_uri(uri)
    options = validate_options(where, MfiOptions)
    try:
        pattern = re.compile(options.pattern)
    except re.error as error:
        raise UserError(f"{where}: option pattern is {options.pattern!r}: no regular expression ({error})") from error
    if pattern.groups < 1:
        raise UserError(f"{where}: option pattern is {options.pattern!r}: needs a group in brackets for the number")
    if where.path.is_file() and where.path.suffix.lower() in _TABLE_SUFFIXES and options.table is None:
        options = options.model_copy(update={"table": where.path.name})
        where = replace(where, path=where.path.parent)
    if not where.path.is_dir():
        found = "is a file, neither a directory nor a table" if where.path.exists() else "directory does not exist"
        raise UserError(f"{where}: {found}")
    problems = Problems()
    try:
        images = list_images(where.path) or list_images(where.path, recursive=True)
        table = _find_table(where, options, problems)
    except OSError as error:
        raise UserError(f"{where}: directory cannot be read ({error.strerror})") from error
    if not images:
        raise UserError(f"{where}: no frame or particle picture in it ({KINDS} files needed)")
    return MfiExport(where, options, pattern, images, table, problems)


def _find_table(where: SourceUri, options: MfiOptions, problems: Problems) -> MfiTable | None:
    if options.table is not None:
        path = where.path / options.table
        table = read_mfi_table(path, problems)
        if table is None:
            raise UserError(f"{path}: no header line with the instrument's columns ({', '.join(MFI_COLUMNS[:6])}, ...)")
        return table
    best = _best_table(p for p in where.path.iterdir() if p.is_file())
    if best is None:
        below = (Path(folder, name) for folder, _, names in os.walk(where.path) for name in names)
        best = _best_table(p for p in below if p.parent != where.path)
    if best is None:
        return None
    problems.counts.update(best[0].counts)
    problems.messages.extend(best[0].messages)
    return best[1]


def _best_table(paths: Iterable[Path]) -> tuple[Problems, MfiTable] | None:
    """The table that holds the most of the instrument's columns, of those the longest."""
    best: tuple[int, Problems, MfiTable] | None = None
    for path in sorted(paths):
        if path.suffix.lower() not in _TABLE_SUFFIXES or is_left_out(path.name):
            continue
        found = Problems()
        table = read_mfi_table(path, found)
        if table is None:
            continue
        known = len(set(table.columns) & set(MFI_COLUMNS))
        if best is None or (known, len(table)) > (best[0], len(best[2])):
            best = (known, found, table)
    return best[1:] if best is not None else None
