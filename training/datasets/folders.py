"""A folder per class and a file that says what belongs together: a lab's own labelled pictures."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edge_app.capture.crops import iterate_crops
from edge_app.capture.problems import Problems
from edge_app.classification.crops import CropGeometry, Crops, cut_crops
from edge_app.classification.tight_crops import background_levels, crops_of_pictures, divide_by_level
from edge_app.errors import UserError
from training.datasets.labelled import LabelledCrops

__all__ = ["LabelledPictures", "read_folders"]


@dataclass(frozen=True)
class LabelledPictures:
    """Pictures as they were read, with class, group and background level of each."""

    pictures: list[npt.NDArray[np.uint8]]
    files: list[str]
    label: npt.NDArray[np.int64]
    group: npt.NDArray[np.str_]
    level: npt.NDArray[np.float32]
    classes: tuple[str, ...]
    um_per_px: float

    def __len__(self) -> int:
        return len(self.pictures)

    def take(self, rows: npt.NDArray[np.int64]) -> LabelledPictures:
        """Keep some."""
        return LabelledPictures(
            pictures=[self.pictures[i] for i in rows.tolist()],
            files=[self.files[i] for i in rows.tolist()],
            label=self.label[rows],
            group=self.group[rows],
            level=self.level[rows],
            classes=self.classes,
            um_per_px=self.um_per_px,
        )

    def crops(self, geometry: CropGeometry) -> LabelledCrops:
        """As the device would see them."""
        cut = crops_of_pictures(self.pictures, geometry=geometry, um_per_px=self.um_per_px, levels=self.level)
        return self._labelled(cut, geometry)

    def varied_crops(self, geometry: CropGeometry, rng: np.random.Generator) -> LabelledCrops:
        """With the errors that a change of run brings: level, contrast, scale, a little blur and noise."""
        own_box = geometry.model_copy(update={"margin_px": 0})
        zero = np.zeros(1, np.int64)
        parts = []
        for picture, level in zip(self.pictures, self.level.tolist(), strict=True):
            ratio = divide_by_level(picture, level * (1 + float(np.clip(rng.normal(0, 0.008), -0.02, 0.02))))
            image: npt.NDArray[np.float32] = 160 + np.float32(rng.uniform(0.85, 1.15)) * (
                ratio.astype(np.float32) - 160
            )
            factor = rng.uniform(0.94, 1.06)
            size = max(5, round(image.shape[1] * factor)), max(5, round(image.shape[0] * factor))
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.float32)
            if rng.random() < 0.3:
                image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.2, 0.6)), np.float32)
            image = image + np.float32(160 * rng.uniform(0, 0.008)) * rng.standard_normal(image.shape, dtype=np.float32)
            varied = np.clip(np.rint(image), 0, 255).astype(np.uint8)
            parts.append(
                cut_crops(
                    varied,
                    zero,
                    zero,
                    zero + size[0],
                    zero + size[1],
                    geometry=own_box,
                    um_per_px=self.um_per_px,
                )
            )
        return self._labelled(Crops.concatenate(parts), geometry)

    def _labelled(self, crops: Crops, geometry: CropGeometry) -> LabelledCrops:
        unknown = np.full(len(self), np.nan, np.float32)
        longest = np.array([max(p.shape) for p in self.pictures], np.float32)
        return LabelledCrops(
            pixels=crops.pixels,
            context=crops.context,
            label=self.label,
            group=self.group,
            box_px=longest * np.float32(self.um_per_px / geometry.um_per_px),
            ecd_um=unknown,
            field_radius=unknown,
            depth_um=unknown,
            um_per_px=crops.um_per_px,
        )


def _read_groups(path: Path) -> dict[str, str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            if "file" not in columns or "group" not in columns:
                raise UserError(f"{path}: columns are {', '.join(columns) or 'none'}, needed are file, group")
            groups: dict[str, str] = {}
            for row in reader:
                name, group = (row["file"] or "").strip().replace("\\", "/"), (row["group"] or "").strip()
                if not name or not group:
                    raise UserError(f"{path}: line {reader.line_num}: file or group is empty")
                if groups.setdefault(name, group) != group:
                    raise UserError(
                        f"{path}: line {reader.line_num}: {name} is in group {groups[name]} and in group {group}; "
                        "a picture has one group, as a group stands on one side of the split"
                    )
            return groups
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a CSV file in UTF-8 ({error})") from None


def read_folders(directory: Path, groups: Path, *, um_per_px: float) -> LabelledPictures:
    """Read labelled pictures.

    Parameters
    ----------
    directory : Path
        One folder per class, named for it; pictures of 8 or 16 bit, grey or colour, at least 5 x 5 px.
    groups : Path
        CSV with columns ``file`` (path below ``directory``, or the bare file name where that is unique) and ``group``
        (run, lot or source image: what must not stand on both sides of a split).
    um_per_px : float
        Scale of the pictures.

    Returns
    -------
    LabelledPictures
        In order of the paths.

    Raises
    ------
    UserError
        Fewer than two classes, an empty class, an unreadable picture, a picture without a group or with two.
    """
    if not directory.is_dir():
        raise UserError(f"{directory}: no such folder; needed is a folder with one folder per class")
    classes = tuple(sorted(p.name for p in directory.iterdir() if p.is_dir() and not p.name.startswith(".")))
    if len(classes) < 2:
        raise UserError(f"{directory}: {len(classes)} class folder, at least 2 are needed")
    if "unknown" in classes:
        raise UserError(f"{directory / 'unknown'}: unknown is what is rejected, no class; leave this folder out")
    table = _read_groups(groups)
    pictures: list[npt.NDArray[np.uint8]] = []
    files: list[str] = []
    label: list[int] = []
    for c, name in enumerate(classes):
        problems = Problems()
        before = len(files)
        for crop in iterate_crops(directory / name, problems=problems):
            pictures.append(crop.image)
            files.append(f"{name}/{crop.path_below}")
            label.append(c)
        if problems.counts:
            # On the bench a bad picture is counted and the run goes on; a training set is to be whole.
            raise UserError(problems.messages[0].splitlines()[0])
        if len(files) == before:
            raise UserError(f"{directory / name}: no picture in this class folder")
    bare: dict[str, list[str]] = {}
    for file in files:
        bare.setdefault(file.rsplit("/", 1)[-1], []).append(file)
    group = []
    for file in files:
        last = file.rsplit("/", 1)[-1]
        found = table.get(file, table.get(last) if len(bare[last]) == 1 else None)
        if found is None:
            raise UserError(f"{groups}: no group for {file}; every picture needs one")
        group.append(found)
    # A class has its own halo: levels are pooled by group only, so that brightness cannot tell the class.
    return LabelledPictures(
        pictures=pictures,
        files=files,
        label=np.array(label, np.int64),
        group=np.array(group),
        level=background_levels(pictures, groups=group),
        classes=classes,
        um_per_px=um_per_px,
    )
