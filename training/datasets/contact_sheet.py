"""A data set at a glance: pictures of every class, small to large, all at one scale."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from edge_app.capture.frame import RATIO_ONE
from edge_app.classification.tight_crops import divide_by_level
from edge_app.errors import UserError
from training.datasets.duplicates import Duplicates
from training.datasets.pictures import LabelledPictures

__all__ = ["draw_contact_sheet"]

U1 = npt.NDArray[np.uint8]

_WIDTH_PX: Final = 560
_ROWS: Final = 4
_GAP_PX: Final = 3
_LARGEST_PX: Final = 96
_PAIRS: Final = 16
_INCH_PX: Final = 56
"""Pixels of the pictures per inch of the sheet: with 160 dots per inch each shows about three times as large."""


def _choose(pictures: LabelledPictures, c: int, *, limit: int, seed: int) -> list[int]:
    """Some pictures of a class, every group in turn, in order of size."""
    rng = np.random.default_rng([seed, c])
    rows = rng.permutation(np.flatnonzero(pictures.label == c))
    _, index = np.unique(pictures.group[rows], return_inverse=True)
    turn = np.empty(len(rows), np.int64)
    for g in np.unique(index):
        turn[index == g] = np.arange((index == g).sum())
    chosen = rows[np.argsort(turn, kind="stable")][:limit].tolist()
    return sorted(chosen, key=lambda i: (max(pictures.pictures[i].shape), pictures.files[i]))


def _shown(pictures: LabelledPictures, i: int) -> U1:
    """Divided by its background; what is larger than the sheet allows is reduced."""
    ratio = divide_by_level(pictures.pictures[i], float(pictures.level[i]))
    factor = _LARGEST_PX / max(ratio.shape)
    if factor >= 1:
        return ratio
    size = max(1, round(ratio.shape[1] * factor)), max(1, round(ratio.shape[0] * factor))
    return np.asarray(cv2.resize(ratio, size, interpolation=cv2.INTER_AREA), np.uint8)


def _mosaic(tiles: list[U1], *, rows: int) -> U1:
    """Tiles in rows, each as high as its highest; what does not fit in ``rows`` is left out."""
    lines: list[list[U1]] = [[]]
    used = 0
    for tile in tiles:
        if used + tile.shape[1] > _WIDTH_PX and lines[-1]:
            if len(lines) == rows:
                break
            lines.append([])
            used = 0
        lines[-1].append(tile)
        used += tile.shape[1] + _GAP_PX
    heights = [max(t.shape[0] for t in line) for line in lines]
    sheet = np.full((sum(heights) + _GAP_PX * (len(lines) - 1), _WIDTH_PX), 255, np.uint8)
    top = 0
    for line, height in zip(lines, heights, strict=True):
        left = 0
        for tile in line:
            h, w = tile.shape
            y = top + (height - h) // 2
            sheet[y : y + h, left : left + w] = tile[:, : _WIDTH_PX - left]
            left += w + _GAP_PX
        top += height + _GAP_PX
    return sheet


def _spread(tiles: list[U1]) -> list[U1]:
    """As many of the tiles, evenly from small to large, as fill the rows."""
    room = _ROWS * _WIDTH_PX
    for keep in range(len(tiles), 0, -1):
        some = [tiles[k] for k in np.unique(np.linspace(0, len(tiles) - 1, keep).round().astype(int)).tolist()]
        if sum(t.shape[1] + _GAP_PX for t in some) <= 0.93 * room:
            return some
    return tiles[:1]


def draw_contact_sheet(
    pictures: LabelledPictures, path: Path, *, duplicates: Duplicates | None = None, seed: int = 1
) -> None:
    """Write a picture with examples of every class, and the pairs of copies.

    Pictures are divided by their background and stand at one scale, except those over 96 px, which are reduced.

    Parameters
    ----------
    pictures : LabelledPictures
    path : Path
        PNG, or what else matplotlib writes.
    duplicates : Duplicates, optional
        Pairs to show; those across groups first.
    seed : int
        Of the choice.

    Raises
    ------
    UserError
        The file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    bands: list[tuple[str, str, U1]] = []
    for c, name in enumerate(pictures.classes):
        of_class = pictures.label == c
        sizes = pictures.longest_px()[of_class] * pictures.um_per_px
        tiles = _spread([_shown(pictures, i) for i in _choose(pictures, c, limit=240, seed=seed)])
        groups = len(np.unique(pictures.group[of_class]))
        counts = f"{int(of_class.sum())} pictures in {groups} group{'s' if groups != 1 else ''}"
        middle = f"{sizes.min():.0f} to {sizes.max():.0f} µm, median {np.median(sizes):.0f}"
        bands.append((name, f"{counts}, {middle}", _mosaic(tiles, rows=_ROWS)))
    if duplicates is not None and duplicates.pairs:
        same = duplicates.group
        ranked = sorted(duplicates.pairs, key=lambda p: bool(same[p.first] == same[p.second]))[:_PAIRS]
        tiles = [_joined(_shown(pictures, p.first), _shown(pictures, p.second)) for p in ranked]
        note = f"{len(duplicates.pairs)} pairs, {len(duplicates.across_groups())} across groups"
        bands.append(("copies", note, _mosaic(tiles, rows=_ROWS)))
    head, foot, side = 0.30, 0.34, 0.18
    width = _WIDTH_PX / _INCH_PX + 2 * side
    height = sum(head + mosaic.shape[0] / _INCH_PX + 0.14 for _, _, mosaic in bands) + foot
    figure = Figure(figsize=(width, height), dpi=160, facecolor="white")
    FigureCanvasAgg(figure)
    top = height
    for name, note, mosaic in bands:
        top -= head
        figure.text(side / width, (top + 0.09) / height, name, fontsize=10, fontweight="bold", va="bottom")
        figure.text(1 - side / width, (top + 0.09) / height, note, fontsize=8, color="0.35", va="bottom", ha="right")
        high = mosaic.shape[0] / _INCH_PX
        axes = figure.add_axes((side / width, (top - high) / height, 1 - 2 * side / width, high / height))
        axes.imshow(mosaic, cmap="gray", vmin=0, vmax=255, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        top -= high + 0.14
    bar_um = next(b for b in (1000, 500, 200, 100, 50, 20, 10, 5, 2, 1) if b / pictures.um_per_px <= 120 or b == 1)
    length = bar_um / pictures.um_per_px / _INCH_PX
    line = figure.add_axes((side / width, 0.0, 1 - 2 * side / width, foot / height))
    line.set_xlim(0, width - 2 * side)
    line.set_ylim(0, foot)
    line.set_axis_off()
    line.plot([0, length], [0.2, 0.2], color="black", linewidth=2, solid_capstyle="butt")
    line.text(length + 0.08, 0.2, f"{bar_um} µm", fontsize=8, va="center")
    line.text(
        width - 2 * side,
        0.2,
        f"divided by the background (grey {RATIO_ONE})",
        fontsize=8,
        va="center",
        ha="right",
        color="0.35",
    )
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be written ({error})") from None


def _joined(a: U1, b: U1) -> U1:
    height = max(a.shape[0], b.shape[0])
    pair = np.full((height, a.shape[1] + b.shape[1]), RATIO_ONE, np.uint8)
    pair[: a.shape[0], : a.shape[1]] = a
    pair[: b.shape[0], a.shape[1] :] = b
    return pair
