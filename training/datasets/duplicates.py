"""Pictures that are one and the same exposure, saved twice: the leak that a split by group cannot see.

Found in two steps. First a perceptual hash (the signs of 63 low cosine coefficients, as in pHash) with the correlation
of those coefficients picks the pairs that look alike, in all eight turns and mirrorings. Round droplets of one size all
look alike, so the second step looks closer, down to the grain: camera noise is never the same twice, and two pictures
whose noise agrees are copies, whatever was done to level, gain, size or orientation in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["DuplicatePair", "Duplicates", "find_duplicates", "perceptual_hash"]

U1 = npt.NDArray[np.uint8]
F4 = npt.NDArray[np.float32]

#: Every picture is stretched to this side for the hash: sides are compared by themselves.
RASTER_PX: Final = 32
#: Cosine coefficients per direction that make the hash.
COEFFICIENTS: Final = 8
#: Sides of copies may differ by this share (or one pixel): a copy may have been rescaled a little.
SIDE_TOLERANCE: Final = 0.12
#: Hamming distance, of 63 bits, and correlation of the coefficients up to which a pair is looked at closely.
FARTHEST_BITS: Final = 20
LEAST_LIKENESS: Final = 0.97
#: Correlation of the pictures at their own size without which the grain is not looked at.
LEAST_MATCH: Final = 0.80
#: Two exposures differ by camera noise, 0.4 % of the background at least: over 1 grey level between them. A difference
#: below this, after a fit of level and gain, is rounding.
ROUNDING_LEVELS: Final = 0.7
#: Compressing and rescaling a picture changes it by a few grey levels, root mean square; more is another particle.
LARGEST_RESIDUAL: Final = 4.0
#: Share that the right orientation must explain of what the others leave: of the picture, and of its grain.
LEAST_SHAPE: Final = 0.88
LEAST_GRAIN: Final = 0.35
#: The grain of small pictures agrees by chance: so many standard deviations are asked for on top.
CHANCE_SIGMAS: Final = 5.0
FLAT_SIGMAS: Final = 3.5

_ROWS: Final = 512
_PORTION_PIXELS: Final = 400_000


@dataclass(frozen=True, kw_only=True)
class DuplicatePair:
    """Two entries that are one exposure.

    Attributes
    ----------
    first, second : int
        Rows, ``first < second``.
    match : float
        Correlation of the pictures, 1 for copies that differ in level and gain only.
    identical : bool
        The same pixels.
    """

    first: int
    second: int
    match: float
    identical: bool


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Pairs found among named pictures, and whether they stand where they do harm.

    Attributes
    ----------
    pairs : tuple of DuplicatePair
        In order of the rows.
    files : tuple of str
        Name of each picture.
    group : ndarray of str (n,)
    label : ndarray of int (n,)
    classes : tuple of str
    """

    pairs: tuple[DuplicatePair, ...]
    files: tuple[str, ...]
    group: npt.NDArray[np.str_]
    label: npt.NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pairs)

    def across_groups(self) -> tuple[DuplicatePair, ...]:
        """Pairs whose pictures are in different groups: any split may part them."""
        return tuple(p for p in self.pairs if self.group[p.first] != self.group[p.second])

    def across(self, side: npt.NDArray[np.generic]) -> tuple[DuplicatePair, ...]:
        """Pairs whose pictures stand on different sides of a split.

        Parameters
        ----------
        side : ndarray (n,)
            Side of each picture: a mask, fold numbers or names.
        """
        return tuple(p for p in self.pairs if side[p.first] != side[p.second])

    def across_classes(self) -> tuple[DuplicatePair, ...]:
        """Pairs whose pictures have different labels: one of the two is wrong."""
        return tuple(p for p in self.pairs if self.label[p.first] != self.label[p.second])

    def describe(self, pair: DuplicatePair) -> str:
        """One line: both files with their groups, and how alike they are."""
        a, b = self.files[pair.first], self.files[pair.second]
        how = "the same pixels" if pair.identical else f"match {pair.match:.3f}"
        return f"{a} (group {self.group[pair.first]}) = {b} (group {self.group[pair.second]}), {how}"

    def record(self, side: npt.NDArray[np.generic] | None = None) -> dict[str, Any]:
        """For the bundle's training record and for JSON.

        Parameters
        ----------
        side : ndarray (n,), optional
            Side of each picture; without it only groups and classes are counted.
        """
        counts: dict[str, Any] = {
            "pairs": len(self.pairs),
            "across_groups": len(self.across_groups()),
            "across_classes": len(self.across_classes()),
        }
        if side is not None:
            counts["across_split"] = len(self.across(side))
        return counts

    def as_json(self) -> list[dict[str, Any]]:
        """One object per pair, with names, groups and classes."""
        rows = []
        for pair in self.pairs:
            row = asdict(pair) | {"match": round(pair.match, 4)}
            for place in ("first", "second"):
                i = row[place]
                row[place] = {
                    "file": self.files[i],
                    "group": str(self.group[i]),
                    "class": self.classes[int(self.label[i])],
                }
            rows.append(row)
        return rows


def _cosines() -> F4:
    k, x = np.arange(COEFFICIENTS)[:, None], np.arange(RASTER_PX)[None, :]
    basis = np.cos(np.pi * (x + 0.5) * k / RASTER_PX) * np.sqrt(2 / RASTER_PX)
    basis[0] /= np.sqrt(2)
    return basis.astype(np.float32)


def _coefficients(pictures: Sequence[U1]) -> F4:
    """Low cosine coefficients (n, 8, 8) of each picture, without the mean."""
    rasters = np.empty((len(pictures), RASTER_PX, RASTER_PX), np.float32)
    for i, picture in enumerate(pictures):
        shrink = min(picture.shape) >= RASTER_PX
        rasters[i] = cv2.resize(
            picture, (RASTER_PX, RASTER_PX), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
        )
    basis = _cosines()
    found = np.asarray(basis @ rasters @ basis.T, np.float32)
    found[:, 0, 0] = 0
    return found


def perceptual_hash(picture: U1) -> int:
    """Signs of the 63 lowest cosine coefficients, the highest bit first.

    Differs from the usual pHash in its threshold: 0 instead of the median, so that mirroring a picture only changes
    the signs of odd coefficients and turning it only swaps rows and columns: one transform gives all orientations.

    Parameters
    ----------
    picture : ndarray of uint8 (h, w)

    Returns
    -------
    int

    Examples
    --------
    >>> disc = ((np.mgrid[0:20, 0:20] - 9.0) ** 2).sum(axis=0)
    >>> a = np.clip(200 - disc, 100, 200).astype(np.uint8)
    >>> perceptual_hash(a) == perceptual_hash((0.5 * a + 20).astype(np.uint8))
    True

    References
    ----------
    C. Zauner, Implementation and benchmarking of perceptual image hash functions, 2010.
    """
    value = 0
    for bit in (_coefficients([picture]).ravel()[1:] > 0).tolist():
        value = value << 1 | int(bit)
    return value


def _turned(coefficients: F4, turn: int) -> F4:
    """Coefficients of the pictures in one of eight orientations: 4 transposes, 2 mirrors up-down, 1 left-right."""
    odd = np.where(np.arange(COEFFICIENTS) % 2, np.float32(-1), np.float32(1))
    out = coefficients.transpose(0, 2, 1) if turn & 4 else coefficients
    if turn & 2:
        out = out * odd[:, None]
    if turn & 1:
        out = out * odd
    return out


def _turned_picture(picture: U1, turn: int) -> U1:
    out = picture.T if turn & 4 else picture
    if turn & 2:
        out = out[::-1]
    if turn & 1:
        out = out[:, ::-1]
    return np.ascontiguousarray(out)


def _alike(pictures: Sequence[U1]) -> npt.NDArray[np.int64]:
    """Pairs that look alike, int (pairs, 3): first, second, orientation of the second in which it does."""
    shape = np.array([p.shape for p in pictures], np.float32)
    order = np.argsort(shape.max(axis=1), kind="stable")
    shape = shape[order]
    longest = shape.max(axis=1)
    coefficients = _coefficients([pictures[i] for i in order.tolist()])
    norm = np.linalg.norm(coefficients, axis=(1, 2), keepdims=True)
    unit = coefficients / np.maximum(norm, 1e-6)
    bits = np.where(coefficients > 0, np.float32(1), np.float32(-1))
    bits[:, 0, 0] = 0
    n = len(pictures)
    found: list[npt.NDArray[np.int64]] = []
    for low in range(0, n, _ROWS):
        high = min(low + _ROWS, n)
        # Sorted by the longer side, the copies of these rows lie in one stretch behind them.
        end = int(np.searchsorted(longest, longest[high - 1] * (1 + SIDE_TOLERANCE) + 1, side="right"))
        rows, columns = slice(low, high), slice(low, end)
        above = np.arange(low, end)[None, :] > np.arange(low, high)[:, None]
        flat = unit[rows].reshape(high - low, -1), bits[rows].reshape(high - low, -1)
        for turn in range(8):
            side = shape[columns, ::-1] if turn & 4 else shape[columns]
            likeness = flat[0] @ _turned(unit[columns], turn).reshape(end - low, -1).T
            near = above & (likeness >= LEAST_LIKENESS)
            i, j = np.nonzero(near)
            if not len(i):
                continue
            own, other = shape[rows][i], side[j]
            fits = (abs(own - other) <= np.maximum(1, SIDE_TOLERANCE * np.maximum(own, other))).all(axis=1)
            i, j = i[fits], j[fits]
            if not len(i):
                continue
            agreement = np.einsum("ij,ij->i", flat[1][i], _turned(bits[columns][j], turn).reshape(len(j), -1))
            close = (COEFFICIENTS**2 - 1 - agreement) / 2 <= FARTHEST_BITS
            first, second = order[low + i[close]], order[low + j[close]]
            # The eight orientations are those of the second row; turning back is an orientation as well.
            swapped = first > second
            found.append(
                np.column_stack(
                    [
                        np.where(swapped, second, first),
                        np.where(swapped, first, second),
                        np.where(swapped, _INVERSE[turn], turn),
                    ]
                )
            )
    return np.concatenate(found) if found else np.empty((0, 3), np.int64)


def _inverse_turns() -> tuple[int, ...]:
    probe = np.arange(6, dtype=np.uint8).reshape(2, 3)
    return tuple(
        next(k for k in range(8) if np.array_equal(_turned_picture(_turned_picture(probe, t), k), probe))
        for t in range(8)
    )


_INVERSE: Final = _inverse_turns()


def _unit(stack: F4) -> F4:
    """Flattened, without mean, of length 1: their products are correlations."""
    flat = stack.reshape(len(stack), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6), np.float32)


def _grain(stack: F4) -> F4:
    """What a pixel differs by from the mean of its neighbours above, below, left and right."""
    wide = np.pad(stack, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    around = wide[:, :-2, 1:-1] + wide[:, 2:, 1:-1] + wide[:, 1:-1, :-2] + wide[:, 1:-1, 2:]
    return np.asarray(stack - around / 4, np.float32)


def _flat(stack: F4) -> npt.NDArray[np.bool_]:
    """Flatter half of each picture."""
    square = np.ones((3, 3), np.uint8)
    slope = np.stack([cv2.morphologyEx(picture, cv2.MORPH_GRADIENT, square) for picture in stack])
    return np.asarray(slope <= np.median(slope, axis=(1, 2), keepdims=True), np.bool_)


def _beyond(correlation: F4, turn: npt.NDArray[np.int64]) -> F4:
    """Share that an orientation explains of what the best of the seven others leaves; ``correlation`` is (n, 8)."""
    rows = np.arange(len(turn))
    others = correlation.copy()
    others[rows, turn] = 0
    common = np.maximum(others.max(axis=1), 0)
    return np.asarray((correlation[rows, turn] - common) / np.maximum(1 - common, 1e-3), np.float32)


@dataclass(frozen=True)
class _Sized:
    """Pictures brought to one size, in one orientation."""

    contrast: F4
    unit: F4
    grain: F4
    unit_grain: F4

    @staticmethod
    def of(pictures: Sequence[U1], height: int, width: int) -> _Sized:
        stack = np.empty((len(pictures), height, width), np.float32)
        for k, picture in enumerate(pictures):
            whole = picture.astype(np.float32)
            same = whole.shape == (height, width)
            stack[k] = whole if same else cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
        grain = _grain(stack)
        return _Sized(stack.std(axis=(1, 2)), _unit(stack), grain.reshape(len(stack), -1), _unit(grain))


def _copies(pictures: Sequence[U1], pairs: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], F4]:
    """Which of the pairs that look alike are one exposure: rows of ``pairs``, and their correlation."""
    if not len(pairs):
        return np.empty(0, np.int64), np.empty(0, np.float32)
    shape = np.array([p.shape for p in pictures], np.int64)
    first, second, turn = pairs.T
    turned = np.where(turn[:, None] & 4, shape[second][:, ::-1], shape[second])
    size = np.minimum(shape[first], turned)
    sizes, of_size = np.unique(size, axis=0, return_inverse=True)
    by_size = np.argsort(of_size.ravel(), kind="stable")
    ends = np.cumsum(np.bincount(of_size.ravel(), minlength=len(sizes)))
    rows: list[npt.NDArray[np.int64]] = []
    matches: list[F4] = []
    for (height, width), members in zip(sizes.tolist(), np.split(by_size, ends[:-1]), strict=True):
        # Bounded memory: a portion of pairs of large pictures is small.
        portion = max(1, _PORTION_PIXELS // (height * width))
        for at in range(0, len(members), portion):
            some = members[at : at + portion]
            kept, match = _copies_of_size(pictures, pairs[some], height, width)
            rows.append(some[kept])
            matches.append(match)
    return np.concatenate(rows), np.concatenate(matches)


def _copies_of_size(
    pictures: Sequence[U1], pairs: npt.NDArray[np.int64], height: int, width: int
) -> tuple[npt.NDArray[np.int64], F4]:
    first, a = np.unique(pairs[:, 0], return_inverse=True)
    second, b = np.unique(pairs[:, 1:], axis=0, return_inverse=True)
    a, b = a.ravel(), b.ravel()
    one = _Sized.of([pictures[i] for i in first.tolist()], height, width)
    two = _Sized.of([_turned_picture(pictures[i], k) for i, k in second.tolist()], height, width)
    match = np.einsum("ij,ij->i", one.unit[a], two.unit[b])
    contrast = np.maximum(one.contrast[a], two.contrast[b])
    residual = contrast * np.sqrt(np.maximum(0, 1 - match * match))
    sure = (match >= LEAST_MATCH) & (residual <= ROUNDING_LEVELS)
    open_rows = np.flatnonzero((match >= LEAST_MATCH) & ~sure & (residual <= LARGEST_RESIDUAL))
    if len(open_rows):
        # Where the picture is flat only noise is left to agree.
        flat = _flat(one.unit.reshape(-1, height, width)).reshape(len(first), -1)
        x = one.grain[a[open_rows]] * flat[a[open_rows]]
        y = two.grain[b[open_rows]] * flat[a[open_rows]]
        power = np.maximum(np.einsum("ij,ij->i", x, x), 1e-6), np.maximum(np.einsum("ij,ij->i", y, y), 1e-6)
        agreement = np.einsum("ij,ij->i", x, y) / np.sqrt(power[0] * power[1])
        # Pixels that take part, from the kurtosis (3 for noise): where the picture is black there is no grain.
        pixels = 3 * power[0] ** 2 / np.maximum(np.einsum("ij,ij->i", x * x, x * x), 1e-6)
        open_rows = open_rows[agreement >= FLAT_SIGMAS / np.sqrt(np.maximum(pixels, 1))]
    if len(open_rows):
        # Round look-alikes match in every orientation, copies in one only: what counts is how much of what other
        # orientations leave unexplained this one explains, of the picture and, more finely, of its grain.
        other, c = np.unique(pairs[open_rows, 1], return_inverse=True)
        every = _Sized.of([_turned_picture(pictures[i], k) for i in other.tolist() for k in range(8)], height, width)
        place = c.ravel()[:, None] * 8 + np.arange(8)
        turn = pairs[open_rows, 2]
        shape = _beyond(np.einsum("ij,ikj->ik", one.unit[a[open_rows]], every.unit[place]), turn)
        grain = _beyond(np.einsum("ij,ikj->ik", one.unit_grain[a[open_rows]], every.unit_grain[place]), turn)
        sure[open_rows] = (shape >= LEAST_SHAPE) | (
            grain >= LEAST_GRAIN + CHANCE_SIGMAS / float(np.sqrt(height * width))
        )
    kept = np.flatnonzero(sure)
    return kept, match[kept].astype(np.float32)


def find_duplicates(
    pictures: Sequence[U1],
    *,
    files: Sequence[str],
    group: npt.NDArray[np.str_],
    label: npt.NDArray[np.int64],
    classes: Sequence[str],
) -> Duplicates:
    """Find copies among pictures: saved twice, brightened, compressed, rescaled by up to 12 %, turned or mirrored.

    Two exposures of one particle have their own noise and are not copies; that they are not parted is what groups are
    for. Pictures cut with another margin are not found.

    Parameters
    ----------
    pictures : sequence of ndarray of uint8 (h, w)
    files : sequence of str
        Name of each, for reports.
    group : ndarray of str (n,)
    label : ndarray of int (n,)
    classes : sequence of str
        Names of the labels.

    Returns
    -------
    Duplicates
    """
    best: dict[tuple[int, int], float] = {}
    same: dict[bytes, int] = {}
    identical: set[tuple[int, int]] = set()
    for i, picture in enumerate(pictures):
        # Flat pictures have no hash, yet the same file twice is a copy: pixels are compared first.
        key = blake2b(picture.tobytes(), digest_size=16, key=repr(picture.shape).encode()).digest()
        first = same.setdefault(key, i)
        if first != i:
            identical.add((first, i))
            best[first, i] = 1.0
    chosen = sorted(same.values())
    distinct = [pictures[i] for i in chosen]
    alike = _alike(distinct)
    rows, matches = _copies(distinct, alike)
    for (a, b, _), match in zip(alike[rows].tolist(), matches.tolist(), strict=True):
        pair = chosen[a], chosen[b]
        best[pair] = max(best.get(pair, -1.0), match)
    return Duplicates(
        pairs=tuple(
            DuplicatePair(first=i, second=j, match=match, identical=(i, j) in identical)
            for (i, j), match in sorted(best.items())
        ),
        files=tuple(files),
        group=np.asarray(group, np.str_),
        label=np.asarray(label, np.int64),
        classes=tuple(classes),
    )
