"""Has the picture of a class changed since the network was measured? Kernel two-sample tests inside each class.

A sample with more oil than the last is another sample, not drift; oil that looks unlike the oil the network knows is.
So embeddings are compared within the class a particle was called, and only of particles called with confidence: among
those few belong to other classes, and the mix of the sample does not show through. Small and large particles of a class
are tested apart, as another sample may well have more of the small ones.

The statistic is the unbiased squared maximum mean discrepancy (MMD) with a Gaussian kernel between the latest particles
of a class and a reference sample. Its thresholds were found by permutation when the reference was made, so a test costs
a few products of small matrices, draws nothing at random and gives the same answer again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edge_app.errors import UserError

__all__ = [
    "SIZE_EDGES_PX",
    "WINDOW_SIZES",
    "DriftReference",
    "StratumDrift",
    "class_drift",
    "drift_reference",
    "mmd_squared",
    "read_drift_reference",
]

F4 = npt.NDArray[np.float32]
F8 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]

#: Particles of one stratum, that is of one class and size, in a test.
WINDOW_SIZES: Final = (15, 30, 50, 100)
#: Longer side of the particle's box, in px of the network's window, that parts small from large.
SIZE_EDGES_PX: Final = (16.0,)
#: Levels at which the statistic's distribution without drift is kept.
_LEVELS: Final = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995)
#: A class with a smaller reference is not tested.
_SMALLEST_REFERENCE: Final = 10
_FORMAT: Final = 1


def _kernel(a: F4, b: F4, bandwidth: float) -> F8:
    first, second = a.astype(np.float64), b.astype(np.float64)
    squared = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1)[None, :] - 2 * first @ second.T
    return np.asarray(np.exp(-np.maximum(squared, 0) / (2 * bandwidth**2)))


def _within(kernel: F8) -> float:
    """Mean of a kernel matrix without its diagonal."""
    n = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (n * (n - 1)))


def mmd_squared(a: F4, b: F4, *, bandwidth: float) -> float:
    """Unbiased squared maximum mean discrepancy of two samples, kernel ``exp(-d^2 / (2 bandwidth^2))``.

    About 0 where both come from the same distribution (it may be below), larger the more they differ.

    Parameters
    ----------
    a, b
        float32 (n, E), (m, E), at least two rows each.
    bandwidth
        Of the kernel, in units of the embedding.

    References
    ----------
    Gretton, Borgwardt, Rasch, Schoelkopf, Smola 2012, A kernel two-sample test, J. Mach. Learn. Res. 13:723-773, eq. 3.

    Examples
    --------
    >>> grid = np.arange(8, dtype=np.float32)[:, None]
    >>> round(mmd_squared(grid, grid + 20, bandwidth=1.0), 3), mmd_squared(grid, grid, bandwidth=1.0) < 0
    (0.365, True)
    """
    return (
        _within(_kernel(a, a, bandwidth))
        + _within(_kernel(b, b, bandwidth))
        - 2 * float(_kernel(a, b, bandwidth).mean())
    )


@dataclass(frozen=True)
class DriftReference:
    """What embeddings of each class and size looked like, and how far a window of the same kind strays from that.

    Strata run over the sizes of the first class, then of the second and so on. ``samples`` float32 (N, E) per stratum,
    ``bandwidth`` (S,), ``null_quantiles`` (S, window sizes, levels): quantiles of the statistic without drift, NaN
    where there were too few particles for a window of that size.
    """

    classes: tuple[str, ...]
    size_edges_px: tuple[float, ...]
    samples: tuple[F4, ...]
    bandwidth: F8
    window_sizes: tuple[int, ...]
    levels: F8
    null_quantiles: F8
    minimum_confidence: float

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """As arrays for ``reference.npz``; `read_drift_reference` is the way back."""
        return {
            "drift_format": np.array(_FORMAT),
            "drift_classes": np.array(self.classes),
            "drift_size_edges_px": np.array(self.size_edges_px),
            "drift_embeddings": np.concatenate(self.samples).astype(np.float16),
            "drift_counts": np.array([len(s) for s in self.samples], np.int32),
            "drift_bandwidth": self.bandwidth,
            "drift_window_sizes": np.array(self.window_sizes, np.int32),
            "drift_levels": self.levels,
            "drift_null_quantiles": self.null_quantiles,
            "drift_minimum_confidence": np.array(self.minimum_confidence),
        }

    @staticmethod
    def from_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> "DriftReference":
        """Undo `arrays`."""
        ends = np.cumsum(arrays["drift_counts"])
        return DriftReference(
            classes=tuple(str(c) for c in arrays["drift_classes"]),
            size_edges_px=tuple(float(v) for v in arrays["drift_size_edges_px"]),
            samples=tuple(np.split(arrays["drift_embeddings"].astype(np.float32), ends[:-1])),
            bandwidth=arrays["drift_bandwidth"],
            window_sizes=tuple(int(m) for m in arrays["drift_window_sizes"]),
            levels=arrays["drift_levels"],
            null_quantiles=arrays["drift_null_quantiles"],
            minimum_confidence=float(arrays["drift_minimum_confidence"]),
        )


def read_drift_reference(bundle_directory: Path) -> DriftReference | None:
    """The reference of a bundle that `edge_app.classification.bundle.Bundle.load` found whole; None if it has none.

    Raises
    ------
    UserError
        It was written for another version of this program.
    """
    path = bundle_directory / "reference.npz"
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as archive:
        if "drift_format" not in archive:
            return None
        found = int(archive["drift_format"])
        if found != _FORMAT:
            raise UserError(f"{path}: drift reference of format {found}, this program reads {_FORMAT}")
        return DriftReference.from_arrays({k: archive[k] for k in archive.files if k.startswith("drift_")})


def drift_reference(
    embedding: F4,
    class_index: Ints,
    confidence: F4,
    box_px: npt.NDArray[np.floating],
    *,
    classes: Sequence[str],
    particle: npt.NDArray[np.generic] | None = None,
    reference_per_stratum: int = 40,
    size_edges_px: Sequence[float] = SIZE_EDGES_PX,
    window_sizes: Sequence[int] = WINDOW_SIZES,
    minimum_confidence: float = 0.8,
    draws: int = 4000,
    seed: int = 0,
) -> DriftReference:
    """Make a reference: from the calibration particles of a bundle, or from a run of one's own on a good day.

    How far the statistic strays without drift is found by permutation: again and again the particles of a class are
    parted at random into a reference and a window. The bandwidth is the median distance within the class. P particles
    of a class and size called for sure give a reference of at most P / 2 and thresholds for windows of what is left.

    Parameters
    ----------
    embedding
        float32 (n, E), of the int8 network.
    class_index
        int (n,), as called by the bundle (``len(classes)``: unknown, not used).
    confidence
        float32 (n,), of the call.
    box_px
        float (n,): longer side of the particle's box in px of the network's window (at its scale).
    classes
        Names.
    particle
        (n,): pictures of one particle share it, and only one of them counts at a time, as in a run; None: each picture
        is a particle of its own.
    reference_per_stratum
        Most particles of one class and size to keep.
    size_edges_px
        Sizes that are told apart; empty: none are.
    window_sizes
        Particles per test.
    minimum_confidence
        Particles called with less take no part, here and later.
    draws
        Random partitions per stratum.
    seed

    Returns
    -------
    DriftReference
    """
    sizes = tuple(sorted(window_sizes))
    levels = np.array(_LEVELS)
    samples: list[F4] = []
    stratum = _strata(class_index, confidence, box_px, size_edges_px, minimum_confidence, len(classes))
    count = len(classes) * (len(size_edges_px) + 1)
    bandwidths = np.full(count, np.nan)
    quantiles = np.full((count, len(sizes), len(levels)), np.nan)
    known = embedding.astype(np.float16).astype(np.float32)
    for c in range(count):
        rng = np.random.default_rng([seed, c])
        pictures = _Pictures(particle, stratum == c)
        keep = min(reference_per_stratum, pictures.expected // 2)
        samples.append(known[pictures.draw(rng)[:keep]])
        if keep < _SMALLEST_REFERENCE:
            continue
        sure = known[pictures.sure]
        some = sure[rng.permutation(len(sure))[:400]]
        apart = np.sqrt(np.maximum(((some[:, None] - some[None]) ** 2).sum(axis=2), 0))
        bandwidths[c] = float(np.median(apart[np.triu_indices(len(some), 1)])) or 1.0
        kernel = _kernel(sure, sure, bandwidths[c])
        place = np.cumsum(pictures.sure) - 1
        usable = [k for k, m in enumerate(sizes) if keep + m <= pictures.expected]
        found = np.full((draws, len(sizes)), np.nan)
        for d in range(draws):
            drawn = place[pictures.draw(rng)]
            own = _within(kernel[np.ix_(drawn[:keep], drawn[:keep])])
            for k in usable:
                window = drawn[keep : keep + sizes[k]]
                across = kernel[np.ix_(drawn[:keep], window)].mean()
                found[d, k] = own + _within(kernel[np.ix_(window, window)]) - 2 * across
        for k in usable:
            quantiles[c, k] = np.quantile(found[:, k], levels)
    return DriftReference(
        classes=tuple(classes),
        size_edges_px=tuple(size_edges_px),
        samples=tuple(samples),
        bandwidth=bandwidths,
        window_sizes=sizes,
        levels=levels,
        null_quantiles=quantiles,
        minimum_confidence=minimum_confidence,
    )


def _strata(
    class_index: Ints,
    confidence: F4,
    box_px: npt.NDArray[np.floating],
    edges: Sequence[float],
    minimum_confidence: float,
    classes: int,
) -> Ints:
    """Stratum of each particle (n,), -1 for those that take no part."""
    index = class_index.astype(np.int64) * (len(edges) + 1) + np.digitize(box_px, np.asarray(edges))
    return np.where((class_index < classes) & (confidence >= minimum_confidence), index, -1)


class _Pictures:
    """Draws what a run would show of a stratum: one picture of each particle, of those the ones that belong to it."""

    def __init__(self, particle: npt.NDArray[np.generic] | None, sure: npt.NDArray[np.bool_]) -> None:
        of_particle = np.arange(len(sure)) if particle is None else np.unique(particle, return_inverse=True)[1]
        self.sure = sure
        self._order = np.argsort(of_particle, kind="stable")
        self._count = np.bincount(of_particle)
        self._first = np.cumsum(self._count) - self._count
        share = np.bincount(of_particle, weights=sure) / self._count
        # So many a draw gives nearly always: the mean less three standard deviations.
        self.expected = int(max(0.0, share.sum() - 3 * np.sqrt((share * (1 - share)).sum())))

    def draw(self, rng: np.random.Generator) -> Ints:
        """Rows in random order."""
        one_each = self._order[self._first + rng.integers(0, self._count)]
        return np.asarray(rng.permutation(one_each[self.sure[one_each]]))


@dataclass(frozen=True)
class StratumDrift:
    """Test of one class and size.

    ``box_px`` are the limits of the size. ``particles`` is the size of the window; 0 where too few were called with
    confidence, or the reference has no threshold: the other numbers are NaN then and ``alarm`` is False. ``p_value`` is
    read off the kept quantiles, so it is never below one minus their last level.
    """

    name: str
    box_px: tuple[float, float]
    particles: int
    mmd_squared: float = float("nan")
    threshold: float = float("nan")
    p_value: float = float("nan")
    alarm: bool = False


def class_drift(
    reference: DriftReference,
    embedding: F4,
    class_index: Ints,
    confidence: F4,
    box_px: npt.NDArray[np.floating],
    *,
    false_alarm_rate: float = 0.01,
) -> tuple[StratumDrift, ...]:
    """Test the latest particles of each class and size against the reference.

    Parameters
    ----------
    reference
        Of the same bundle.
    embedding, class_index, confidence, box_px
        Of the latest particles in order of time, as `drift_reference` takes them. Of each class and size the last ones
        are used, as many as the largest window size that fits.
    false_alarm_rate
        Of one call of this function, over all tests together (Bonferroni).

    Returns
    -------
    tuple of StratumDrift
        All sizes of the first class, then of the second and so on.

    Raises
    ------
    UserError
        The rate is outside what the kept quantiles can tell.
    """
    if not 0 < false_alarm_rate <= 0.5:
        raise UserError(f"false alarm rate is {false_alarm_rate:g}, allowed: above 0 to 0.5")
    edges = reference.size_edges_px
    stratum = _strata(class_index, confidence, box_px, edges, reference.minimum_confidence, len(reference.classes))
    sizes = np.asarray(reference.window_sizes)
    chosen: list[tuple[Ints, int] | None] = []
    for c in range(len(reference.samples)):
        rows = np.flatnonzero(stratum == c)
        fits = np.flatnonzero((sizes <= len(rows)) & np.isfinite(reference.null_quantiles[c, :, 0]))
        chosen.append((rows[-sizes[fits[-1]] :], int(fits[-1])) if len(fits) else None)
    tested = sum(one is not None for one in chosen)
    level = 1 - false_alarm_rate / max(1, tested)
    if level > reference.levels[-1]:
        lowest = (1 - reference.levels[-1]) * tested
        raise UserError(f"false alarm rate is {false_alarm_rate:g}, with {tested} tests it can be {lowest:g} at least")
    limits = (0.0, *edges, float("inf"))
    # The tail of the statistic falls about exponentially: straight lines in log(1 - level).
    log_tail = np.log(1 - reference.levels)
    out = []
    for c, one in enumerate(chosen):
        name, size = reference.classes[c // (len(edges) + 1)], c % (len(edges) + 1)
        box = limits[size], limits[size + 1]
        if one is None:
            out.append(StratumDrift(name, box, 0))
            continue
        window, k = one
        found = mmd_squared(embedding[window], reference.samples[c], bandwidth=float(reference.bandwidth[c]))
        null = reference.null_quantiles[c, k]
        threshold = float(np.interp(-np.log(1 - level), -log_tail, null))
        p_value = 1.0 if found < null[0] else float(np.exp(np.interp(found, null, log_tail)))
        out.append(StratumDrift(name, box, len(window), found, threshold, p_value, bool(found > threshold)))
    return tuple(out)
