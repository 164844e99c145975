"""What a bundle is measured on: simulated views or labelled pictures, as they are and as they might have been taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from edge_app.capture.frame import RATIO_ONE
from edge_app.classification.crops import CropGeometry
from edge_app.classification.tight_crops import background_levels, divide_by_level
from training.datasets.exposure import ExposureRanges, simulated_crops
from training.datasets.folders import LabelledPictures
from training.datasets.labelled import LabelledCrops
from training.datasets.views import ViewStore

__all__ = ["FolderSource", "Photographs", "SimulatedSource", "Source", "Sweep", "strangers"]

F4 = npt.NDArray[np.float32]
I8 = npt.NDArray[np.int64]

#: Views taken for a sweep over a condition; more would cost time and move no curve.
SWEEP_VIEWS: Final = 1400

_AS_TAUGHT: Final = ExposureRanges()


@dataclass(frozen=True, kw_only=True)
class Photographs:
    """Crops, and ``row`` (n,): the view or picture that each shows, the same number however it was taken.

    ``z_um`` (n,) is the signed defocus where it is known, else NaN.
    """

    crops: LabelledCrops
    row: I8
    z_um: F4

    def __len__(self) -> int:
        return len(self.crops)

    def take(self, rows: npt.NDArray[np.generic]) -> Photographs:
        """Keep some."""
        return Photographs(crops=self.crops.take(rows), row=self.row[rows], z_um=self.z_um[rows])

    def with_pixels(self, pixels: npt.NDArray[np.uint8]) -> Photographs:
        """The same crops with other pixels."""
        return replace(self, crops=replace(self.crops, pixels=pixels))


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A condition that is varied alone: the pictures are taken anew at each of ``values``.

    ``nominal`` is one of the values; losses are against it, on the particles that are detected at both.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    nominal: float
    take: Callable[[float], Photographs]
    note: str = ""


class Source(Protocol):
    """Where photographs come from."""

    @property
    def name(self) -> str:
        """For headings."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels."""

    def photographs(self) -> Photographs:
        """All of them, as they are."""

    def repeats(self, times: int) -> tuple[list[Photographs], str]:
        """The same particles taken again and again, and in words what differed."""

    def sweeps(self) -> list[Sweep]:
        """Conditions that this source can vary."""


class SimulatedSource:
    """Views of the optics simulator.

    Parameters
    ----------
    store : ViewStore
    labels : tuple of str
        Families in the order of the labels; others get label -1.
    geometry : CropGeometry
    name : str
    seed : int
    field_known : bool
        Whether the network is told the place in the frame.
    optics : mapping of (name, unit, note) to (values, nominal, stores), optional
        Conditions that had to be rendered (`training.evaluation.optics_sweeps`).
    """

    def __init__(
        self,
        store: ViewStore,
        *,
        labels: tuple[str, ...],
        geometry: CropGeometry,
        name: str,
        seed: int = 21,
        field_known: bool = True,
        optics: Sequence[tuple[str, str, str, float, dict[float, ViewStore]]] = (),
    ) -> None:
        self.name, self.labels = name, labels
        self._store, self._geometry, self._seed, self._field_known = store, geometry, seed, field_known
        self._optics = optics

    def _take(
        self,
        store: ViewStore,
        *,
        ranges: ExposureRanges = _AS_TAUGHT,
        seed: int | None = None,
        rows: I8 | None = None,
        field_known: bool | None = None,
    ) -> Photographs:
        # Views that no threshold finds are left out; the number of the view takes the group's place on the way, so
        # that each crop can be told from the others.
        numbered = replace(store, group=np.arange(len(store)))
        crops = simulated_crops(
            numbered,
            classes=self.labels,
            geometry=self._geometry,
            seed=self._seed if seed is None else seed,
            rows=rows,
            ranges=ranges,
            margin_px=self._geometry.margin_px,
            field_known=self._field_known if field_known is None else field_known,
        )
        row = np.asarray(crops.group, np.int64)
        return Photographs(crops=replace(crops, group=store.group[row]), row=row, z_um=store.z_um[row])

    def photographs(self) -> Photographs:
        """All views, each photographed once."""
        return self._take(self._store)

    def without_place(self) -> Photographs:
        """The same photographs with the place in the frame not told."""
        return self._take(self._store, field_known=False)

    def _some(self) -> I8:
        n = len(self._store)
        if n <= SWEEP_VIEWS:
            return np.arange(n)
        return np.sort(np.random.default_rng(5).choice(n, SWEEP_VIEWS, replace=False))

    def repeats(self, times: int) -> tuple[list[Photographs], str]:
        """One camera, one run: only noise, sub-pixel place and the detection threshold differ."""
        ranges = ExposureRanges(
            noise=(0.009, 0.009),
            blur_px=(0.5, 0.5),
            gain=(1.0, 1.0),
            background_level=(211.0, 211.0),
            scale=(1.0, 1.0),
            other_fragment_share=0.0,
        )
        rows = self._some()
        taken = []
        for k in range(times):
            rng = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(77, k)))
            moved = _moved(self._store, rows, rng)
            taken.append(self._take(moved, ranges=ranges, seed=1000 + 31 * k + self._seed, rows=rows))
        return taken, "noise, place within a pixel, and detection threshold drawn anew; camera and optics as they were"

    def sweeps(self) -> list[Sweep]:
        """Camera conditions, and those that were rendered."""
        rows = self._some()

        def camera(field: str, scale: Callable[[float], float] = float) -> Callable[[float], Photographs]:
            def take(value: float) -> Photographs:
                set_to: dict[str, Any] = {field: (scale(value), scale(value))}
                return self._take(self._store, ranges=replace(ExposureRanges(), **set_to), rows=rows)

            return take

        found = [
            Sweep(
                name="noise",
                unit="% of background",
                values=(0.2, 0.5, 0.9, 1.4, 2.0, 2.8, 3.5),
                nominal=0.9,
                take=camera("noise", lambda v: v / 100),
                note="taught: 0.4 to 1.4",
            ),
            Sweep(
                name="blur",
                unit="px, standard deviation",
                values=(0.2, 0.5, 0.9, 1.2, 1.6, 2.0),
                nominal=0.5,
                take=camera("blur_px"),
                note="taught: 0.2 to 0.9",
            ),
            Sweep(
                name="contrast",
                unit="gain",
                values=(0.5, 0.65, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5),
                nominal=1.0,
                take=camera("gain"),
                note="taught: 0.75 to 1.15",
            ),
            Sweep(
                name="pixel size",
                unit="% off",
                values=(-15.0, -10.0, -5.0, 0.0, 5.0, 10.0, 15.0),
                nominal=0.0,
                # A larger pixel shows the particle on fewer of them.
                take=camera("scale", lambda v: 1 / (1 + v / 100)),
                note="\N{MICRO SIGN}m per px off by this much without the classifier knowing; taught: 5",
            ),
            Sweep(
                name="shading",
                unit="% across the picture",
                values=(0.0, 0.6, 1.2, 2.5, 4.0, 6.0),
                nominal=0.6,
                take=camera("tilt_of_background", lambda v: v / 100),
                note="slope of the background that division leaves; taught: up to 1.2",
            ),
        ]
        for name, unit, note, nominal, stores in self._optics:
            found.append(
                Sweep(
                    name=name,
                    unit=unit,
                    values=tuple(stores),
                    nominal=nominal,
                    take=lambda value, stores=stores: self._take(stores[value]),  # type: ignore[misc]
                    note=note,
                )
            )
        return found


def _moved(store: ViewStore, rows: I8, rng: np.random.Generator) -> ViewStore:
    """Views shifted by up to half a pixel each way."""
    pixels = store.pixels.copy()
    for i in rows.tolist():
        picture = store.picture(i).astype(np.float32)
        shift = np.array([[1, 0, rng.uniform(-0.5, 0.5)], [0, 1, rng.uniform(-0.5, 0.5)]], np.float32)
        size = picture.shape[::-1]
        moved = cv2.warpAffine(picture, shift, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        pixels[store.start[i] : store.start[i] + picture.size] = moved.astype(np.float16).ravel()
    return replace(store, pixels=pixels)


class FolderSource:
    """A lab's own labelled pictures.

    Parameters
    ----------
    pictures : LabelledPictures
    geometry : CropGeometry
    name : str
    seed : int
    """

    def __init__(self, pictures: LabelledPictures, *, geometry: CropGeometry, name: str, seed: int = 21) -> None:
        self.name, self.labels = name, pictures.classes
        self._pictures, self._geometry, self._seed = pictures, geometry, seed

    def _of(self, pictures: LabelledPictures, crops: LabelledCrops | None = None) -> Photographs:
        cut = pictures.crops(self._geometry) if crops is None else crops
        return Photographs(crops=cut, row=np.arange(len(cut)), z_um=np.full(len(cut), np.nan, np.float32))

    def photographs(self) -> Photographs:
        """All pictures."""
        return self._of(self._pictures)

    def repeats(self, times: int) -> tuple[list[Photographs], str]:
        """What a change of run brings."""
        taken = []
        for k in range(times):
            rng = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(77, k)))
            taken.append(self._of(self._pictures, self._pictures.varied_crops(self._geometry, rng)))
        return taken, "level, contrast, scale, a little blur and noise drawn anew, as a change of run brings them"

    def _changed(self, change: Callable[[npt.NDArray[np.uint8], int], npt.NDArray[np.uint8]]) -> Photographs:
        """Crops of pictures divided by their level and then changed."""
        p = self._pictures
        ratios = [
            change(divide_by_level(picture, level), i)
            for i, (picture, level) in enumerate(zip(p.pictures, p.level.tolist(), strict=True))
        ]
        flat = replace(p, pictures=ratios, level=np.full(len(p), RATIO_ONE, np.float32))
        return self._of(flat)

    def sweeps(self) -> list[Sweep]:
        """Conditions of the camera; optics and liquid cannot be changed after the fact."""

        def noisy(value: float) -> Photographs:
            def change(ratio: npt.NDArray[np.uint8], i: int) -> npt.NDArray[np.uint8]:
                rng = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(5, i)))
                noise = (value / 100) * np.sqrt(RATIO_ONE * ratio.astype(np.float32))
                return _codes(ratio + noise * rng.standard_normal(ratio.shape, dtype=np.float32))

            return self._changed(change)

        def shaded(value: float) -> Photographs:
            def change(ratio: npt.NDArray[np.uint8], i: int) -> npt.NDArray[np.uint8]:
                angle = 2.39996 * i  # a direction for each picture, evenly spread
                y, x = np.mgrid[0 : ratio.shape[0], 0 : ratio.shape[1]]
                ramp = np.cos(angle) * (x / ratio.shape[1] - 0.5) + np.sin(angle) * (y / ratio.shape[0] - 0.5)
                return _codes(ratio * (1 + value / 100 * ramp))

            return self._changed(change)

        def scaled(value: float) -> Photographs:
            def change(ratio: npt.NDArray[np.uint8], i: int) -> npt.NDArray[np.uint8]:
                factor = 1 / (1 + value / 100)
                size = max(5, round(ratio.shape[1] * factor)), max(5, round(ratio.shape[0] * factor))
                method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
                return np.asarray(cv2.resize(ratio, size, interpolation=method), np.uint8)

            return self._changed(change)

        def level_off(value: float) -> Photographs:
            return self._of(replace(self._pictures, level=self._pictures.level * np.float32(1 + value / 100)))

        return [
            Sweep(
                name="noise",
                unit="% of background, added",
                values=(0.0, 0.5, 1.0, 1.5, 2.0, 3.0),
                nominal=0.0,
                take=noisy,
            ),
            Sweep(
                name="pixel size",
                unit="% off",
                values=(-15.0, -10.0, -5.0, 0.0, 5.0, 10.0, 15.0),
                nominal=0.0,
                take=scaled,
                note="\N{MICRO SIGN}m per px off by this much without the classifier knowing",
            ),
            Sweep(
                name="shading",
                unit="% across the picture",
                values=(0.0, 1.2, 2.5, 4.0, 6.0),
                nominal=0.0,
                take=shaded,
            ),
            Sweep(
                name="background level",
                unit="% off",
                values=(-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0),
                nominal=0.0,
                take=level_off,
                note="error of the level by which the pictures are divided",
            ),
        ]


def _codes(values: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def strangers(pictures: Sequence[npt.NDArray[np.uint8]], *, geometry: CropGeometry, um_per_px: float) -> Photographs:
    """Pictures of particles that are none of the classes, label -1, each a group of its own."""
    n = len(pictures)
    labelled = LabelledPictures(
        pictures=list(pictures),
        files=[""] * n,
        label=np.full(n, -1, np.int64),
        group=np.arange(n).astype(str),
        level=background_levels(list(pictures)),
        classes=(),
        um_per_px=um_per_px,
    )
    return FolderSource(labelled, geometry=geometry, name="unknown").photographs()
