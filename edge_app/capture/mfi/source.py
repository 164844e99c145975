"""``mfi:PATH``: an MFI export, frame pictures beside the instrument's particle table.

The frames are analysed by us; the instrument's numbers travel beside them as the frame's companion. Where an export
holds the table and a picture per particle instead of frames, the pictures can be classified
(``crops.open_mfi_crops``).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from edge_app.capture.directory import iterate_pictures, probe_pictures
from edge_app.capture.frame import Companion, Frame
from edge_app.capture.image_files import GreyScaling
from edge_app.capture.mfi.consistency import count_rows_outside, count_rows_without_frame, holds_frames
from edge_app.capture.mfi.export import MfiExport, find_mfi_export
from edge_app.capture.mfi.frame_numbers import number_frames
from edge_app.capture.mfi.table import MfiTable
from edge_app.capture.source import SourceInfo
from edge_app.errors import UserError

__all__ = ["MfiSource", "open_mfi"]

_RATE_IF_UNKNOWN_HZ: Final = 10.0


class MfiSource:
    """Frames in the order of their numbers, with the instrument's rows of that number beside each.

    A number that is missing between two frames counts as a lost frame (``Frame.lost_before``).
    """

    def __init__(
        self,
        export: MfiExport,
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


def open_mfi(uri: str) -> MfiSource:
    r"""Open ``mfi:PATH?pattern=frame_([0-9]+)&bits=10&um_per_px=1.33&depth_um=100``.

    Raises
    ------
    UserError
        If no picture opens, none has a number in its name, or the pictures are particles and not frames.

    Examples
    --------
    >>> import cv2
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = cv2.imwrite(f"{folder}/frame_7.png", np.full((8, 16), 200, np.uint8))
    ...     frames = list(open_mfi(f"mfi:{folder}").frames())
    >>> [(frame.sequence, frame.time_s, frame.image.shape) for frame in frames]
    [(7, 0.7, (8, 16))]
    """
    export = find_mfi_export(uri)
    scaling = GreyScaling(bits=export.options.bits)
    width, height = probe_pictures(export.images, scaling)
    if not holds_frames(export, (width, height)):
        raise UserError(
            f"{export.where}: holds the particle table and particle pictures, no frames; use `edge-app classify {uri}`"
        )
    numbered = number_frames(export)
    total = count_rows_without_frame(export, numbered)
    count_rows_outside(export, (width, height))
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
