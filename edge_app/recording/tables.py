"""The tables that a record offers to others: columns with their formula, rows in chunks.

Nothing in them depends on the wall clock or on the run's name: same frames, settings and model, same rows.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from edge_app.measurement.tracks import TrackRule
from edge_app.measurement.window import REJECTION_REASONS, per_ml
from edge_app.recording.particle_columns import RecordedParticles
from edge_app.recording.record_reader import Record
from edge_app.recording.track_table import TRACK_DOCS, read_tracks
from edge_app.segmentation.particles import COLUMN_DOCS

__all__ = ["Chunk", "Table", "TableName", "open_table"]

TableName = Literal["particles", "windows", "histogram", "tracks"]
Chunk = dict[str, npt.NDArray[Any]]

PARTICLE_COLUMNS: Final[tuple[str, ...]] = (
    "frame", "x_px", "y_px", "width_px", "height_px", "area_px", "ecd_um", "max_feret_um", "min_feret_um",
    "perimeter_um", "aspect_ratio", "circularity", "solidity", "intensity_mean", "intensity_min", "intensity_max",
    "intensity_std", "edge_gradient", "border", "weight", "class", "confidence",
    "time_s", "centroid_x_px", "centroid_y_px", "half_max_area_px", "window", "row", "learned_ecd_px",
)  # fmt: skip
"""Order of the exported columns; probabilities come after them."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table to be written.

    Attributes
    ----------
    schema
        Name and version of its columns.
    docs
        Column -> meaning, unit and formula, in order.
    provenance
        What the numbers were made with: pipeline, model, calibration, frames.
    chunks
        Rows, a mapping of equally long columns at a time; may be none.
    """

    schema: str
    docs: Mapping[str, str]
    provenance: Mapping[str, str]
    chunks: Iterator[Chunk]

    def empty(self, name: str) -> npt.NDArray[Any]:
        """A column of length 0 and the right type, for a table without rows."""
        by_kind = "f4" if name.startswith("p_") else "f8" if name.startswith("per_ml_") else "i8"
        return np.empty(0, _EMPTY_TYPES.get(name, by_kind))


_EMPTY_TYPES: Final[Mapping[str, str]] = {
    **dict.fromkeys(PARTICLE_COLUMNS, "f4"),
    **dict.fromkeys(("frame", "x_px", "y_px", "width_px", "height_px", "area_px", "window", "row"), "i4"),
    **dict.fromkeys(("t0_s", "t1_s", "volume_ml"), "f8"),
    **dict.fromkeys(("time_s", "x_um", "y_um", "ecd_sd_um", "speed_um_per_s", "travel_um"), "f4"),
    "border": "?",
    "counted": "?",
    "class": "U1",
}


def open_table(record: Record, name: TableName, *, track_rule: TrackRule | None = None) -> Table:
    """Prepare one of a record's tables.

    Parameters
    ----------
    record
        Stays open until the chunks are read.
    name
        ``particles``: a row per particle; ``windows``: a row per window; ``histogram``: class by size over the run;
        ``tracks``: a row per particle followed over frames (NIST-style, not the default counting).
    track_rule
        Of the tracks; default: NIST's.
    """
    if name == "tracks":
        found = read_tracks(record, track_rule or TrackRule())
        rows: list[Chunk] = [dict(found.table())] if len(found.tracks) else []
        return Table(
            schema="mfi.tracks/1", docs=TRACK_DOCS, provenance=_provenance(record) | found.facts(), chunks=iter(rows)
        )
    makers: Mapping[str, Callable[[Record], tuple[dict[str, str], Iterator[Chunk]]]] = {
        "particles": _particles,
        "windows": _windows,
        "histogram": _histogram,
    }
    docs, chunks = makers[name](record)
    return Table(schema=f"mfi.{name}/1", docs=docs, provenance=_provenance(record), chunks=chunks)


TABLE_NAMES: Final[tuple[TableName, ...]] = get_args(TableName)


def _provenance(record: Record) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in record.identity.items():
        if isinstance(value, list):
            found.update({f"{key}.{i}": str(v) for i, v in enumerate(value)})
        elif not isinstance(value, dict) and value is not None:
            found[key] = str(value)
    frames = record.frames_sha256
    return found | ({"frames_sha256": frames} if frames else {})


def _particles(record: Record) -> tuple[dict[str, str], Iterator[Chunk]]:
    stored = record.probability_classes
    own = {
        "window": "window of the run, from 0; window-row is the particle's id",
        "row": "row in the window, from 0",
    }
    docs = {name: own.get(name) or COLUMN_DOCS[name] for name in PARTICLE_COLUMNS}
    docs |= {f"p_{name}": f"calibrated probability of {name}" for name in stored}

    def chunk(rows: RecordedParticles) -> Chunk:
        table: Chunk = {
            "class": rows.class_names,
            "confidence": rows.confidence,
            "window": rows.window,
            "row": rows.row,
        }
        for k, name in enumerate(stored):
            known = rows.probabilities is not None
            table[f"p_{name}"] = rows.probabilities[:, k] if known else np.full(len(rows), np.nan, np.float32)  # type: ignore[index]
        return {name: table[name] if name in table else getattr(rows.particles, name) for name in docs}

    return docs, (chunk(rows) for rows in record.particles_by_window() if len(rows))


def _windows(record: Record) -> tuple[dict[str, str], Iterator[Chunk]]:
    with record.snapshot():
        windows = list(record.windows())
    reasons = [*REJECTION_REASONS, *sorted({r for w in windows for r in w.rejected} - REJECTION_REASONS.keys())]
    sizes = list(per_ml(record.empty_window().histogram, 0.0)["all"])
    docs = {
        "window": "window of the run, from 0",
        "first_frame": "sequence number of the first frame seen, -1 if none",
        "last_frame": "sequence number of the last frame seen, -1 if none",
        "t0_s": "start, s since the start of the run, from the frames' own time",
        "t1_s": "end, s since the start of the run",
        "frames": "frames analysed: the volume is made of these alone",
        "frames_lost": "frames that never came",
        "frames_rejected": "frames that came and were left out",
        "particles": "particles counted",
        "volume_ml": "analysed volume, mL: frames * frame volume",
        **{f"per_ml_{s}": f"particles >= {s} um per mL: sum of weights / volume_ml" for s in sizes},
        **{f"count_{name}": f"particles of class {name}" for name in record.classes},
        **{f"rejected_{r}": REJECTION_REASONS.get(r, "left out for this reason") for r in reasons},
    }
    if not windows:
        return docs, iter(())
    concentrations = [per_ml(w.histogram, w.volume_ml)["all"] for w in windows]
    by_class = [w.histogram.by_class() for w in windows]
    table: Chunk = {"window": np.array([w.seq for w in windows], np.int32)}
    for name in ("first_frame", "last_frame", "t0_s", "t1_s", "frames", "frames_lost", "frames_rejected", "particles"):
        table[name] = np.array([getattr(w, name) for w in windows])
    table["volume_ml"] = np.array([w.volume_ml for w in windows], np.float64)
    for s in sizes:
        table[f"per_ml_{s}"] = np.array([np.nan if c[s] is None else c[s] for c in concentrations], np.float64)
    for name in record.classes:
        table[f"count_{name}"] = np.array([c[name] for c in by_class], np.int64)
    for r in reasons:
        table[f"rejected_{r}"] = np.array([w.rejected.get(r, 0) for w in windows], np.int64)
    return docs, iter([table])


def _histogram(record: Record) -> tuple[dict[str, str], Iterator[Chunk]]:
    total = record.total()
    edges = np.array(total.histogram.edges_um)
    rows, bins = total.histogram.counts.shape
    docs = {
        "class": COLUMN_DOCS["class"],
        "ecd_from_um": "lower edge of the size bin, um (belongs to it)",
        "ecd_to_um": "upper edge of the size bin, um (belongs to the next)",
        "count": "particles counted",
        "weighted_count": "sum of their Miles-Lantuejoul weights",
        "per_ml": f"weighted_count / analysed volume ({total.volume_ml:.9g} mL)",
    }
    weighted = total.histogram.weighted.ravel()
    table: Chunk = {
        "class": np.repeat(np.array(total.histogram.classes, np.str_), bins),
        "ecd_from_um": np.tile(edges[:-1], rows),
        "ecd_to_um": np.tile(edges[1:], rows),
        "count": total.histogram.counts.ravel(),
        "weighted_count": weighted,
        "per_ml": np.round(weighted / total.volume_ml, 6) if total.volume_ml > 0 else np.full(rows * bins, np.nan),
    }
    return docs, iter([table])
