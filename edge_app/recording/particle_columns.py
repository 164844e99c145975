"""Columns of a window as little-endian bytes, and back."""

import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edge_app.segmentation.particles import Particles

__all__ = ["RecordedParticles", "pack_column", "pack_particles", "unpack_column", "unpack_particles"]

PARTICLE_DTYPES: Mapping[str, str] = {
    "frame": "<i4", "time_s": "<f4", "x_px": "<i4", "y_px": "<i4", "width_px": "<i4", "height_px": "<i4",
    "centroid_x_px": "<f4", "centroid_y_px": "<f4", "area_px": "<i4", "half_max_area_px": "<f4", "ecd_um": "<f4",
    "max_feret_um": "<f4", "min_feret_um": "<f4", "perimeter_um": "<f4", "aspect_ratio": "<f4",
    "circularity": "<f4", "solidity": "<f4", "intensity_mean": "<f4", "intensity_min": "<f4",
    "intensity_max": "<f4", "intensity_std": "<f4", "edge_gradient": "<f4", "border": "|b1", "weight": "<f4",
    "learned_ecd_px": "<f4",
}  # fmt: skip
"""Type of each column of ``Particles`` in the record."""

LATER_COLUMNS: Final = frozenset({"learned_ecd_px"})
"""Columns that earlier records of this version lack; `Particles` fills them with nan."""


@dataclass(frozen=True, kw_only=True)
class RecordedParticles:
    """Particles as they stand in the record, a row each, with what the classifier said.

    Attributes
    ----------
    window, row
        int32 (n,): window and row in it; together (``"3-17"``) the particle's id.
    particles
        The measured columns.
    class_index
        int16 (n,): index into ``classes``.
    confidence
        float32 (n,).
    probabilities
        float32 (n, classes without ``unknown``) or None where they were not recorded.
    classes
        Names, ``unknown`` last.
    """

    window: npt.NDArray[np.int32]
    row: npt.NDArray[np.int32]
    particles: Particles
    class_index: npt.NDArray[np.int16]
    confidence: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32] | None
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.particles)

    @property
    def class_names(self) -> npt.NDArray[np.str_]:
        """Class of each particle by name, shape (n,)."""
        return np.asarray(self.classes, np.str_)[self.class_index]

    @staticmethod
    def empty(classes: tuple[str, ...]) -> "RecordedParticles":
        """No particle at all."""
        columns = {name: np.empty(0, np.dtype(dtype).newbyteorder("=")) for name, dtype in PARTICLE_DTYPES.items()}
        return RecordedParticles(
            window=np.empty(0, np.int32),
            row=np.empty(0, np.int32),
            particles=Particles(**columns),
            class_index=np.empty(0, np.int16),
            confidence=np.empty(0, np.float32),
            probabilities=None,
            classes=classes,
        )

    @staticmethod
    def concatenate(parts: "list[RecordedParticles]") -> "RecordedParticles":
        """Join the rows of several windows of one record."""
        stored = [p.probabilities for p in parts if p.probabilities is not None]
        return RecordedParticles(
            window=np.concatenate([p.window for p in parts]),
            row=np.concatenate([p.row for p in parts]),
            particles=Particles.concatenate([p.particles for p in parts]),
            class_index=np.concatenate([p.class_index for p in parts]),
            confidence=np.concatenate([p.confidence for p in parts]),
            probabilities=np.concatenate(stored) if len(stored) == len(parts) else None,
            classes=parts[0].classes,
        )


def pack_column(values: npt.NDArray[np.generic], dtype: str) -> tuple[str, bytes]:
    """Write one column as bytes; returns the codec (``raw`` or ``zlib``) and the bytes.

    Integers and flags are deflated: they shrink to a third for 0.3 us per particle. Floats would shrink to two thirds
    for 1.1 us more, a third of what a window costs at all, and stay as they are (``benchmarks/record_speed.py``).
    """
    data = np.ascontiguousarray(values, dtype).tobytes()
    if dtype[1] != "f" and len(data) > 64:
        return "zlib", zlib.compress(data, 1)
    return "raw", data


def unpack_column(dtype: str, codec: str, data: bytes) -> npt.NDArray[Any]:
    """Read one column back, shape (n,).

    Raises
    ------
    ValueError
        If the codec is not known or the bytes do not fit.
    """
    if codec == "zlib":
        data = zlib.decompress(data)
    elif codec != "raw":
        raise ValueError(f"column codec {codec!r} is not known")
    values = np.frombuffer(data, np.dtype(dtype))
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def pack_particles(
    particles: Particles,
    class_index: npt.NDArray[np.integer],
    confidence: npt.NDArray[np.floating],
    probabilities: npt.NDArray[np.floating] | None,
    *,
    classes: tuple[str, ...],
) -> Iterator[tuple[str, str, str, bytes]]:
    """Yield ``name, dtype, codec, bytes`` of every column of a window.

    Raises
    ------
    ValueError
        If the columns are not of one length or a class index is out of range.
    """
    n = len(particles)
    index = np.asarray(class_index)
    if len(index) != n or len(confidence) != n:
        raise ValueError(f"{n} particles, {len(index)} classes, {len(confidence)} confidences")
    if n and not 0 <= int(index.min()) <= int(index.max()) < len(classes):
        raise ValueError(f"class index {int(index.min())}..{int(index.max())} with {len(classes)} classes")
    for name, dtype in PARTICLE_DTYPES.items():
        column = getattr(particles, name)
        if len(column) != n:
            raise ValueError(f"column {name} has {len(column)} rows, frame has {n}")
        yield name, dtype, *pack_column(column, dtype)
    yield "class_index", "<i2", *pack_column(index, "<i2")
    yield "confidence", "<f4", *pack_column(np.asarray(confidence), "<f4")
    if probabilities is not None:
        table = np.asarray(probabilities)
        if table.shape[0] != n or table.shape[1] > len(classes):
            raise ValueError(f"probabilities have shape {table.shape}, expected ({n}, up to {len(classes)})")
        for k in range(table.shape[1]):
            yield f"p_{classes[k]}", "<f4", *pack_column(table[:, k], "<f4")


def unpack_particles(
    columns: Iterable[tuple[str, str, str, bytes]], *, window: int, classes: tuple[str, ...]
) -> RecordedParticles:
    """Put a window together from its ``name, dtype, codec, bytes``."""
    table = {name: unpack_column(dtype, codec, data) for name, dtype, codec, data in columns}
    names = [f.name for f in fields(Particles) if f.name in table or f.name not in LATER_COLUMNS]
    particles = Particles(**{name: table[name] for name in names})
    n = len(particles)
    if {len(column) for column in table.values()} != {n}:
        raise ValueError(f"columns of different lengths beside {n} rows of frame")
    stored = [table[f"p_{name}"] for name in classes if f"p_{name}" in table]
    return RecordedParticles(
        window=np.full(n, window, np.int32),
        row=np.arange(n, dtype=np.int32),
        particles=particles,
        class_index=table["class_index"],
        confidence=table["confidence"],
        probabilities=np.stack(stored, axis=1) if stored else None,
        classes=classes,
    )
