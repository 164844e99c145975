"""Objects that sit on the window: same place, same size, frame after frame."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_app.segmentation.settings import DEFAULT_SETTINGS, StuckSettings

__all__ = ["StuckFilter", "StuckResult"]

F4 = npt.NDArray[np.float32]
I4 = npt.NDArray[np.int32]
BOOL = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class StuckResult:
    """Verdict on the objects of one frame.

    Attributes
    ----------
    stuck
        Rows that are images of a stuck object, bool (n,).
    confirmed
        Rows whose object was found stuck in this very frame, bool (n,).
    counted_before
        Images of the newly confirmed objects in earlier frames, which were counted as particles.
    """

    stuck: BOOL
    confirmed: BOOL
    counted_before: int


class StuckFilter:
    """Follows every object over a few frames and tells which of them do not move.

    An object is known again within ``distance_px`` and a factor ``area_ratio`` in area; seen in ``frames`` frames,
    with no more than ``missed_frames`` missed in a row, it is stuck. A moving particle crosses the field in a
    frame or two and is never taken. Works on whole columns: positions are looked up in a coarse map of candidates.

    Examples
    --------
    >>> f = StuckFilter((100, 100))
    >>> one = (np.array([50.0], np.float32), np.array([20.0], np.float32), np.array([30], np.int32))
    >>> [bool(f.update(*one).stuck[0]) for _ in range(5)]
    [False, False, False, True, True]
    """

    def __init__(self, shape: tuple[int, int], settings: StuckSettings = DEFAULT_SETTINGS.stuck) -> None:
        self.settings = settings
        self._cell = max(2.0, float(settings.distance_px))
        self._map_shape = (int(shape[0] / self._cell) + 3, int(shape[1] / self._cell) + 3)
        self._map = np.full(self._map_shape, -1, np.int32)
        self._x = np.zeros(0, np.float32)
        self._y = np.zeros(0, np.float32)
        self._area = np.zeros(0, np.int32)
        self._seen = np.zeros(0, np.int32)
        self._missed = np.zeros(0, np.int32)

    @property
    def objects(self) -> int:
        """Stuck objects known now."""
        return int((self._seen >= self.settings.frames).sum())

    def _cells(self, x: F4, y: F4) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        return (y / self._cell).astype(np.int64) + 1, (x / self._cell).astype(np.int64) + 1

    def _match(self, x: F4, y: F4, area: I4) -> npt.NDArray[np.int64]:
        """Candidate nearest to each object, -1 where there is none."""
        best = np.full(len(x), -1, np.int64)
        if not len(self._x) or not len(x):
            return best
        row, column = self._cells(self._x, self._y)
        self._map[row, column] = np.arange(len(self._x), dtype=np.int32)
        near = np.full(len(x), self.settings.distance_px**2, np.float32)
        here_row, here_column = self._cells(x, y)
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                found = self._map[here_row + dy, here_column + dx]
                distance = (self._x[found] - x) ** 2 + (self._y[found] - y) ** 2
                other = self._area[found]
                # 8 px of grace: the mask of a small object breathes with the noise.
                alike = np.maximum(area, other) <= self.settings.area_ratio * np.minimum(area, other) + 8
                better = (found >= 0) & (distance <= near) & alike
                best[better], near[better] = found[better], distance[better]
        self._map[row, column] = -1
        return best

    def update(self, x: F4, y: F4, area: I4) -> StuckResult:
        """Look at the objects of the next frame.

        Parameters
        ----------
        x, y
            Centroids in px, (n,).
        area
            Areas in px, (n,).
        """
        best = self._match(x, y, area)
        known = best >= 0
        taken = np.zeros(len(self._x), np.bool_)
        taken[best[known]] = True
        # One object per candidate: of two that claim it, the last one in the frame has it.
        owner = np.full(len(self._x), -1, np.int64)
        owner[best[known]] = np.flatnonzero(known)
        rows = np.flatnonzero(taken)
        self._x[rows], self._y[rows], self._area[rows] = x[owner[rows]], y[owner[rows]], area[owner[rows]]
        before = self._seen.copy()
        self._seen[rows] += 1
        self._missed[rows] = 0
        self._missed[~taken] += 1
        stuck = np.zeros(len(x), np.bool_)
        confirmed = np.zeros(len(x), np.bool_)
        stuck[known] = self._seen[best[known]] >= self.settings.frames
        confirmed[known] = stuck[known] & (before[best[known]] < self.settings.frames)
        fresh = (before < self.settings.frames) & (self._seen >= self.settings.frames)
        keep = self._missed <= self.settings.missed_frames
        new = ~known
        self._x = np.concatenate([self._x[keep], x[new]])
        self._y = np.concatenate([self._y[keep], y[new]])
        self._area = np.concatenate([self._area[keep], area[new]])
        self._seen = np.concatenate([self._seen[keep], np.ones(int(new.sum()), np.int32)])
        self._missed = np.concatenate([self._missed[keep], np.zeros(int(new.sum()), np.int32)])
        return StuckResult(stuck=stuck, confirmed=confirmed, counted_before=int(before[fresh].sum()))
