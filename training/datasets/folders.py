"""A folder per class and something that says what belongs together: a lab's own labelled pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from edge_app.capture.crops import MIN_SIDE_PX
from edge_app.capture.image_files import (
    IMAGE_SUFFIXES,
    GreyScaling,
    ImageFileError,
    Picture,
    is_left_out,
    list_images,
    read_pictures,
)
from edge_app.capture.picture_structure import KINDS
from edge_app.classification.tight_crops import background_levels, dark_backgrounds
from edge_app.errors import UserError
from training.datasets.groups import GroupRule
from training.datasets.pictures import LabelledPictures

__all__ = ["MAX_SIDE_PX", "LabelledPictures", "read_folders"]

#: A whole frame in a class folder is a mistake; the largest particles of a flow cell are a few hundred pixels long.
MAX_SIDE_PX: Final = 1000
#: A folder that leaves as many bits unused has another depth than the set: at most a grey level of 16 would be left.
_UNUSED_BITS: Final = 4


def read_folders(
    directory: Path, groups: Path | GroupRule, *, um_per_px: float, bits: int | None = None
) -> LabelledPictures:
    """Read labelled pictures.

    Parameters
    ----------
    directory : Path
        One folder per class, named for it; pictures of 8 or 16 bit, grey or colour, 5 to 1000 px a side, of any
        instrument, with margin or without. Other files are counted and left alone, hidden ones not even that.
    groups : Path or GroupRule
        CSV with columns ``file`` (path below ``directory``, a longer path that ends so, or the bare file name where
        that is unique) and ``group`` (run, lot or source image: what must not stand on both sides of a split), or
        where else the group is from.
    um_per_px : float
        Scale of the pictures.
    bits : int, optional
        Bits in use in 16-bit files; default: found from the brightest pixel of all of them, so that it is the same
        for every class.

    Returns
    -------
    LabelledPictures
        In order of the paths.

    Raises
    ------
    UserError
        Fewer than two classes, an empty class, an unreadable picture, one that is too small or too large, a picture
        without a group or with two.
    """
    rule = groups if isinstance(groups, GroupRule) else GroupRule(table=groups)
    if not directory.is_dir():
        found = "is a file" if directory.exists() else "no such folder"
        raise UserError(f"{directory}: {found}; needed is a folder with one folder per class")
    try:
        classes = tuple(sorted(p.name for p in directory.iterdir() if p.is_dir() and not is_left_out(p.name)))
    except OSError as error:
        raise UserError(f"{directory}: cannot be read ({error.strerror})") from None
    if len(classes) < 2:
        raise UserError(f"{directory}: {len(classes)} class folder, at least 2 are needed")
    if "unknown" in classes:
        raise UserError(f"{directory / 'unknown'}: unknown is what is rejected, no class; leave this folder out")
    notes = Counter[str]()
    _count_others(directory, classes, notes)
    raw: list[Picture] = []
    files: list[str] = []
    label: list[int] = []
    problems: list[str] = []
    for c, name in enumerate(classes):
        try:
            paths = list_images(directory / name, recursive=True)
        except OSError as error:
            raise UserError(f"{error.filename or directory / name}: cannot be read ({error.strerror})") from None
        if not paths:
            raise UserError(f"{directory / name}: no picture in this class folder ({KINDS})")
        for path in paths:
            pages, problem = _read(path)
            if problem is not None:
                problems.append(f"{path}: {problem}")
                continue
            below = path.relative_to(directory).as_posix()
            files += [below if k == 0 else f"{below} page {k + 1}" for k in range(len(pages))]
            raw += pages
            label += [c] * len(pages)
    if problems:
        # On the bench a bad picture is counted and the run goes on; a training set is to be whole.
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(problems[0] + more)
    scaling = GreyScaling(bits=bits)
    scaling.decide(raw)
    _refuse_mixed_depths(directory, files, raw, scaling)
    pictures = []
    for file, picture in zip(files, raw, strict=True):
        try:
            pictures.append(scaling.to_uint8(picture))
        except ImageFileError as error:
            raise UserError(f"{directory / file}: {error.text}") from None
    found_groups = rule.groups_of(files)
    for group, level in dark_backgrounds(pictures, groups=found_groups.group.tolist()).items():
        raise UserError(
            f"{directory}: the pictures of group {group} have a dark background (grey level {level:.0f} of 255), "
            "bright-field pictures are needed (20 or more)"
        )
    notes["entries of the groups file without a picture"] += found_groups.without_picture
    notes["repeated entries of the groups file"] += found_groups.repeated
    # A class has its own halo: levels are pooled by group only, so that brightness cannot tell the class.
    return LabelledPictures(
        pictures=pictures,
        files=files,
        label=np.array(label, np.int64),
        group=found_groups.group,
        level=background_levels(pictures, groups=found_groups.group.tolist()),
        classes=classes,
        um_per_px=um_per_px,
        notes={reason: count for reason, count in notes.items() if count},
    )


def _refuse_mixed_depths(
    directory: Path, files: Sequence[str], pictures: Sequence[Picture], scaling: GreyScaling
) -> None:
    """Refuse a folder whose 16-bit pictures leave the upper bits of the set's depth unused: they would turn black.

    The depth is one for the whole set, as it must not tell the class, so a set cannot hold two.
    """
    brightest: dict[str, int] = {}
    for file, picture in zip(files, pictures, strict=True):
        if picture.dtype == np.uint16:
            folder = file.rpartition("/")[0]
            brightest[folder] = max(brightest.get(folder, 0), int(picture.max()))
    bits = scaling.bits or 8
    for folder, value in brightest.items():
        if value < 1 << (bits - _UNUSED_BITS):
            raise UserError(
                f"{directory / folder}: brightest pixel is {value}, other pictures of the set use {bits} bits; "
                "a set has one bit depth, convert one of the two"
            )


def _read(path: Path) -> tuple[list[Picture], str | None]:
    """Pages of a file, or why it cannot be used."""
    pages: list[Picture] = []
    try:
        for page in read_pictures(path):
            height, width = page.shape
            if min(height, width) < MIN_SIDE_PX or max(height, width) > MAX_SIDE_PX:
                too = "small" if min(height, width) < MIN_SIDE_PX else "large"
                allowed = f"a particle picture has {MIN_SIDE_PX} to {MAX_SIDE_PX} px a side"
                return [], f"too {too}, {width} x {height} px; {allowed}"
            pages.append(page)
    except ImageFileError as error:
        return [], error.text
    return pages, None


def _count_others(directory: Path, classes: tuple[str, ...], notes: Counter[str]) -> None:
    for path in directory.rglob("*"):
        below = path.relative_to(directory)
        if any(is_left_out(part) for part in below.parts) or not path.is_file():
            continue
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            notes["files that are no pictures"] += len(below.parts) > 1
        elif len(below.parts) == 1:
            notes["pictures in no class folder"] += 1
