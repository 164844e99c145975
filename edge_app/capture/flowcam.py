"""``flowcam:PATH``: a FlowCam export replayed as frames.

The instrument does not export its frames, but a crop of each particle with its place in the frame, and the
background. A frame is rebuilt by putting its crops back on the background. Frames with nothing in them are not
exported, yet they were imaged: the run summary's volume counts them, see ``SourceInfo.volume_imaged_ml``.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from edge_app.capture.flowcam_export import (
    FlowCamTable,
    RunFacts,
    find_backgrounds,
    find_table,
    read_facts,
    read_particle_table,
)
from edge_app.capture.frame import Companion, Frame
from edge_app.capture.image_files import GreyScaling, ImageFileError, Picture, list_images, read_pictures
from edge_app.capture.problems import Problems
from edge_app.capture.source import SourceInfo
from edge_app.capture.uri import SourceUri, parse_path_uri, validate_options
from edge_app.errors import UserError

__all__ = ["FlowCamOptions", "FlowCamSource", "open_flowcam"]

_CACHED_COLLAGES: Final = 4
_MOST_OUTSIDE: Final = 0.1
"""Share of the particles that may lie outside of the frame before table and background do not belong together."""
_OFFSET_COLLAGES: Final = 8
"""Collages, spread over the run, from whose crops the grey offset is measured."""


class FlowCamOptions(BaseModel):
    """Options of ``flowcam:``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    grey_offset: float | None = Field(
        default=None, ge=-255, le=255, description="grey levels by which crops are brighter than the background"
    )


class FlowCamSource:
    """Rebuilt frames, in the order of the instrument's frame numbers.

    A frame is delivered only if every one of its crops is there: one with a crop missing would hold too few
    particles for its volume, so it counts as lost (``Frame.lost_before``), and its rows as ``no_collage``.
    """

    def __init__(
        self,
        directory: Path,
        table: FlowCamTable,
        backgrounds: Mapping[int, npt.NDArray[np.uint8]],
        *,
        info: SourceInfo,
        grey_offset: float,
        files: Mapping[str, Path],
        scaling: GreyScaling,
        problems: Problems,
    ) -> None:
        self.info = info
        self._log = problems
        self.problems, self.messages = problems.counts, problems.messages
        self._directory, self._table, self._backgrounds = directory, table, backgrounds
        self._files, self._scaling, self._grey_offset = files, scaling, grey_offset
        self.lost_at_end = 0
        self._collages: dict[str, npt.NDArray[np.uint8] | None] = {}
        self._masks: dict[str, npt.NDArray[np.uint8] | None] = {}
        self._told: set[str] = set()
        self._closed = False

    @property
    def table(self) -> FlowCamTable:
        """The instrument's particle table; the companion's ``row`` points into it."""
        return self._table

    def frames(self) -> Iterator[Frame]:
        """Yield the rebuilt frames."""
        columns = self._table.columns
        numbers = columns["src_image"]
        order = np.argsort(numbers, kind="stable")
        starts = np.flatnonzero(np.diff(numbers[order], prepend=numbers[order[:1]] - 1))
        elapsed = self._table.numbers("elapsed_time")
        rate = self.info.frame_rate_hz or 1.0
        for rows in np.split(order, starts[1:]) if len(order) else []:
            if self._closed:
                return
            number = int(numbers[rows[0]])
            image = self._rebuild(rows)
            if image is None:
                self.lost_at_end += 1
                continue
            times = elapsed[rows] if elapsed is not None else np.empty(0)
            times = times[np.isfinite(times)]
            yield Frame(
                image=image,
                sequence=number,
                time_s=float(times.min()) if len(times) else number / rate,
                lost_before=self.lost_at_end,
                name=f"{self._table.path.stem} frame {number}",
                companion=Companion(
                    instrument="FlowCam", columns={"row": rows, **{k: v[rows] for k, v in columns.items()}}
                ),
            )
            self.lost_at_end = 0

    def mask(self, row: int) -> npt.NDArray[np.bool_] | None:
        """The instrument's own mask of a table row, shape (image_h, image_w) of that row; None without a mask file."""
        stem, _, suffix = self._collage_name(row).rpartition(".")
        picture = self._load(f"{stem}_bin.{suffix}", self._masks, offset=0.0, scaling=GreyScaling())
        if picture is None:
            return None
        x, y, w, h = (int(self._table.columns[k][row]) for k in ("image_x", "image_y", "image_w", "image_h"))
        return picture[y : y + h, x : x + w] > 127

    def close(self) -> None:
        """End ``frames`` before its next frame."""
        self._closed = True

    def _rebuild(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8] | None:
        columns = self._table.columns
        crops = [self._crop(int(row)) for row in rows]
        if any(crop is None for crop in crops):
            return None
        image = self._background(int(rows[0])).copy()
        height, width = image.shape
        for row, crop in zip(rows, crops, strict=True):
            assert crop is not None
            x, y = int(columns["src_x"][row]), int(columns["src_y"][row])
            x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + crop.shape[1], width), min(y + crop.shape[0], height)
            if x1 - x0 < crop.shape[1] or y1 - y0 < crop.shape[0]:
                self._log.add(
                    "clipped",
                    f"{self._table.path.name}: row {row + 1}: crop {crop.shape[1]} x {crop.shape[0]} at {x}, {y} "
                    f"leaves the frame of {width} x {height} px",
                )
            if x1 > x0 and y1 > y0:
                image[y0:y1, x0:x1] = crop[y0 - y : y1 - y, x0 - x : x1 - x]
        return image

    def _background(self, row: int) -> npt.NDArray[np.uint8]:
        number = _background_number(self._table, row)
        if number is not None and number in self._backgrounds:
            return self._backgrounds[number]
        if "cal_image" in self._table.columns:
            name = "that a row does not name" if number is None else f"cal_image {number}"
            self._tell_once("no_background", f"{self._directory}: background {name} is missing, the first is taken")
        return next(iter(self._backgrounds.values()))

    def _collage_name(self, row: int) -> str:
        # The table may hold a path of the instrument's own computer.
        return re.split(r"[\\/]", str(self._table.columns["collage_file"][row]).strip())[-1]

    def _crop(self, row: int) -> npt.NDArray[np.uint8] | None:
        name = self._collage_name(row)
        collage = self._load(name, self._collages, offset=self._grey_offset, scaling=self._scaling)
        if collage is None:
            self._tell_once("no_collage", f"{self._directory}: collage {name or '(no name)'} cannot be read")
            return None
        x, y, w, h = (int(self._table.columns[k][row]) for k in ("image_x", "image_y", "image_w", "image_h"))
        if x < 0 or y < 0 or y + h > collage.shape[0] or x + w > collage.shape[1]:
            self._log.add("no_collage", f"{self._table.path.name}: row {row + 1}: box is outside of {name}")
            return None
        return collage[y : y + h, x : x + w]

    def _tell_once(self, reason: str, message: str) -> None:
        if message in self._told:
            self.problems[reason] += 1
        else:
            self._told.add(message)
            self._log.add(reason, message)

    def _load(
        self, name: str, cache: dict[str, npt.NDArray[np.uint8] | None], *, offset: float, scaling: GreyScaling
    ) -> npt.NDArray[np.uint8] | None:
        key = _file_key(name)
        if key not in cache:
            while len(cache) >= _CACHED_COLLAGES:
                cache.pop(next(iter(cache)))
            cache[key] = self._read(self._files.get(key), offset=offset, scaling=scaling)
        return cache[key]

    def _read(self, path: Path | None, *, offset: float, scaling: GreyScaling) -> npt.NDArray[np.uint8] | None:
        if path is None:
            return None
        try:
            mean = _read_grey(path, scaling)
        except ImageFileError as error:
            self._tell_once(error.reason, f"{path}: {error.text}")
            return None
        return np.clip(np.rint(mean - np.float32(offset)), 0, 255).astype(np.uint8)


def _background_number(table: FlowCamTable, row: int) -> int | None:
    """Number of a row's background; None where the table does not say."""
    numbers = table.numbers("cal_image")
    return int(numbers[row]) if numbers is not None and np.isfinite(numbers[row]) else None


def _find_pictures(directory: Path) -> dict[str, Path]:
    """Pictures by their name in lower case: those of the export's folder, else those of folders below it.

    A name that stands in several folders below it is left out: nothing says which one is meant.
    """
    paths = list_images(directory, recursive=True)
    times = Counter(_file_key(p.name) for p in paths)
    found = {_file_key(p.name): p for p in paths if times[_file_key(p.name)] == 1}
    return found | {_file_key(p.name): p for p in paths if p.parent == directory}


def _file_key(name: str) -> str:
    # Some systems store an umlaut as a letter and its dots, the table does not.
    return unicodedata.normalize("NFC", name).casefold()


def _spread(names: list[str], count: int) -> list[str]:
    return [names[i] for i in sorted({round(i) for i in np.linspace(0, len(names) - 1, count)})] if names else []


def _first_pictures(paths: list[Path]) -> Iterator[Picture]:
    for path in paths:
        try:
            yield next(read_pictures(path, grey=False))
        except ImageFileError:
            continue  # told when it is needed


def _read_grey(path: Path, scaling: GreyScaling) -> npt.NDArray[np.float32]:
    """Mean of the channels with its fraction kept: the offset is smaller than one level."""
    picture = scaling.to_uint8(next(read_pictures(path, grey=False)))
    if picture.ndim == 2:
        return picture.astype(np.float32)
    return picture[..., :3].mean(axis=2, dtype=np.float32)


def _measure_offset(
    table: FlowCamTable,
    chosen: Mapping[str, Path],
    backgrounds: Mapping[int, npt.NDArray[np.uint8]],
    scaling: GreyScaling,
) -> tuple[float, int]:
    """Levels by which crops are brighter than the background, and the number of border pixels behind it.

    The one-pixel border of a crop is mostly background. Median of crop minus background there, then the mean of what
    lies within 3 robust standard deviations of it, which resolves less than one level and is not moved by
    particles that reach the border.
    """
    columns = table.columns
    names = np.array(_collage_names(table))
    differences: list[npt.NDArray[np.float32]] = []
    for name, path in chosen.items():
        try:
            collage = _read_grey(path, scaling)
        except ImageFileError:
            continue  # told when its frame comes
        for row in np.flatnonzero(names == name):
            x, y, w, h, sx, sy = (
                int(columns[k][row]) for k in ("image_x", "image_y", "image_w", "image_h", "src_x", "src_y")
            )
            number = _background_number(table, int(row))
            background = backgrounds.get(-1 if number is None else number, next(iter(backgrounds.values())))
            inside = min(x, y, sx, sy) >= 0 and x + w <= collage.shape[1] and y + h <= collage.shape[0]
            if not inside or sx + w > background.shape[1] or sy + h > background.shape[0] or min(w, h) < 3:
                continue
            difference = collage[y : y + h, x : x + w] - background[sy : sy + h, sx : sx + w]
            differences += [difference[0], difference[-1], difference[1:-1, 0], difference[1:-1, -1]]
    if not differences:
        return 0.0, 0
    pixels = np.concatenate(differences)
    middle = np.median(pixels)
    spread = 1.4826 * float(np.median(np.abs(pixels - middle)))
    near = pixels[np.abs(pixels - middle) <= max(3.0 * spread, 1.0)]
    return round(float(near.mean(dtype=np.float64)), 3), len(pixels)


def open_flowcam(uri: str) -> FlowCamSource:
    """Open ``flowcam:PATH``, PATH being the export's folder or its ``.lst``.

    Raises
    ------
    UserError
        If there is no particle table, no background picture, or a column is missing that frames are rebuilt from.
    """
    where = parse_path_uri(uri)
    options = validate_options(where, FlowCamOptions)
    directory, candidates = _locate(where)
    problems = Problems()
    table = _first_table(candidates, problems)
    files = _find_pictures(directory)
    chosen = {
        n: files[n] for n in _spread([n for n in dict.fromkeys(_collage_names(table)) if n in files], _OFFSET_COLLAGES)
    }
    scaling = GreyScaling()  # one depth for backgrounds and crops: a crop must not change its level with its collage
    scaling.decide(_first_pictures([*find_backgrounds(directory).values(), *chosen.values()]))
    backgrounds = _read_backgrounds(where, directory, problems, scaling)
    _check_places(table, backgrounds)
    facts = read_facts(directory, table.path.stem)
    offset, pixels = _measure_offset(table, chosen, backgrounds, scaling)
    if options.grey_offset is not None:
        offset = options.grey_offset
    info = _describe(where, options, table, backgrounds, facts, offset=offset, offset_pixels=pixels)
    return FlowCamSource(
        directory,
        table,
        backgrounds,
        info=info,
        grey_offset=offset,
        files=files,
        scaling=scaling,
        problems=problems,
    )


def _collage_names(table: FlowCamTable) -> list[str]:
    # The table may hold a path of the instrument's own computer.
    return [_file_key(re.split(r"[\\/]", str(name).strip())[-1]) for name in table.columns["collage_file"]]


def _check_places(table: FlowCamTable, backgrounds: Mapping[int, npt.NDArray[np.uint8]]) -> None:
    """Refuse a background that the table's frames do not fit: some crops reach over the border, many do not."""
    height, width = next(iter(backgrounds.values())).shape
    x, y, w, h = (table.columns[k].astype(np.int64) for k in ("src_x", "src_y", "image_w", "image_h"))
    outside = int(((x >= width) | (y >= height) | (x + w <= 0) | (y + h <= 0)).sum())
    if outside > _MOST_OUTSIDE * len(table):
        raise UserError(
            f"{table.path}: {outside} of {len(table)} particles lie outside of the background picture of "
            f"{width} x {height} px; it is not that of these frames"
        )


def _locate(where: SourceUri) -> tuple[Path, list[Path]]:
    try:
        if where.path.is_file():
            return where.path.parent, [where.path]
        if not where.path.is_dir():
            raise UserError(f"{where}: directory does not exist")
        candidates = find_table(where.path)
    except OSError as error:
        raise UserError(f"{where}: directory cannot be read ({error.strerror})") from error
    if not candidates or not any(p.suffix.lower() == ".lst" for p in candidates):
        below = sorted(p.name for p in where.path.iterdir() if p.is_dir() and any(p.glob("*.lst")))
        if below:
            raise UserError(f"{where}: holds several exports, name one of them: {', '.join(below[:5])}")
    if not candidates:
        raise UserError(f"{where}: no particle table (.lst or .csv) in it")
    return where.path, candidates


def _first_table(candidates: list[Path], problems: Problems) -> FlowCamTable:
    first: UserError | None = None
    for path in candidates:
        try:
            table = read_particle_table(path, problems)
        except UserError as error:
            first = first or error
            continue
        if first is not None:
            problems.add("bad_table", str(first))
        return table
    assert first is not None
    raise first


def _read_backgrounds(
    where: SourceUri, directory: Path, problems: Problems, scaling: GreyScaling
) -> dict[int, npt.NDArray[np.uint8]]:
    backgrounds: dict[int, npt.NDArray[np.uint8]] = {}
    paths = find_backgrounds(directory)
    for number, path in sorted(paths.items()):
        try:
            backgrounds[number] = np.rint(_read_grey(path, scaling)).astype(np.uint8)
        except ImageFileError as error:
            problems.add(error.reason, f"{path}: {error.text}")
    sizes = Counter(picture.shape for picture in backgrounds.values())
    usual = max(sizes, key=lambda shape: (sizes[shape], shape), default=(0, 0))
    for number in [n for n, picture in backgrounds.items() if picture.shape != usual]:
        found, needed = (f"{s[1]} x {s[0]}" for s in (backgrounds.pop(number).shape, usual))
        problems.add("wrong_size", f"{paths[number]}: {found} px, the other backgrounds are {needed}")
    if not backgrounds:
        because = f"; {problems.messages[-1]}" if problems.messages else ""
        raise UserError(f"{where}: no background picture (cal_image_000001.tif), frames cannot be rebuilt{because}")
    return backgrounds


def _describe(
    where: SourceUri,
    options: FlowCamOptions,
    table: FlowCamTable,
    backgrounds: Mapping[int, npt.NDArray[np.uint8]],
    facts: RunFacts,
    *,
    offset: float,
    offset_pixels: int,
) -> SourceInfo:
    background = next(iter(backgrounds.values()))
    factors = table.numbers("cal_const")
    factor = float(np.nanmedian(factors)) if factors is not None and len(factors) else float("nan")
    volume, volume_from = facts.volume_imaged_ml
    details: dict[str, object] = {
        "instrument": "FlowCam",
        "software": " ".join(facts.ctx.get(f"software.software{k}", "") for k in ("name", "version")).strip(),
        "serial_number": facts.run_summary.get("environment.serialno", ""),
        "camera": facts.ctx.get("camera.cameraname", ""),
        "magnification": facts.ctx.get("software.cameramagnification", ""),
        "flow_cell": facts.ctx.get("fluid.flowcelltype", ""),
        "started": facts.run_summary.get("date/time.start", ""),
        "thresholds_used": facts.thresholds_used,
        "table": table.path.name,
        "table_version": table.version,
        "particles": len(table),
        "images_imaged": facts.images_imaged,
        "images_used": facts.number("run_summary", "images.used"),
        "particles_per_ml": facts.number("summary", "particles / ml"),
        "volume_from": volume_from,
        "min_esd_um": facts.number("ctx", "captureparameters.minesd"),
        "max_esd_um": facts.number("ctx", "captureparameters.maxesd"),
        "distance_to_neighbour_um": facts.number("ctx", "captureparameters.distancetoneighbor"),
        "backgrounds": len(backgrounds),
        "grey_offset": offset,
        "grey_offset_pixels": offset_pixels,
    }
    return SourceInfo(
        uri=where.opened_as(options, grey_offset=offset),
        kind="flowcam",
        width_px=background.shape[1],
        height_px=background.shape[0],
        frame_rate_hz=facts.frame_rate_hz,
        um_per_px=factor if np.isfinite(factor) and factor > 0 else facts.um_per_px,
        depth_um=facts.depth_um,
        flow_rate_ul_per_min=facts.flow_rate_ul_per_min,
        frames_total=len(np.unique(table.columns["src_image"])),
        background=background,
        thresholds=facts.thresholds,
        volume_imaged_ml=volume,
        details={k: v for k, v in details.items() if v not in ("", None)},
    )
