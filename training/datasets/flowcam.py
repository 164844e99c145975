"""FlowCam exports with hand labels: every run is a group, the crop is divided by the run's own background."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_app.capture.crops import MIN_SIDE_PX
from edge_app.capture.flowcam.export import find_table
from edge_app.capture.flowcam.source import FlowCamSource, open_flowcam
from edge_app.capture.frame import RATIO_ONE
from edge_app.capture.image_files import list_images
from edge_app.capture.particle_table import parse_number
from edge_app.classification.context import field_positions
from edge_app.errors import UserError
from training.datasets.pictures import LabelledPictures
from training.datasets.tables import read_columns

__all__ = ["read_flowcam"]


def _is_export(directory: Path) -> bool:
    return directory.is_dir() and bool(find_table(directory)) and bool(list_images(directory))


def _exports(paths: Sequence[Path]) -> list[Path]:
    """Folders of exports; a folder that holds several is opened to them."""
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            raise UserError(f"flowcam:{path}: {'is a file' if path.exists() else 'no such folder'}")
        below = sorted(p for p in path.iterdir() if _is_export(p))
        found += [path] if _is_export(path) or not below else below
    names = Counter(p.resolve().name for p in found)
    twice = next((name for name, times in names.items() if times > 1), None)
    if twice is not None:
        raise UserError(f"flowcam: two exports are called {twice}; the folder's name is the run, give them other names")
    return found


def _find_labels(exports: Sequence[Path]) -> Path:
    for folder in dict.fromkeys(q for p in exports for q in (p, p.resolve().parent)):
        if (folder / "labels.csv").is_file():
            return folder / "labels.csv"
    raise UserError(
        f"flowcam:{exports[0]}: no labels.csv in it or beside it; name one with ?labels=FILE (columns run, id, label)"
    )


def _read_labels(path: Path, runs: Sequence[str]) -> dict[tuple[str, int], str]:
    columns, entries = read_columns(path, ("run", "id", "label"), ("id", "label"))
    if len(columns) == 2:
        if len(runs) > 1:
            raise UserError(f"{path}: no column run, needed for {len(runs)} exports")
        entries = [(runs[0], *entry) for entry in entries]
    labels: dict[tuple[str, int], str] = {}
    for number, (run, identity, label) in enumerate(entries, start=1):
        value = parse_number(identity)
        if not np.isfinite(value) or value != int(value):
            raise UserError(f"{path}: entry {number}: id is {identity}, must be a whole number")
        if labels.setdefault((run, int(value)), label) != label:
            raise UserError(
                f"{path}: entry {number}: particle {identity} of {run} is {labels[run, int(value)]} and {label}; "
                "a particle has one label"
            )
    return labels


def _in_case_of(table: dict[tuple[str, int], str], runs: Sequence[str]) -> dict[tuple[str, int], str]:
    """The labels by the folders' own names, where only upper and lower case differ and no two folders are meant."""
    folded = Counter(run.casefold() for run in runs)
    own = {run.casefold(): run for run in runs if folded[run.casefold()] == 1}
    return {(own.get(run.casefold(), run), identity): label for (run, identity), label in table.items()}


def read_flowcam(
    paths: Sequence[Path],
    *,
    labels: Path | None = None,
    classes: Sequence[str] | None = None,
    um_per_px: float | None = None,
) -> LabelledPictures:
    """Read labelled particles of FlowCam exports.

    Parameters
    ----------
    paths : sequence of Path
        Folders of exports, or folders that hold several. A run is named for its folder and is a group.
    labels : Path, optional
        CSV with ``run, id, label`` (``id, label`` will do for one export); default ``labels.csv`` in the export or
        beside it. ``id`` is the instrument's own particle number.
    classes : sequence of str, optional
        Labels to keep, in this order; default: all, by name.
    um_per_px : float, optional
        Default: as the export says.

    Returns
    -------
    LabelledPictures
        In order of the runs and of their frames. The level of every picture is 160: they are divided by the
        background of their own place, as frames are on the device.

    Raises
    ------
    UserError
        No export or no labels there, a label that is asked for and never given, fewer than two classes, two scales.
    """
    exports = _exports(paths)
    runs = [p.resolve().name for p in exports]
    table_path = labels if labels is not None else _find_labels(exports)
    table = _read_labels(table_path, runs)
    table = _in_case_of(table, runs)
    present = {label for (run, _), label in table.items() if run in runs}
    if not present:
        known = ", ".join(sorted({run for run, _ in table}))
        raise UserError(f"{table_path}: labels are of run {known}, the data are {', '.join(runs)}")
    wanted = tuple(classes) if classes is not None else tuple(sorted(present))
    strange = [name for name in wanted if name not in present]
    if strange:
        raise UserError(f"{table_path}: no particle is labelled {strange[0]}, found are {', '.join(sorted(present))}")
    if len(set(wanted)) < 2:
        raise UserError(f"{table_path}: {len(set(wanted))} class ({', '.join(wanted)}), at least 2 are needed")
    notes = Counter[str]()
    pictures: list[npt.NDArray[np.uint8]] = []
    files: list[str] = []
    label: list[int] = []
    group: list[str] = []
    place: list[npt.NDArray[np.float32]] = []
    scales: dict[str, float] = {}
    for export, run in zip(exports, runs, strict=True):
        source = open_flowcam(f"flowcam:{export}")
        scale = um_per_px if um_per_px is not None else source.info.um_per_px
        if scale is None:
            raise UserError(f"flowcam:{export}: the export does not say its scale; give --um-per-px")
        scales[run] = scale
        particles = _particles(source, notes)
        times = _times_of_numbers(source)
        for identity, ratio, position in particles:
            if identity is None or times[identity] > 1:
                notes["particles without a number of their own"] += 1
                continue
            name = table.get((run, identity))
            if name is None or name not in wanted:
                notes["particles without a label" if name is None else f"particles labelled {name}"] += 1
                continue
            pictures.append(ratio)
            files.append(f"{name}/{run} particle {identity}")
            label.append(wanted.index(name))
            group.append(run)
            place.append(position)
        notes.update({f"{run}: {reason}": count for reason, count in source.problems.items()})
    low, high = min(scales, key=scales.__getitem__), max(scales, key=scales.__getitem__)
    if scales[high] > 1.001 * scales[low]:
        raise UserError(
            f"flowcam: {low} has {scales[low]:g} um/px and {high} {scales[high]:g}; one data set has one scale"
        )
    empty = [name for c, name in enumerate(wanted) if c not in set(label)]
    if empty:
        raise UserError(f"{table_path}: no particle of class {empty[0]} is in {', '.join(runs)}")
    return LabelledPictures(
        pictures=pictures,
        files=files,
        label=np.array(label, np.int64),
        group=np.array(group),
        level=np.full(len(pictures), RATIO_ONE, np.float32),
        classes=wanted,
        um_per_px=scales[low],
        place=np.concatenate(place).astype(np.float32),
        notes=dict(notes),
    )


def _times_of_numbers(source: FlowCamSource) -> Counter[int]:
    """How many particles of the table have a number, those of lost frames too: one of two is no one's own."""
    numbers = source.table.columns.get("id")
    if numbers is None or numbers.dtype.kind not in "if":
        return Counter()
    return Counter(whole for whole in map(_whole, numbers.tolist()) if whole is not None)


def _whole(number: float) -> int | None:
    return int(number) if np.isfinite(number) and number == int(number) else None


def _particles(
    source: FlowCamSource, notes: Counter[str]
) -> list[tuple[int | None, npt.NDArray[np.uint8], npt.NDArray[np.float32]]]:
    """Number, ratio picture and place (1, 2) of each particle whose crop lies in its frame; others go to ``notes``."""
    found = []
    delivered = 0
    for frame in source.frames():
        assert frame.companion is not None
        columns = frame.companion.columns
        identity = columns["id"] if "id" in columns else np.asarray(columns["row"]) + 1
        if identity.dtype.kind not in "if":
            raise UserError(
                f"{source.table.path}: particle numbers (id) are text, the first is {identity[0]}; whole numbers are "
                "needed to find the labels"
            )
        delivered += len(identity)
        # A run may have taken several backgrounds, the lamp having changed between them.
        background = source.background_behind(int(np.asarray(columns["row"])[0]))
        scale = np.float32(RATIO_ONE) / np.maximum(background.astype(np.float32), 1)
        boxes = zip(*(columns[k].tolist() for k in ("src_x", "src_y", "image_w", "image_h")), strict=True)
        for number, (x, y, width, height) in zip(identity.tolist(), boxes, strict=True):
            # An end before the frame must not be counted from its other side.
            there = slice(max(y, 0), max(y + height, 0)), slice(max(x, 0), max(x + width, 0))
            cut = frame.image[there]
            if min(cut.shape) < MIN_SIDE_PX:
                notes[f"particles with less than {MIN_SIDE_PX} px in the frame"] += 1
                continue
            ratio = np.clip(np.rint(cut * scale[there]), 0, 255).astype(np.uint8)
            one = [np.array([v]) for v in (x, y, width, height)]
            found.append((_whole(number), ratio, field_positions(*one, frame_shape=frame.image.shape)))
    if delivered < len(source.table):
        notes["particles of frames that are lost"] += len(source.table) - delivered
    return found
