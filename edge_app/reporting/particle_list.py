"""Every counted particle by size bin, packed small enough to travel inside the report."""

import base64
import json
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from edge_app.recording.particle_columns import RecordedParticles
from edge_app.recording.pictures import sample_keys
from edge_app.reporting.number_text import class_text

__all__ = ["MOST_LISTED", "bin_of", "pack_particle_list"]

MOST_LISTED: Final = 100_000
"""Most particles that one report lists; of a larger run a fixed, even sample of each bin is listed."""


def bin_of(ecd_um: npt.NDArray[np.floating], edges_um: Sequence[float]) -> npt.NDArray[np.int64]:
    """Bin of each particle, by the histogram's own rule, shape (n,).

    Examples
    --------
    >>> bin_of(np.array([4.9, 5.0, 80.0]), (0.0, 5.0, 10.0)).tolist()
    [0, 1, 1]
    """
    found = np.searchsorted(np.asarray(edges_um, np.float32), np.asarray(ecd_um, np.float32), side="right") - 1
    return np.clip(found, 0, len(edges_um) - 2)


def _most_per_bin(counts: npt.NDArray[np.int64], most: int) -> int:
    """Largest number per bin so that the whole stays within ``most``."""
    low, high = 0, int(counts.max(initial=0))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if int(np.minimum(counts, middle).sum()) <= most else (low, middle - 1)
    return low


def _packed(values: npt.NDArray[np.generic], dtype: str) -> list[str]:
    return [dtype[1:], base64.b64encode(np.ascontiguousarray(values, dtype).tobytes()).decode()]


def pack_particle_list(
    particles: RecordedParticles, *, edges_um: Sequence[float], names: Sequence[str], most: int = MOST_LISTED
) -> str:
    """Counted particles, bin by bin and by falling size, as JSON with little-endian columns in base64.

    Particles cut by the border are in no bin and are left out.

    Parameters
    ----------
    edges_um
        Bins.
    names
        Name of each bin.
    most
        See ``MOST_LISTED``.

    Returns
    -------
    str
        ``bins`` holds first row, rows listed and particles in the record of each bin. ``<`` is escaped, so that the
        text can stand inside a ``script`` element.
    """
    p = particles.particles
    counted = np.flatnonzero(p.weight > 0)
    which = bin_of(p.ecd_um[counted], edges_um)
    totals = np.bincount(which, minlength=len(edges_um) - 1)
    limit = _most_per_bin(totals, most)
    if (totals > limit).any():
        keys = sample_keys(p.frame[counted], p.x_px[counted], p.y_px[counted])
        order = np.lexsort((keys, which))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order)) - np.repeat(np.cumsum(totals) - totals, totals)
        counted, which = counted[rank < limit], which[rank < limit]
    order = np.lexsort((particles.row[counted], particles.window[counted], -p.ecd_um[counted], which))
    rows = counted[order]
    listed = np.minimum(totals, limit)
    first = np.cumsum(listed) - listed
    columns = {
        "window": _packed(particles.window[rows], "<i4"),
        "row": _packed(particles.row[rows], "<i4"),
        "frame": _packed(p.frame[rows], "<i4"),
        "time_s": _packed(p.time_s[rows], "<f4"),
        "x": _packed(p.x_px[rows], "<u2"),
        "y": _packed(p.y_px[rows], "<u2"),
        "width": _packed(p.width_px[rows], "<u2"),
        "height": _packed(p.height_px[rows], "<u2"),
        "ecd_um": _packed(p.ecd_um[rows], "<f4"),
        "aspect_ratio": _packed(p.aspect_ratio[rows], "<f4"),
        "circularity": _packed(p.circularity[rows], "<f4"),
        "class_index": _packed(particles.class_index[rows], "|u1"),
        "confidence": _packed(particles.confidence[rows], "<f4"),
    }
    table = {
        "classes": [class_text(c) for c in particles.classes],
        "names": list(names),
        "bins": np.stack([first, listed, totals], axis=1).tolist(),
        "columns": columns,
    }
    return json.dumps(table, separators=(",", ":")).replace("<", "\\u003c")
