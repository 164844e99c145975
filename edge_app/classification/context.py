"""What the network is told of a particle beside its picture: reduction, place in the field, shape, the run's sizes."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from edge_app.errors import UserError
from edge_app.measurement.shape_moments import USR, shape_moments
from edge_app.segmentation.particles import Particles
from edge_app.segmentation.regions import Regions

__all__ = [
    "DEFAULT_CONTEXT",
    "DESCRIPTORS",
    "FIELD",
    "SIZE_SHARES",
    "VOCABULARY",
    "MeasuredColumns",
    "context_table",
    "field_positions",
    "particle_columns",
    "size_shares",
    "turned_outward",
]

F4 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.integer]

#: Place in the frame: see `field_positions` and `turned_outward`.
FIELD: Final = ("field_x", "field_y", "field_known")
DEFAULT_CONTEXT: Final = ("log2_reduction", *FIELD)
#: Columns of `Particles`; sizes as log2 of the um, since 5 and 10 um differ as 35 and 70 do.
DESCRIPTORS: Final = (
    "log2_ecd_um",
    "log2_max_feret_um",
    "aspect_ratio",
    "circularity",
    "solidity",
    "intensity_mean",
    "intensity_min",
    "intensity_max",
    "intensity_std",
)
_SIZE_EDGES_UM: Final = (0.0, 5.0, 7.0, 10.0, 15.0, 25.0, np.inf)
#: Share of the run's particles in each size bin: 0 to 5, 5 to 7, 7 to 10, 10 to 15, 15 to 25, above 25 um.
SIZE_SHARES: Final = tuple(f"size_share_{k}" for k in range(len(_SIZE_EDGES_UM) - 1))
#: `USR` takes some 12 us per particle, so a device may have it too.
VOCABULARY: Final = (*DEFAULT_CONTEXT, *DESCRIPTORS, *SIZE_SHARES, *USR)


def field_positions(x: Ints, y: Ints, width: Ints, height: Ints, *, frame_shape: tuple[int, ...]) -> F4:
    """Place of boxes in the frame, in units of its half diagonal: (0, 0) the middle, radius 1 a corner.

    Parameters
    ----------
    x, y, width, height
        Integer boxes (n,), px.
    frame_shape
        (H, W) of the frame.

    Returns
    -------
    float32 (n, 2)

    Examples
    --------
    >>> one = np.array([1])
    >>> field_positions(60 * one, 40 * one, 0 * one, 0 * one, frame_shape=(80, 60)).tolist()
    [[0.6000000238418579, 0.0]]
    """
    high, wide = frame_shape[:2]
    half = 0.5 * float(np.hypot(high, wide))
    across = (np.asarray(x) + 0.5 * np.asarray(width) - 0.5 * wide) / half
    down = (np.asarray(y) + 0.5 * np.asarray(height) - 0.5 * high) / half
    return np.stack([across, down], axis=-1).astype(np.float32).reshape(-1, 2)


def turned_outward(pixels: npt.NDArray[np.uint8], field: F4) -> tuple[npt.NDArray[np.uint8], F4]:
    """Mirror crops so that the way out of the field leads to the right and down, more to the right.

    Off the axis a microscope draws crescents that point along the field position, whatever the particle. Optics has no
    other direction, so mirrored to one octant of the field every crop shows them the same way round.

    Parameters
    ----------
    pixels
        uint8 (n, W, W, 1); not changed.
    field
        float32 (n, 2), `field_positions`.

    Returns
    -------
    pixels
        uint8 (n, W, W, 1).
    field
        float32 (n, 2) with ``x >= y >= 0``.
    """
    out = pixels.copy()
    left, up = field[:, 0] < 0, field[:, 1] < 0
    out[left] = out[left][:, :, ::-1]
    out[up] = out[up][:, ::-1]
    place = np.abs(field)
    steep = place[:, 1] > place[:, 0]
    out[steep] = out[steep].swapaxes(1, 2)
    place[steep] = place[steep][:, ::-1]
    return out, place


def size_shares(ecd_um: npt.NDArray[np.floating]) -> F4:
    """Share of particles in each bin of `SIZE_SHARES`, float32 (6,); zeros where there is none.

    Examples
    --------
    >>> size_shares(np.array([4.0, 6.0, 6.5, 30.0])).tolist()
    [0.25, 0.5, 0.0, 0.0, 0.0, 0.25]
    """
    counts = np.histogram(ecd_um, _SIZE_EDGES_UM)[0]
    return (counts / max(1, counts.sum())).astype(np.float32)


def particle_columns(
    names: Sequence[str], particles: Particles, *, run_sizes: F4 | None = None, outline: F4 | None = None
) -> dict[str, F4]:
    """Columns of measured particles that a network asks for beside picture and place.

    Parameters
    ----------
    names
        Context of the bundle.
    particles
        Measured.
    run_sizes
        `size_shares` of the run so far; None: not known yet, all zero.
    outline
        `edge_app.measurement.shape_moments.shape_moments` of the particles, (n, 12); None: not known.

    Returns
    -------
    dict of str to float32 (n,)
    """
    columns: dict[str, F4] = {}
    for name in names:
        if name in DESCRIPTORS:
            plain = name.removeprefix("log2_")
            values = np.asarray(getattr(particles, plain), np.float32)
            columns[name] = np.log2(np.maximum(values, np.float32(0.1))) if plain != name else values
        elif name in SIZE_SHARES:
            share = 0.0 if run_sizes is None else float(run_sizes[SIZE_SHARES.index(name)])
            columns[name] = np.full(len(particles), share, np.float32)
        elif name in USR and outline is not None:
            columns[name] = outline[:, USR.index(name)]
    return columns


class MeasuredColumns:
    """Columns of `particle_columns` for the frames of one run, in order; nothing is computed that is not asked for.

    Parameters
    ----------
    names
        Context of the bundle.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = [name for name in names if name not in DEFAULT_CONTEXT]
        self._run_asked = any(name in SIZE_SHARES for name in self._names)
        self._outline_asked = any(name in USR for name in self._names)
        self._counts = np.zeros(len(SIZE_SHARES), np.int64)

    def of_frame(
        self, particles: Particles, regions: Regions, *, keep: npt.NDArray[np.bool_] | None = None
    ) -> dict[str, F4] | None:
        """Columns of a frame's particles.

        Parameters
        ----------
        particles, regions
            All of the frame, n rows each: the run's size distribution counts this frame's too, and the small ones.
        keep
            bool (n,): those that will be classified; None: all.

        Returns
        -------
        dict of str to float32, a row per kept particle; None where the bundle asks for none
        """
        if not self._names:
            return None
        if self._run_asked:
            self._counts += np.histogram(particles.ecd_um, _SIZE_EDGES_UM)[0]
        if keep is not None and not keep.all():
            particles, regions = particles.take(keep), regions.take(keep)
        return particle_columns(
            self._names,
            particles,
            run_sizes=(self._counts / max(1, self._counts.sum())).astype(np.float32) if self._run_asked else None,
            outline=shape_moments(regions) if self._outline_asked else None,
        )


def context_table(names: Sequence[str], columns: Mapping[str, npt.NDArray[np.floating]], count: int) -> F4:
    """Join columns in the order of the bundle, float32 (n, K).

    Raises
    ------
    UserError
        The network asks for what is not known of these particles.
    """
    table = np.empty((count, len(names)), np.float32)
    for k, name in enumerate(names):
        if name not in columns:
            raise UserError(
                f"bundle: the network asks for {name}, which is not known of these pictures "
                "(cut by another instrument); take a bundle whose context is " + ", ".join(DEFAULT_CONTEXT)
            )
        table[:, k] = columns[name]
    return table
