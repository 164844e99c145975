"""The particle table of an MFI export: the instrument's own columns, however its software wrote them down."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from edge_app.capture.frame import LARGEST_NUMBER
from edge_app.capture.particle_table import TextTable, column_key, is_text, parse_number, read_table, read_text
from edge_app.capture.problems import Problems
from edge_app.errors import UserError

__all__ = ["MFI_COLUMNS", "MfiTable", "read_mfi_table"]

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

# What other versions and other programs call the same columns, by what `column_key` leaves of the name.
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


@dataclass(frozen=True)
class MfiTable:
    """One row per particle; the instrument's columns by the names of ``MFI_COLUMNS``, others by their own.

    Attributes
    ----------
    path
        The file that it was read from.
    columns
        Name -> array (n,): int64, float64 (NaN where a field is empty), bool or text. ``Frame #`` is int64 and
        ``Time Stamp(s)`` in seconds, whatever the file has.

    Examples
    --------
    >>> table = MfiTable(Path("a.csv"), {"Frame #": np.array([1, 9]), "Time Stamp(s)": np.array([0.0, 1.0])})
    >>> len(table), table.rate_hz(), table.numbers("ECD(um)")
    (2, 8.0, None)
    """

    path: Path
    columns: dict[str, npt.NDArray[np.generic]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def numbers(self, name: str) -> npt.NDArray[np.float64] | None:
        """Column as float64 (n,), None where it is missing or holds text."""
        column = self.columns.get(name)
        return column.astype(np.float64) if column is not None and column.dtype.kind in "if" else None

    def rate_hz(self) -> float | None:
        """Frames per second from frame numbers and time stamps, None if they do not tell."""
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


def read_mfi_table(path: Path, problems: Problems) -> MfiTable | None:
    """Read the instrument's particle table: columns by name, any separator, decimal comma, encoding.

    Parameters
    ----------
    path
        The file; one that is no text holds no table.
    problems
        Takes rows whose number of fields is not the header's, or without a frame number where there is a column
        of them, as ``bad_row``. The frames themselves are there as pictures: such a row costs none of them.

    Returns
    -------
    The table, or None if the file has no header line with at least four of the instrument's columns.

    Raises
    ------
    UserError
        If the file cannot be read.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "particles.txt")
    ...     _ = path.write_text("Frame #;ECD (um);X Left;Y Top\\n3;5,25;10;5\\n")
    ...     table = read_mfi_table(path, Problems())
    >>> {name: column.tolist() for name, column in table.columns.items()}
    {'Frame #': [3], 'ECD(um)': [5.25], 'X Left': [10], 'Y Top': [5]}
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


def _official_name(name: str) -> str:
    return _BY_KEY.get(column_key(name), name)


def _is_header(names: Sequence[str]) -> bool:
    known = {_official_name(n) for n in names} & set(MFI_COLUMNS)
    return len(known) >= 4 and bool(known & {"ECD(um)", "Area(pixels)"})


def _in_unit(table: TextTable, name: str, official: str) -> npt.NDArray[np.generic]:
    column = table.column(name)
    unit = re.search(r"[(\[](.*?)[)\]]", name)
    in_ms = official == "Time Stamp(s)" and unit is not None and unit[1].strip().casefold() in ("ms", "msec")
    if in_ms and column.dtype.kind in "if":
        return column.astype(np.float64) / 1000.0
    if official == "Edge Particle" and column.dtype.kind == "U":
        return np.isin(np.char.lower(column.astype(np.str_)), ["1", "true", "yes", "y", "edge"])
    return column
