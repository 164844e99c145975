"""``mfi:PATH``: an MFI export, frame pictures beside the instrument's particle table.

The frames are analysed by us; the instrument's numbers travel beside them as the frame's companion. Where an export
holds the table and a picture per particle instead of frames, the pictures can be classified (``open_mfi_crops``).
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from edge_app.capture.crops import CropSource
from edge_app.capture.directory import iterate_pictures, probe_pictures
from edge_app.capture.frame import LARGEST_NUMBER, Companion, Frame
from edge_app.capture.image_files import (
    GreyScaling,
    ImageFileError,
    count_pictures,
    is_left_out,
    list_images,
    read_pictures,
)
from edge_app.capture.particle_table import TextTable, column_key, is_text, parse_number, read_table, read_text
from edge_app.capture.picture_structure import KINDS
from edge_app.capture.problems import Problems
from edge_app.capture.source import SourceInfo
from edge_app.capture.uri import SourceUri, parse_path_uri, validate_options
from edge_app.errors import UserError

__all__ = ["MFI_COLUMNS", "MfiOptions", "MfiSource", "MfiTable", "open_mfi", "open_mfi_crops", "read_mfi_table"]

MFI_COLUMNS: Final = (
    "#",
    "Frame #",
    "Particle #",
    "Time Stamp(s)",
    "ECD(um)",
    "Area(pixels)",
    "Perimeter",
    "Circularity",
    "Intensity Mean",
    "Intensity STD",
    "Intensity Min",
    "Intensity Max",
    "Max Feret Diameter(um)",
    "Aspect Ratio",
    "X Left",
    "X Right",
    "Y Top",
    "Y Bottom",
    "Edge Particle",
)
"""The instrument's own column names, in its order."""

_BY_KEY: Final = {column_key(name): name for name in MFI_COLUMNS} | {
    "frame": "Frame #",
    "frameno": "Frame #",
    "particle": "Particle #",
    "particleno": "Particle #",
    "no": "#",
    "timestamp": "Time Stamp(s)",
    "time": "Time Stamp(s)",
    "area": "Area(pixels)",
    "intensitystddev": "Intensity STD",
    "intensitystandarddeviation": "Intensity STD",
    "maxferet": "Max Feret Diameter(um)",
    "maximumferetdiameter": "Max Feret Diameter(um)",
    "edge": "Edge Particle",
}

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


_RATE_IF_UNKNOWN_HZ: Final = 10.0


@dataclass(frozen=True)
class MfiTable:
    """One row per particle; the instrument's columns by the names of ``MFI_COLUMNS``, others by their own."""

    path: Path
    columns: dict[str, npt.NDArray[np.generic]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def numbers(self, name: str) -> npt.NDArray[np.float64] | None:
        """Column as float64, None where it is missing or holds text."""
        column = self.columns.get(name)
        return column.astype(np.float64) if column is not None and column.dtype.kind in "if" else None

    def rate_hz(self) -> float | None:
        """Frame rate from frame numbers and time stamps, None if they do not tell."""
        frame, time_s = self.numbers("Frame #"), self.numbers("Time Stamp(s)")
        if frame is None or time_s is None:
            return None
        known = np.isfinite(frame) & np.isfinite(time_s)
        frame, time_s = frame[known], time_s[known]
        if len(frame) < 2 or np.ptp(frame) == 0 or np.ptp(time_s) <= 0:
            return None
        first, last = int(np.argmin(frame)), int(np.argmax(frame))
        rate = (frame[last] - frame[first]) / (time_s[last] - time_s[first])
        return round(float(rate), 3) if 0.001 < rate < 100_000 else None


def _official_name(name: str) -> str:
    return _BY_KEY.get(column_key(name), name)


def _is_header(names: Sequence[str]) -> bool:
    known = {_official_name(n) for n in names} & set(MFI_COLUMNS)
    return len(known) >= 4 and bool(known & {"ECD(um)", "Area(pixels)"})


def read_mfi_table(path: Path, problems: Problems) -> MfiTable | None:
    """Read the instrument's particle table: columns by name, any separator, decimal comma, encoding.

    Returns
    -------
    The table, or None if the file has no header line with at least four of the instrument's columns. Rows whose
    number of fields is not the header's, or without a frame number where there is one, are counted as ``bad_row``.

    Raises
    ------
    UserError
        If the file cannot be read.
    """
    try:
        text = read_text(path) if is_text(path) else ""
    except OSError as error:
        raise UserError(f"{path}: particle table cannot be read ({error.strerror})") from error
    table = read_table(text, is_header=_is_header)
    if table is None:
        return None
    columns: dict[str, npt.NDArray[np.generic]] = {}
    for name in table.names:
        official = _official_name(name)
        if not name or official in columns:  # a second column of one meaning keeps its own name
            official = name or f"column {len(columns) + 1}"
        columns[official] = _in_unit(table, name, official)
    bad = table.ragged
    if "Frame #" in columns:
        frame = columns["Frame #"]
        if frame.dtype.kind == "U":  # some field is no number: the row that has it is left out
            frame = np.array([parse_number(text) for text in frame.tolist()], dtype=np.float64)
        keep = np.abs(frame.astype(np.float64)) <= LARGEST_NUMBER
        bad += int((~keep).sum())
        columns = {k: v[keep] for k, v in columns.items()} | {"Frame #": frame[keep].astype(np.int64)}
    if bad:
        problems.add("bad_row", f"{path}: {bad} rows are not complete and are left out", times=bad)
    return MfiTable(path, columns)


def _in_unit(table: TextTable, name: str, official: str) -> npt.NDArray[np.generic]:
    column = table.column(name)
    unit = re.search(r"[(\[](.*?)[)\]]", name)
    in_ms = official == "Time Stamp(s)" and unit is not None and unit[1].strip().casefold() in ("ms", "msec")
    if in_ms and column.dtype.kind in "if":
        return column.astype(np.float64) / 1000.0
    if official == "Edge Particle" and column.dtype.kind == "U":
        return np.isin(np.char.lower(column.astype(np.str_)), ["1", "true", "yes", "y", "edge"])
    return column


@dataclass(frozen=True)
class _Export:
    where: SourceUri
    options: MfiOptions
    pattern: re.Pattern[str]
    images: list[Path]
    table: MfiTable | None
    problems: Problems

    def number_of(self, path: Path) -> int | None:
        match = self.pattern.search(path.stem)
        text = match[1] if match else None
        return int(text) if text and text.isdecimal() and int(text) <= LARGEST_NUMBER else None


class MfiSource:
    """Frames in the order of their numbers, with the instrument's rows of that number beside each.

    A number that is missing between two frames counts as a lost frame (``Frame.lost_before``).
    """

    def __init__(
        self,
        export: _Export,
        numbered: list[tuple[int, Path]],
        *,
        info: SourceInfo,
        scaling: GreyScaling,
        rate_hz: float,
    ) -> None:
        self.info = info
        self._log = export.problems
        self.problems, self.messages = self._log.counts, self._log.messages
        self._table, self._numbered, self._scaling, self._rate_hz = export.table, numbered, scaling, rate_hz
        self.lost_at_end = 0
        self._closed = False

    @property
    def table(self) -> MfiTable | None:
        """The instrument's particle table; None if the export has none."""
        return self._table

    def frames(self) -> Iterator[Frame]:
        """Yield the frames; files that cannot be used are counted and skipped."""
        expected: int | None = None
        for first, path in self._numbered:
            for name, page, image in iterate_pictures([path], self._scaling, self._log):
                if self._closed:
                    return
                number = first + page
                if expected is None:
                    expected = number
                if image is None:
                    self.lost_at_end = number + 1 - expected
                    continue
                self.lost_at_end = 0
                yield Frame(
                    image=image,
                    sequence=number,
                    time_s=number / self._rate_hz,
                    lost_before=max(0, number - expected),
                    name=name,
                    companion=self._companion(number),
                )
                expected = number + 1

    def _companion(self, number: int) -> Companion | None:
        if self._table is None or "Frame #" not in self._table.columns:
            return None
        rows = np.flatnonzero(self._table.columns["Frame #"] == number)
        return Companion(
            instrument="MFI", columns={"row": rows, **{k: v[rows] for k, v in self._table.columns.items()}}
        )

    def close(self) -> None:
        """End ``frames`` before its next frame."""
        self._closed = True


def _read_export(uri: str) -> _Export:
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
    return _Export(where, options, pattern, images, table, problems)


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


def _holds_frames(export: _Export, size: tuple[int, int]) -> bool:
    """Whether pictures of this size (width, height) are frames: half of the table's boxes at least fit into one.

    Particles lie all over the frame, so pictures of particles hold hardly any of the boxes; a row that is wrong by
    itself must not decide it.
    """
    if export.table is None:
        return True
    reach = [export.table.numbers(name) for name in ("X Right", "Y Bottom")]
    for side, column in zip(size, reach, strict=True):
        known = column[np.isfinite(column)] if column is not None else np.empty(0)
        if len(known) and side < np.median(known):
            return False
    if reach[0] is None and reach[1] is None:
        # No places in the table: frames of one camera are of one size, particle pictures are not.
        return len({_size(path) for path in export.images[:20]} - {None}) <= 1
    return True


def _size(path: Path) -> tuple[int, ...] | None:
    try:
        return next(read_pictures(path)).shape
    except ImageFileError:
        return None


def open_mfi(uri: str) -> MfiSource:
    r"""Open ``mfi:PATH?pattern=frame_([0-9]+)&bits=10&um_per_px=1.33&depth_um=100``.

    Raises
    ------
    UserError
        If no picture opens, none has a number in its name, or the pictures are particles and not frames.
    """
    export = _read_export(uri)
    scaling = GreyScaling(bits=export.options.bits)
    width, height = probe_pictures(export.images, scaling)
    if not _holds_frames(export, (width, height)):
        raise UserError(
            f"{export.where}: holds the particle table and particle pictures, no frames; use `edge-app classify {uri}`"
        )
    numbered = _number_frames(export)
    total = _count_rows_without_frame(export, numbered)
    _count_rows_outside(export, (width, height))
    rate = export.options.rate_hz or (export.table.rate_hz() if export.table else None) or _RATE_IF_UNKNOWN_HZ
    info = SourceInfo(
        uri=export.where.opened_as(export.options, rate_hz=rate, bits=scaling.bits),
        kind="mfi",
        width_px=width,
        height_px=height,
        frame_rate_hz=rate,
        um_per_px=export.options.um_per_px,
        depth_um=export.options.depth_um,
        frames_total=total,
        knows_losses=True,
        details={
            "instrument": "MFI",
            **({"table": export.table.path.name, "particles": len(export.table)} if export.table else {}),
        },
    )
    return MfiSource(export, numbered, info=info, scaling=scaling, rate_hz=rate)


def _number_frames(export: _Export) -> list[tuple[int, Path]]:
    stacks = _number_stacks(export)
    if stacks is not None:
        return stacks
    numbered: dict[int, Path] = {}
    for path in export.images:
        number = export.number_of(path)
        if number is None:
            export.problems.add("no_number", f"{path}: no frame number in the name (pattern {export.options.pattern})")
        elif number in numbered:
            export.problems.add("duplicate", f"{path}: frame number {number} is that of {numbered[number].name}")
        else:
            numbered[number] = path
    if not numbered:
        raise UserError(
            f"{export.where}: no picture has a frame number in its name (pattern {export.options.pattern}), "
            f"the first is {export.images[0].name}"
        )
    return sorted(numbered.items())


def _number_stacks(export: _Export) -> list[tuple[int, Path]] | None:
    """Number stacks that hold the run one after the other: page 1 of the first is frame 1.

    None where the pictures are no stacks, or where their names tell the frame: by a pattern that is given, or by
    numbers as far apart as the stacks are long.
    """
    pages = [count_pictures(path) for path in export.images]
    if min(pages[:-1] or pages) < 2 or (len(pages) > 1 and export.options.pattern != DEFAULT_PATTERN):
        return None
    named = [export.number_of(path) for path in export.images]
    if len(pages) > 1 and all(
        here is not None and after is not None and after >= here + n
        for here, after, n in zip(named[:-1], named[1:], pages[:-1], strict=True)
    ):
        return None
    firsts = [1, *(1 + np.cumsum(pages)[:-1]).tolist()]
    return list(zip(firsts, export.images, strict=True))


def _count_rows_without_frame(export: _Export, numbered: list[tuple[int, Path]]) -> int:
    """Count what the table says of frames that are not there; return the number of frames."""
    present: list[int] = []
    for first, path in numbered:
        present.extend(range(first, first + count_pictures(path)))
    if export.table is not None and "Frame #" in export.table.columns:
        rows = int((~np.isin(export.table.columns["Frame #"], present)).sum())
        if rows:
            export.problems.add(
                "no_frame", f"{export.table.path}: {rows} rows are of frames without a picture", times=rows
            )
    return len(present)


def _count_rows_outside(export: _Export, size: tuple[int, int]) -> None:
    """Count rows whose box does not lie in the frame: the table is of another camera setting, or damaged."""
    table = export.table
    if table is None:
        return
    outside = np.zeros(len(table), dtype=bool)
    for side, (low, high) in zip(size, (("X Left", "X Right"), ("Y Top", "Y Bottom")), strict=True):
        first, last = table.numbers(low), table.numbers(high)
        outside |= (first < 0) if first is not None else False
        outside |= (last > side) if last is not None else False
    if outside.any():
        export.problems.add(
            "outside",
            f"{table.path}: {int(outside.sum())} rows have a box outside of the frame of {size[0]} x {size[1]} px",
            times=int(outside.sum()),
        )


def open_mfi_crops(uri: str) -> CropSource:
    """Open the particle pictures of an MFI export, each with its row of the table.

    The number in a picture's name is looked up in the column ``#`` (without it, in ``Particle #``).

    Raises
    ------
    UserError
        If there is no picture, or the pictures are frames.
    """
    export = _read_export(uri)
    size = probe_pictures(export.images, GreyScaling(bits=export.options.bits))
    if export.table is not None and _holds_frames(export, size):
        raise UserError(f"{export.where}: holds frames, not particle pictures; use `edge-app run {uri}`")
    return CropSource(
        export.where.path,
        export.images,
        uri=str(export.where),
        bits=export.options.bits,
        instrument=_rows_of_pictures(export),
        problems=export.problems,
    )


def _rows_of_pictures(export: _Export) -> Mapping[Path, Mapping[str, object]]:
    table = export.table
    if table is None:
        return {}
    key = next((name for name in ("#", "Particle #") if name in table.columns), None)
    if key is None:
        return {}
    numbers = table.numbers(key)
    if numbers is None:
        return {}
    unique, first, times = np.unique(numbers, return_index=True, return_counts=True)
    row_of = {int(n): int(i) for n, i, t in zip(unique, first, times, strict=True) if t == 1 and np.isfinite(n)}
    rows: dict[Path, Mapping[str, object]] = {}
    without = 0
    for path in export.images:
        number = export.number_of(path)
        row = row_of.get(number) if number is not None else None
        if row is None:
            without += 1
        else:
            rows[path] = {k: v[row].item() for k, v in table.columns.items()}
    if without:
        export.problems.add("no_row", f"{table.path}: {without} pictures have no row of their own in it", times=without)
    return rows
