"""Which pictures a report shows, where each was cut and what it entered."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from edge_app.measurement.histogram import REPORTING_EDGES_UM
from edge_app.recording.particle_columns import RecordedParticles
from edge_app.recording.pictures import UNKNOWN
from edge_app.recording.record_reader import Record, RecordedPicture
from edge_app.reporting.number_text import class_text
from edge_app.reporting.particle_list import bin_of

__all__ = ["Gallery", "PictureEntry", "ShownPicture", "galleries", "register"]

PER_GALLERY: Final = 20
_TILE_PX: Final = 84.0
_MOST_ZOOM: Final = 4.0
_BAR_UM: Final = 10.0


@dataclass(frozen=True, kw_only=True)
class ShownPicture:
    """A picture in its tile; lengths are shares of the tile's side, in percent.

    Attributes
    ----------
    anchor
        Id of the figure, empty where the same picture stands in an earlier gallery.
    row
        Id of its row in the register.
    bar_percent
        Length of 10 um.
    """

    anchor: str
    row: str
    particle_id: str
    class_name: str
    ecd_um: float
    confidence: float
    frame: int
    data_uri: str
    width_percent: float
    height_percent: float
    bar_percent: float


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Pictures under one heading; ``class_name`` is empty for one that mixes classes."""

    title: str
    note: str
    class_name: str
    pictures: tuple[ShownPicture, ...]


@dataclass(frozen=True, kw_only=True)
class PictureEntry:
    """A row of the register: the particle of a picture, and every number that it entered."""

    row: str
    anchor: str
    particle_id: str
    class_name: str
    confidence: float
    ecd_um: float
    max_feret_um: float
    aspect_ratio: float
    frame: int
    time_s: float
    x_px: int
    y_px: int
    width_px: int
    height_px: int
    weight: float
    bin: int
    reached_um: float | None


def _shown(picture: RecordedPicture, *, key: str, um_per_px: float, seen: set[str]) -> ShownPicture:
    longest = max(picture.width_px, picture.height_px, 1)
    bar_px = _BAR_UM / um_per_px
    zoom = min(_MOST_ZOOM, 0.97 * _TILE_PX / longest, 0.7 * _TILE_PX / bar_px)
    percent = 100.0 * zoom / _TILE_PX
    name = picture.particle_id
    first = name not in seen
    seen.add(name)
    return ShownPicture(
        anchor=f"{key}-g-{name}" if first else "",
        row=f"{key}-p-{name}",
        particle_id=name,
        class_name=picture.class_name,
        ecd_um=picture.ecd_um,
        confidence=picture.confidence,
        frame=picture.frame,
        data_uri="data:image/png;base64," + base64.b64encode(picture.png).decode(),
        width_percent=picture.width_px * percent,
        height_percent=picture.height_px * percent,
        bar_percent=bar_px * percent,
    )


def galleries(record: Record, *, key: str, um_per_px: float, per_gallery: int = PER_GALLERY) -> tuple[Gallery, ...]:
    """The largest and the least certain of each class, the largest unknown; empty ones are left out.

    Where the largest of a class are all that were kept of it, they are not shown a second time.

    Parameters
    ----------
    key
        Prefix of ids, one per run of a report.
    um_per_px
        For the scale bar.
    per_gallery
        Most pictures of each.
    """
    wanted: list[tuple[str, str, str, list[RecordedPicture]]] = []
    for name in record.classes:
        if name == UNKNOWN:
            continue
        largest = record.pictures("largest", class_name=name, limit=per_gallery)
        doubtful = record.pictures("least_certain", class_name=name, limit=per_gallery)
        if {p.particle_id for p in doubtful} <= {p.particle_id for p in largest}:
            wanted.append((class_text(name), "by falling size: all pictures of this class", name, largest))
        else:
            wanted.append((f"{class_text(name)}, largest", "by falling size", name, largest))
            wanted.append((f"{class_text(name)}, least certain", "by rising confidence", name, doubtful))
    unknown = record.pictures("largest", class_name=UNKNOWN, limit=per_gallery) if UNKNOWN in record.classes else []
    wanted.append(("unknown, largest", "not assigned by the classifier", UNKNOWN, unknown))
    seen: set[str] = set()
    return tuple(
        Gallery(
            title=title,
            note=note,
            class_name=name,
            pictures=tuple(_shown(p, key=key, um_per_px=um_per_px, seen=seen) for p in pictures),
        )
        for title, note, name, pictures in wanted
        if pictures
    )


def register(
    shown: Sequence[Gallery], particles: RecordedParticles, *, edges_um: Sequence[float]
) -> tuple[PictureEntry, ...]:
    """One row per picture shown, by window and row.

    Parameters
    ----------
    particles
        All particles of the record.
    edges_um
        Bins of its histogram.
    """
    pictures = {p.particle_id: p for g in shown for p in g.pictures if p.anchor}
    place = (particles.window.astype(np.int64) << 32) | particles.row
    order = np.argsort(place, kind="stable")
    entries: list[tuple[int, PictureEntry]] = []
    for name, picture in pictures.items():
        window, row = map(int, name.split("-"))
        i = int(order[np.searchsorted(place, (window << 32) | row, sorter=order)])
        p = particles.particles
        reached = [s for s in REPORTING_EDGES_UM if np.float32(p.ecd_um[i]) >= np.float32(s)]
        entry = PictureEntry(
            row=picture.row,
            anchor=picture.anchor,
            particle_id=name,
            class_name=picture.class_name,
            confidence=picture.confidence,
            ecd_um=float(p.ecd_um[i]),
            max_feret_um=float(p.max_feret_um[i]),
            aspect_ratio=float(p.aspect_ratio[i]),
            frame=int(p.frame[i]),
            time_s=float(p.time_s[i]),
            x_px=int(p.x_px[i]),
            y_px=int(p.y_px[i]),
            width_px=int(p.width_px[i]),
            height_px=int(p.height_px[i]),
            weight=float(p.weight[i]),
            bin=int(bin_of(p.ecd_um[i : i + 1], edges_um)[0]),
            reached_um=reached[-1] if reached else None,
        )
        entries.append((int(place[i]), entry))
    return tuple(entry for _, entry in sorted(entries, key=lambda e: e[0]))
