"""Pictures of single particles with their truth, in one file: what the simulated flow cell composes frames from.

Made by ``python -m training.optics.build_sprites``. Sprites are stored as if their place in the frame lay on the +x
axis from the optical centre, at ``field_radius`` half diagonals: a composer turns a sprite by the polar angle of its
place.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

#: Version of the file's layout.
FORMAT: Final = 1

_COLUMNS: Final = ("ecd_um", "max_feret_um", "z_um", "field_radius")


class SpriteLibraryError(ValueError):
    """The file is not a sprite library, or a damaged one."""


@dataclass(frozen=True, kw_only=True)
class SpriteLibrary:
    """A table of sprites; one row per sprite in every array.

    Attributes
    ----------
    families : tuple of str
        Names that ``family`` indexes.
    family : ndarray of uint8
    ecd_um, max_feret_um : ndarray of float32
        True projected sizes.
    z_um : ndarray of float32
        Focal plane minus particle, along the light.
    field_radius : ndarray of float32
        Distance from the optical centre, half diagonals of the frame.
    um_per_px : ndarray of float32
        Pixel of the sprite.
    height, width : ndarray of uint16
        Size of the picture.
    pixels : ndarray of uint8
        All pictures, row by row, one after the other.
    mask_bits : ndarray of uint8
        All true masks, each packed to bits on its own.
    metadata : mapping
        Optics, seed and versions.
    """

    families: tuple[str, ...]
    family: NDArray[np.uint8] = field(repr=False)
    ecd_um: NDArray[np.float32] = field(repr=False)
    max_feret_um: NDArray[np.float32] = field(repr=False)
    z_um: NDArray[np.float32] = field(repr=False)
    field_radius: NDArray[np.float32] = field(repr=False)
    um_per_px: NDArray[np.float32] = field(repr=False)
    height: NDArray[np.uint16] = field(repr=False)
    width: NDArray[np.uint16] = field(repr=False)
    pixels: NDArray[np.uint8] = field(repr=False)
    mask_bits: NDArray[np.uint8] = field(repr=False)
    metadata: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        sizes = self.height.astype(np.int64) * self.width
        object.__setattr__(self, "_first_pixel", np.concatenate([[0], np.cumsum(sizes)]))
        object.__setattr__(self, "_first_byte", np.concatenate([[0], np.cumsum((sizes + 7) // 8)]))
        rows = {len(getattr(self, c)) for c in (*_COLUMNS, "family", "um_per_px", "height", "width")}
        if len(rows) != 1:
            raise SpriteLibraryError(f"the columns have different lengths: {sorted(rows)}")
        if len(self.pixels) != self._pixel_offsets[-1] or len(self.mask_bits) != self._byte_offsets[-1]:
            raise SpriteLibraryError("the pictures do not fill the file as their sizes say")
        if len(self) and int(self.family.max()) >= len(self.families):
            raise SpriteLibraryError("a sprite belongs to a family that the file does not name")

    @property
    def _pixel_offsets(self) -> NDArray[np.int64]:
        return self._first_pixel  # type: ignore[attr-defined]

    @property
    def _byte_offsets(self) -> NDArray[np.int64]:
        return self._first_byte  # type: ignore[attr-defined]

    def __len__(self) -> int:
        return len(self.family)

    def patch(self, i: int) -> NDArray[np.uint8]:
        """Picture of sprite ``i`` in ratio codes (`RATIO_ONE` is background); a read-only view."""
        start, stop = self._pixel_offsets[i], self._pixel_offsets[i + 1]
        return self.pixels[start:stop].reshape(int(self.height[i]), int(self.width[i]))

    def mask(self, i: int) -> NDArray[np.bool_]:
        """True mask of sprite ``i``, same shape as its picture."""
        start, stop = self._byte_offsets[i], self._byte_offsets[i + 1]
        h, w = int(self.height[i]), int(self.width[i])
        bits: NDArray[np.bool_] = np.unpackbits(self.mask_bits[start:stop], count=h * w).astype(bool)
        return bits.reshape(h, w)

    def family_name(self, i: int) -> str:
        """Name of the family of sprite ``i``."""
        return self.families[int(self.family[i])]

    def find(
        self,
        *,
        family: str | None = None,
        ecd_um: tuple[float, float] = (0.0, np.inf),
        z_um: tuple[float, float] = (-np.inf, np.inf),
        field_radius: tuple[float, float] = (0.0, np.inf),
    ) -> NDArray[np.intp]:
        """Indices of the sprites within closed ranges.

        Parameters
        ----------
        family : str, optional
            Any when omitted.
        ecd_um, z_um, field_radius : (float, float)

        Returns
        -------
        ndarray of int
        """
        keep = np.ones(len(self), bool)
        if family is not None:
            keep &= self.family == self._family_index(family)
        for column, (low, high) in ((self.ecd_um, ecd_um), (self.z_um, z_um), (self.field_radius, field_radius)):
            keep &= (column >= low) & (column <= high)
        return np.flatnonzero(keep)

    def nearest(self, *, family: str, ecd_um: float, z_um: float, field_radius: float) -> int:
        """The sprite of a family that is closest in size (an eighth of it), focus (10 um) and field radius (0.25)."""
        rows = np.flatnonzero(self.family == self._family_index(family))
        if not len(rows):
            raise LookupError(f"the library holds no sprite of {family}")
        size = np.log(self.ecd_um[rows] / ecd_um) / 0.12
        focus = (self.z_um[rows] - z_um) / 10
        place = (self.field_radius[rows] - field_radius) / 0.25
        return int(rows[np.argmin(size**2 + focus**2 + place**2)])

    def _family_index(self, family: str) -> int:
        try:
            return self.families.index(family)
        except ValueError:
            raise LookupError(f"no sprite family {family!r}; there are {', '.join(self.families)}") from None

    def save(self, path: str | Path) -> None:
        """Write the library; the same library always gives the same bytes."""
        arrays: dict[str, NDArray[Any]] = {
            "format": np.array(FORMAT, np.uint16),
            "families": np.array(json.dumps(self.families)),
            "metadata": np.array(json.dumps(dict(self.metadata), sort_keys=True)),
            "family": self.family,
            "um_per_px": self.um_per_px,
            "height": self.height,
            "width": self.width,
            "pixels": self.pixels,
            "mask_bits": self.mask_bits,
        } | {name: getattr(self, name) for name in _COLUMNS}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for name, array in arrays.items():
                # A fixed date in place of the clock's.
                entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
                entry.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(entry, "w", force_zip64=True) as stream:
                    np.lib.format.write_array(stream, np.asanyarray(array), allow_pickle=False)

    @classmethod
    def load(cls, path: str | Path) -> SpriteLibrary:
        """Read a library.

        Parameters
        ----------
        path : str or Path

        Returns
        -------
        SpriteLibrary
            Its arrays are read-only.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        SpriteLibraryError
            If the file is something else, damaged, or of a newer format.
        """
        try:
            with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
                held = {name: archive[name] for name in archive.files}
        except FileNotFoundError:
            raise
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise SpriteLibraryError(f"{path} is not a sprite library: {error}") from error
        try:
            if int(held.pop("format")) != FORMAT:
                raise SpriteLibraryError(f"{path} has another format than {FORMAT}; make it again with this version")
            families = tuple(json.loads(str(held.pop("families"))))
            metadata = MappingProxyType(json.loads(str(held.pop("metadata"))))
            for array in held.values():
                array.setflags(write=False)
            return cls(families=families, metadata=metadata, **held)
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise SpriteLibraryError(f"{path} is not a sprite library: {error}") from error

    @classmethod
    def shipped(cls) -> SpriteLibrary:
        """The library that comes with the package."""
        with resources.as_file(resources.files(__package__ or "") / "sprites.npz") as path:
            return cls.load(path)


def pack(
    *,
    families: tuple[str, ...],
    patches: list[NDArray[np.uint8]],
    masks: list[NDArray[np.bool_]],
    family: list[int],
    columns: Mapping[str, list[float]],
    metadata: Mapping[str, Any],
) -> SpriteLibrary:
    """Join pictures and truth into a library.

    Parameters
    ----------
    families : tuple of str
    patches, masks : list of ndarray
        Picture (ratio codes) and true mask of every sprite, of equal shape.
    family : list of int
    columns : mapping
        ``ecd_um, max_feret_um, z_um, field_radius, um_per_px``.
    metadata : mapping

    Returns
    -------
    SpriteLibrary
    """
    return SpriteLibrary(
        families=families,
        family=np.array(family, np.uint8),
        height=np.array([p.shape[0] for p in patches], np.uint16),
        width=np.array([p.shape[1] for p in patches], np.uint16),
        pixels=np.concatenate([p.ravel() for p in patches]) if patches else np.zeros(0, np.uint8),
        mask_bits=np.concatenate([np.packbits(m) for m in masks]) if masks else np.zeros(0, np.uint8),
        metadata=MappingProxyType(dict(metadata)),
        ecd_um=np.array(columns["ecd_um"], np.float32),
        max_feret_um=np.array(columns["max_feret_um"], np.float32),
        z_um=np.array(columns["z_um"], np.float32),
        field_radius=np.array(columns["field_radius"], np.float32),
        um_per_px=np.array(columns["um_per_px"], np.float32),
    )
