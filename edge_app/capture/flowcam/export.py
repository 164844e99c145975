"""Files of a FlowCam export: particle table, settings, run summary, collages, masks, background.

What changes between versions of the instrument's software is taken from the files' own headers: columns by name,
never by number.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from edge_app.capture.frame import LARGEST_NUMBER
from edge_app.capture.particle_table import parse_number, read_table, read_text, to_column
from edge_app.capture.problems import Problems
from edge_app.errors import UserError

__all__ = ["FlowCamTable", "RunFacts", "find_backgrounds", "find_table", "read_facts", "read_particle_table"]

NEEDED: Final = ("image_x", "image_y", "image_w", "image_h", "src_x", "src_y", "src_image", "collage_file")
"""Columns without which a crop cannot be put back into its frame (names of the ``.lst``)."""

_CSV_NAMES: Final[Mapping[str, str]] = {
    "image_width": "image_w",
    "image_height": "image_h",
    "capture_x": "src_x",
    "capture_y": "src_y",
    "source_image": "src_image",
    "image_file": "collage_file",
    "collage": "collage_file",
    "filename": "collage_file",
    "calibration_image": "cal_image",
    "calibration_factor": "cal_const",
    "particle_id": "id",
    "capture_id": "id",
}
"""What the spreadsheet's ``.csv`` export calls the same columns."""

_COUNT_LINE: Final = re.compile(r"\s*num[-_ ]?fields\s*([|:;,\t])\s*([0-9]+)", re.IGNORECASE)
_IMAGE: Final = r"\.(tiff?|png|bmp)"


@dataclass(frozen=True)
class FlowCamTable:
    """One row per particle, by the instrument's own column names in lower case with ``_``.

    Attributes
    ----------
    path, version
        The file, and what it says of its own version.
    columns
        Name -> array (n,): int64, float64 (NaN where a field is empty) or text; what frames are rebuilt from is int64,
        in px. Bad rows are left out.
    incomplete_frames
        Numbers of frames a row of which was left out, int64, rising: one particle at least is missing from them.
    frames_not_named
        Frames that the rows left out stand for which do not say their frame: as many as such rows fill on average,
        rounded up.

    Examples
    --------
    >>> table = FlowCamTable(Path("run.lst"), "017", {"src_image": np.array([4, 4, 7])}, np.array([7, 9]), 1)
    >>> len(table), table.frames_total
    (3, 4)
    """

    path: Path
    version: str
    columns: dict[str, npt.NDArray[np.generic]]
    incomplete_frames: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    frames_not_named: int = 0

    def __len__(self) -> int:
        return len(self.columns["src_image"])

    @property
    def frames_total(self) -> int:
        """Frames with particles in them, those that cannot be rebuilt included."""
        return len(np.union1d(self.columns["src_image"], self.incomplete_frames)) + self.frames_not_named

    def numbers(self, name: str) -> npt.NDArray[np.float64] | None:
        """Column as float64, None where it is missing or holds text."""
        column = self.columns.get(name)
        return column.astype(np.float64) if column is not None and column.dtype.kind in "if" else None


_UNIT: Final = re.compile(
    r"\s*[(\[]\s*(px|pixels?|s|sec|seconds?|°|deg|[^\s()\[\]]{0,2}m.{0,2}(/(px|pixels?))?)\s*[)\]]\s*$"
)
"""A unit behind a column's name, also one whose micro sign was lost; ``(ABD)`` and ``(Hu)`` belong to the name."""


def _normalised(name: str) -> str:
    bare = re.sub(r"[^a-z0-9]+", "_", _UNIT.sub("", name.casefold())).strip("_")
    return _CSV_NAMES.get(bare, bare)


def find_table(directory: Path) -> list[Path]:
    """Particle tables of an export, best first: ``.lst``, the larger first (a run's own list holds more rows than a
    list of one of its classes), then ``.csv``."""
    files = [p for p in directory.iterdir() if p.is_file() and p.name[0] != "."]
    lists = [p for p in files if p.suffix.lower() == ".lst"]
    sheets = [p for p in files if p.suffix.lower() == ".csv" and not p.stem.lower().endswith("summary")]

    def best_first(p: Path) -> tuple[int, str]:
        return -p.stat().st_size, p.name

    return sorted(lists, key=best_first) + sorted(sheets, key=best_first)


def read_particle_table(path: Path, problems: Problems) -> FlowCamTable:
    """Read a ``.lst`` (header: version, ``num-fields|N``, N lines ``name|type``) or a ``.csv`` export.

    Rows that do not have the header's fields, or no place in a frame, are counted as ``bad_row``. Their frames are kept
    in mind: each of them held one particle more than can be put back.

    Raises
    ------
    UserError
        If the file cannot be read, describes no columns, or lacks a column that the frames are rebuilt from.
    """
    try:
        text = read_text(path)
    except OSError as error:
        raise UserError(f"{path}: particle table cannot be read ({error.strerror})") from error
    is_list = path.suffix.lower() == ".lst"
    version, columns, bad = _read_list(path, text) if is_list else _read_sheet(path, text)
    files = columns.get("collage_file")
    if (
        files is not None
        and "image_x" not in columns
        and "image_y" not in columns
        and len(set(files.tolist())) == len(files)
    ):
        # A file for each particle: its picture is not part of a collage.
        columns["image_x"] = columns["image_y"] = np.zeros(len(files), dtype=np.int64)
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        raise UserError(f"{path}: particle table lacks the column(s) {', '.join(missing)}{_instead(path, missing)}")
    keep = np.ones(len(columns["src_image"]), dtype=bool)
    for name in NEEDED[:-1]:
        column = columns[name]
        if column.dtype.kind == "U":  # some field is no number: read one by one, the row that has it is left out
            column = np.array([parse_number(str(v)) for v in column], dtype=np.float64)
            columns[name] = column
        values = column.astype(np.float64)
        keep &= (np.abs(values) <= LARGEST_NUMBER) & (values == np.rint(values))
    for name in ("image_w", "image_h"):
        keep &= columns[name].astype(np.float64) > 0
    frame = columns["src_image"].astype(np.float64)
    named = (np.abs(frame) <= LARGEST_NUMBER) & (frame == np.rint(frame))
    not_named = bad + int((~named).sum())
    bad += int((~keep).sum())
    if len(keep) and not keep.any():
        raise UserError(
            f"{path}: none of {len(keep)} rows has its place in whole pixels and the number of its frame "
            f"({', '.join(NEEDED[:-1])})"
        )
    if bad:
        problems.add("bad_row", f"{path}: {bad} rows are not complete and are left out", times=bad)
    columns = {name: column[keep] for name, column in columns.items()}
    for name in NEEDED[:-1]:
        columns[name] = columns[name].astype(np.int64)
    return FlowCamTable(
        path,
        version,
        columns,
        incomplete_frames=np.unique(frame[named & ~keep]).astype(np.int64),
        frames_not_named=_frames_of(not_named, frame[named]),
    )


def _frames_of(rows: int, named: npt.NDArray[np.float64]) -> int:
    """Frames that rows without a frame number stand for, by how many of the others fill a frame; rounded up."""
    # None of them would give the frames that are left the volume of those that are not; one for each row would take too
    # much from a run of crowded frames.
    return -(-rows * len(np.unique(named)) // len(named)) if len(named) else rows


def _instead(path: Path, missing: list[str]) -> str:
    """What to do where a table does not say in which picture a particle stands, as those of newer software."""
    if not {"image_x", "image_y", "collage_file"} & set(missing):
        return ""
    if any(path.parent.glob("rawfile_*")):
        return f"; read the raw frames beside it: dir:{path.parent}?names=rawfile_*"
    return "; the run's list (.lst) has them"


def _read_list(path: Path, text: str) -> tuple[str, dict[str, npt.NDArray[np.generic]], int]:
    lines = text.splitlines()
    found = ((at, _COUNT_LINE.match(line)) for at, line in enumerate(lines[:20]))
    at, match = next(((at, match) for at, match in found if match), (0, None))
    if match is None:
        raise UserError(f"{path}: list has no header that names its columns (num-fields|N); export it again")
    separator, count = match[1], int(match[2])
    names = [_normalised(line.split(separator)[0]) for line in lines[at + 1 : at + 1 + count]]
    if len(names) < count or len(set(names)) < count:
        raise UserError(f"{path}: header promises {count} columns, found {len(set(names))}")
    rows: list[list[str]] = []
    bad = 0
    for line in lines[at + 1 + count :]:
        if not line.strip():
            continue
        row = line.split(separator)
        if len(row) >= count and not any(f.strip() for f in row[count:]):
            rows.append(row[:count])
        else:
            bad += 1
    version = lines[at - 1].strip() if at else ""
    return version, {name: to_column([row[i] for row in rows]) for i, name in enumerate(names)}, bad


def _read_sheet(path: Path, text: str) -> tuple[str, dict[str, npt.NDArray[np.generic]], int]:
    def is_header(names: object) -> bool:
        return {"src_x", "src_y", "src_image"} <= {_normalised(n) for n in names}  # type: ignore[attr-defined]

    table = read_table(text, is_header=is_header)
    if table is None:
        raise UserError(f"{path}: no header line with Capture X, Capture Y, Source Image in it")
    return "csv", {_normalised(name): table.column(name) for name in table.names}, table.ragged


def find_backgrounds(directory: Path) -> dict[int, Path]:
    """Background pictures by their number (``cal_image_000001.tif`` is 1)."""
    found: dict[int, Path] = {}
    for path in sorted(directory.iterdir()):
        match = re.search(r"cal_?image_?([0-9]+)" + _IMAGE + "$", path.name, re.IGNORECASE)
        if match and path.name[0] != ".":
            found.setdefault(int(match[1]), path)
    return found


_ML_PER_UNIT: Final[Mapping[str, float]] = {
    "ml": 1.0, "l": 1e3, "ul": 1e-3, "\u00b5l": 1e-3, "\u03bcl": 1e-3, "nl": 1e-6
}  # fmt: skip


@dataclass(frozen=True)
class RunFacts:
    """What settings and summaries say, keys in lower case: ``ctx['fluid.pumpflowrate']``; empty where a file lacks."""

    ctx: Mapping[str, str]
    run_summary: Mapping[str, str]
    summary: Mapping[str, str]

    def number(self, where: str, *keys: str) -> float | None:
        """First finite number under these keys of ``ctx``, ``run_summary`` or ``summary`` (units behind it allowed)."""
        facts: Mapping[str, str] = getattr(self, where)
        for key in keys:
            match = re.match(r"\s*[-+]?[0-9][0-9.,]*(e[-+]?[0-9]+)?", facts.get(key, ""), re.IGNORECASE)
            value = parse_number(match[0]) if match else float("nan")
            if np.isfinite(value):
                return value
        return None

    @property
    def volume_imaged_ml(self) -> tuple[float | None, str]:
        """Volume that the instrument imaged and where it is from.

        The spreadsheet's summary has the most digits, then the run summary; without both it follows from the
        settings: images x acceptable region x factor^2 x depth (x the instrument's velocity correction), which
        agrees with the summaries to their last digit.
        """
        names = [f"{kind} volume imaged" for kind in ("sample", "fluid")] + ["volume imaged"]
        value = self._volume_ml("summary", [f"{name}{unit}" for name in names for unit in (" ml", "")])
        if value:
            return value, "summary"
        value = self._volume_ml("run_summary", [f"run.{name}" for name in names])
        if value:
            return value, "run summary"
        sides = ("left", "right", "top", "bottom")
        region = [self.number("ctx", f"captureregion.acceptable{side}") for side in sides]
        left, right, top, bottom = (np.nan if side is None else side for side in region)
        images, factor, depth = self.images_imaged, self.um_per_px, self.depth_um
        if not images or None in region or factor is None or depth is None:
            return None, ""
        volume = images * (right - left + 1) * (bottom - top + 1) * factor**2 * depth * 1e-12
        correction = self.number("ctx", "capturestats.volumecf")
        if correction and self.number("ctx", "capturestats.includesvolumecf") != 0:
            volume *= correction
        return volume, "settings"

    def _count(self, where: str, key: str) -> float | None:
        """A whole number: a comma or dot in it stands before thousands."""
        facts: Mapping[str, str] = getattr(self, where)
        value = parse_number(facts.get(key, ""), thousands_comma=True, thousands_dot=True)
        return value if np.isfinite(value) else None

    def _volume_ml(self, where: str, keys: Sequence[str]) -> float | None:
        """First volume under these keys; mL unless another unit stands behind the number."""
        facts: Mapping[str, str] = getattr(self, where)
        for key in keys:
            value = self.number(where, key)
            if value is not None:
                unit = re.search(r"[0-9]\s*([^\W0-9_]+)\s*$", facts[key])
                return value * _ML_PER_UNIT.get(unit[1].casefold() if unit else "ml", 1.0)
        return None

    @property
    def images_imaged(self) -> float | None:
        """Frames that the camera took in the run, with and without particles."""
        return self._count("run_summary", "images.total") or self._count("ctx", "capturestats.rawimagetotal")

    @property
    def um_per_px(self) -> float | None:
        """Scale."""
        return (
            self.number("ctx", "fluid.calibrationconstant")
            or self.number("run_summary", "environment.calibration factor")
            or self.number("summary", "calibration factor")
        )

    @property
    def depth_um(self) -> float | None:
        """Depth of the flow cell."""
        return self.number("ctx", "fluid.flowcelldepth")

    @property
    def frame_rate_hz(self) -> float | None:
        """Rate as measured, else as set."""
        return (
            self.number("run_summary", "images.frame rate")
            or self.number("summary", "frame rate")
            or self.number("ctx", "camerabehavior.autoimagerate")
        )

    @property
    def flow_rate_ul_per_min(self) -> float | None:
        """Flow as set (the files say ml/min)."""
        flow = (
            self.number("ctx", "fluid.pumpflowrate")
            or self.number("run_summary", "run.flow rate")
            or self.number("summary", "flow rate")
        )
        return None if flow is None else flow * 1000.0

    @property
    def thresholds_used(self) -> str | None:
        """``dark``, ``light`` or ``both``: the settings hold two thresholds even where only one was applied.

        The summary names those that were; without it, 0 in the settings means dark (seen in masks: no bright pixel
        of such a run is in one). Other codes were not met, and are not guessed.
        """
        text = self.summary.get("particle segmentation", "").casefold()
        if "dark" in text or "light" in text:
            return "both" if "dark" in text and "light" in text else "dark" if "dark" in text else "light"
        return "dark" if self.number("ctx", "captureparameters.capturedarkorlightpixels") == 0 else None

    @property
    def thresholds(self) -> tuple[int, int] | None:
        """Grey levels (dark, light) off the background that the settings name."""
        dark, light = (self.number("ctx", f"captureparameters.threshold{k}") for k in ("dark", "light"))
        return None if dark is None or light is None else (round(dark), round(light))


def read_facts(directory: Path, stem: str) -> RunFacts:
    """Read ``.ctx``, ``*_run_summary.txt`` and ``*_summary.csv``, those of the run ``stem`` first."""
    return RunFacts(
        ctx=_read_sections(_pick(directory, stem, r"\.ctx"), header=r"\[(.*)\]\s*$", separator="="),
        run_summary=_read_sections(
            _pick(directory, stem, r"run[_ ]?summary\.txt"), header=r"(\S[^:]*):\s*$", separator=":"
        ),
        summary=_read_sections(
            _pick(directory, stem, r"(?<!run)[_ ]?summary\.csv"), header=r"(?!)", separator=r"[,;\t]"
        ),
    )


def _pick(directory: Path, stem: str, ending: str) -> Path | None:
    found = [p for p in sorted(directory.iterdir()) if re.search(ending + "$", p.name, re.IGNORECASE)]
    own = [p for p in found if p.name.casefold().startswith(stem.casefold())]
    return next(iter(own or found), None)


def _read_sections(path: Path | None, *, header: str, separator: str) -> dict[str, str]:
    """Read ``[section]`` and ``key=value`` lines, or what stands for them; the first of equal keys holds."""
    if path is None:
        return {}
    try:
        text = read_text(path)
    except OSError:
        return {}
    section = ""
    values: dict[str, str] = {}
    for line in text.splitlines():
        match = re.match(header, line)
        if match:
            section = match[1].strip().casefold() + "."
            continue
        parts = re.split(separator, line.strip(), maxsplit=1)
        if len(parts) == 2 and parts[0].strip():
            values.setdefault(section + parts[0].strip().strip('"').casefold(), parts[1].strip().strip('"'))
    return values
