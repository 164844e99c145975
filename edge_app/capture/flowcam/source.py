"""``flowcam:PATH``: a FlowCam export replayed as frames.

The instrument does not export its frames, but a crop of each particle with its place in the frame, and the
background. A frame is rebuilt by putting its crops back on the background. Frames with nothing in them are not
exported, yet they were imaged: the run summary's volume counts them, see ``SourceInfo.volume_imaged_ml``.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from edge_app.capture.flowcam.backgrounds import background_number, check_places, read_backgrounds
from edge_app.capture.flowcam.collages import Collages
from edge_app.capture.flowcam.export import (
    FlowCamTable,
    find_backgrounds,
    find_table,
    read_facts,
    read_particle_table,
)
from edge_app.capture.flowcam.grey_offset import choose_collages, measure_grey_offset
from edge_app.capture.flowcam.info import describe_run
from edge_app.capture.flowcam.pictures import decide_depth, find_pictures
from edge_app.capture.flowcam.rebuild import put_crops_back
from edge_app.capture.frame import Companion, Frame
from edge_app.capture.problems import Problems
from edge_app.capture.source import SourceInfo
from edge_app.capture.uri import SourceUri, parse_path_uri, validate_options
from edge_app.errors import UserError

__all__ = ["FlowCamOptions", "FlowCamSource", "open_flowcam"]


class FlowCamOptions(BaseModel):
    """Options of ``flowcam:``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    grey_offset: float | None = Field(
        default=None, ge=-255, le=255, description="grey levels by which crops are brighter than the background"
    )


class FlowCamSource:
    """Rebuilt frames, in the order of the instrument's frame numbers.

    A frame is delivered only if every one of its crops is there: one with a crop missing would hold too few
    particles for its volume, so it counts as lost (``Frame.lost_before``). The rows that are to blame count as
    ``no_collage``, or as ``bad_row`` where the table does not say where a crop lies. Frames of rows that do not even
    say their frame are lost somewhere: they count at the end (``lost_at_end``).
    """

    def __init__(
        self,
        directory: Path,
        table: FlowCamTable,
        backgrounds: Mapping[int, npt.NDArray[np.uint8]],
        *,
        collages: Collages,
        info: SourceInfo,
        problems: Problems,
    ) -> None:
        self.info = info
        self._log = problems
        self.problems, self.messages = problems.counts, problems.messages
        self._directory, self._table, self._backgrounds = directory, table, backgrounds
        self._collages = collages
        self.lost_at_end = 0
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
        rows_of = {int(numbers[rows[0]]): rows for rows in np.split(order, starts[1:]) if len(rows)}
        incomplete = set(self._table.incomplete_frames.tolist())
        for number in sorted(rows_of.keys() | incomplete):
            if self._closed:
                return
            image = None if number in incomplete else self._rebuild(rows_of[number])
            if image is None:
                self.lost_at_end += 1
                continue
            rows = rows_of[number]
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
        self.lost_at_end += self._table.frames_not_named

    def mask(self, row: int) -> npt.NDArray[np.bool_] | None:
        """The instrument's own mask of a table row, shape (image_h, image_w) of that row; None without a mask file."""
        return self._collages.mask(row)

    def close(self) -> None:
        """End ``frames`` before its next frame."""
        self._closed = True

    def _rebuild(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8] | None:
        found = [self._collages.crop(int(row)) for row in rows]
        crops = [crop for crop in found if crop is not None]
        if len(crops) < len(found):
            return None
        columns = self._table.columns
        places = [(int(columns["src_x"][row]), int(columns["src_y"][row])) for row in rows]
        image, clipped = put_crops_back(self.background_behind(int(rows[0])), crops, places)
        height, width = image.shape
        for i in clipped:
            (h, w), (x, y) = crops[i].shape, places[i]
            self._log.add(
                "clipped",
                f"{self._table.path.name}: row {rows[i] + 1}: crop {w} x {h} at {x}, {y} "
                f"leaves the frame of {width} x {height} px",
            )
        return image

    def background_behind(self, row: int) -> npt.NDArray[np.uint8]:
        """The picture, uint8 (H, W), that a row of the table names as its background; the first where it names none."""
        number = background_number(self._table, row)
        if number is not None and number in self._backgrounds:
            return self._backgrounds[number]
        if "cal_image" in self._table.columns:
            name = "that a row does not name" if number is None else f"cal_image {number}"
            self._log.add_once("no_background", f"{self._directory}: background {name} is missing, the first is taken")
        return next(iter(self._backgrounds.values()))


def open_flowcam(uri: str) -> FlowCamSource:
    """Open ``flowcam:PATH``, PATH being the export's folder or its ``.lst``.

    Raises
    ------
    UserError
        If there is no particle table, no background picture, or a column is missing that frames are rebuilt from.

    Examples
    --------
    >>> open_flowcam("flowcam:nowhere")
    Traceback (most recent call last):
        ...
    edge_app.errors.UserError: flowcam:nowhere: directory does not exist
    """
    where = parse_path_uri(uri)
    options = validate_options(where, FlowCamOptions)
    directory, candidates = _locate(where)
    problems = Problems()
    table = _first_table(candidates, problems)
    files = find_pictures(directory)
    chosen = choose_collages(table, files)
    # One depth for backgrounds and crops: a crop must not change its level with its collage.
    scaling = decide_depth([*find_backgrounds(directory).values(), *chosen.values()])
    backgrounds = read_backgrounds(where, directory, problems, scaling)
    check_places(table, backgrounds)
    facts = read_facts(directory, table.path.stem)
    offset, pixels = measure_grey_offset(table, chosen, backgrounds, scaling)
    if options.grey_offset is not None:
        offset = options.grey_offset
    info = describe_run(where, options, table, backgrounds, facts, offset=offset, offset_pixels=pixels)
    collages = Collages(directory, table, files, scaling=scaling, grey_offset=offset, problems=problems)
    return FlowCamSource(directory, table, backgrounds, collages=collages, info=info, problems=problems)


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
