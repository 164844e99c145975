"""Rows of the run record: what they are made of, and their insertion with the manifest of an audit entry."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_app.measurement.histogram import Histogram
from edge_app.measurement.window import Window
from edge_app.recording.audit import Manifest, append_entry, next_entry_id, utc_now
from edge_app.recording.event import Event
from edge_app.recording.particle_columns import pack_column
from edge_app.recording.pictures import Picture

__all__ = [
    "column_rows",
    "insert",
    "insert_events",
    "pack_companion",
    "picture_row",
    "to_json",
    "window_row",
    "write_meta",
]


def _plain(value: object) -> Any:
    """Turn what settings are made of into JSON's own types; inf and nan become text, since JSON has none."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no place in a run record's JSON")


def to_json(value: object) -> str:
    """JSON text of a record: keys in order, no spaces.

    Examples
    --------
    >>> to_json({"b": np.float32(0.5), "a": float("inf")})
    '{"a":"inf","b":0.5}'
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def insert(
    connection: sqlite3.Connection, manifest: Manifest, table: str, rows: Sequence[Mapping[str, object]]
) -> None:
    """Write rows of one table and note each in the manifest."""
    if not rows:
        return
    marks = ", ".join("?" * len(rows[0]))
    connection.executemany(f"INSERT INTO {table} VALUES ({marks})", [tuple(r.values()) for r in rows])
    for row in rows:
        manifest.add(table, row)


def write_meta(
    connection: sqlite3.Connection, values: Mapping[str, Any], *, action: str, reason: str, user: str
) -> None:
    """Add facts to ``meta`` under an audit entry of their own."""
    audit_id, manifest = next_entry_id(connection), Manifest()
    rows = [{"key": k, "value": to_json(v), "audit_id": audit_id} for k, v in values.items()]
    insert(connection, manifest, "meta", rows)
    append_entry(connection, entry_id=audit_id, action=action, reason=reason, manifest=manifest, user=user)


def window_row(window: Window, row_count: int, frames_sha256: str | None, audit_id: int) -> dict[str, object]:
    """Row of the table ``windows``."""
    histogram: Histogram = window.histogram
    names = histogram.classes
    return {
        "seq": int(window.seq),
        "first_frame": int(window.first_frame),
        "last_frame": int(window.last_frame),
        "t0_s": float(window.t0_s),
        "t1_s": float(window.t1_s),
        "frames": int(window.frames),
        "frames_lost": int(window.frames_lost),
        "frames_rejected": int(window.frames_rejected),
        "rejected": to_json(window.rejected),
        "volume_ml": float(window.volume_ml),
        "counts": to_json(dict(zip(names, histogram.counts.tolist(), strict=True))),
        "weighted": to_json(dict(zip(names, histogram.weighted.tolist(), strict=True))),
        "row_count": row_count,
        "frames_sha256": frames_sha256,
        "audit_id": audit_id,
    }


def column_rows(seq: int, columns: Sequence[tuple[str, str, str, bytes]]) -> list[dict[str, object]]:
    """Rows of ``particle_columns`` and ``companion_columns`` from name, dtype, codec and bytes."""
    return [
        {"seq": int(seq), "position": i, "name": name, "dtype": dtype, "codec": codec, "data": data}
        for i, (name, dtype, codec, data) in enumerate(columns)
    ]


def pack_companion(name: str, values: npt.NDArray[np.generic]) -> tuple[str, str, str, bytes]:
    """Name, dtype, codec and bytes of one of the instrument's own columns; text as JSON."""
    column = np.asarray(values)
    if column.dtype.kind in "biuf":
        dtype = column.dtype.newbyteorder("<").str
        return name, dtype, *pack_column(column, dtype)
    return name, "json", "raw", to_json([str(v) for v in column.tolist()]).encode()


def picture_row(seq: int, picture: Picture) -> dict[str, object]:
    """Row of the table ``pictures``."""
    return {
        "seq": int(seq),
        "particle_row": int(picture.row),
        "kinds": ",".join(picture.kinds),
        "class": picture.class_name,
        "confidence": float(picture.confidence),
        "ecd_um": float(picture.ecd_um),
        "sample_key": int(picture.sample_key),
        "frame": int(picture.frame),
        "x_px": int(picture.x_px),
        "y_px": int(picture.y_px),
        "width_px": int(picture.width_px),
        "height_px": int(picture.height_px),
        "png": bytes(picture.png),
    }


def insert_events(
    connection: sqlite3.Connection, manifest: Manifest, events: Sequence[Event], *, seq: int | None, audit_id: int
) -> None:
    """Write events with the next free numbers."""
    (last,) = connection.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()
    rows: list[dict[str, object]] = [
        {
            "id": last + i,
            "time": utc_now(),
            "seq": seq,
            "time_s": None if event.time_s is None else float(event.time_s),
            "kind": event.kind,
            "severity": event.severity,
            "message": event.message,
            "details": to_json(event.details),
            "audit_id": audit_id,
        }
        for i, event in enumerate(events, 1)
    ]
    insert(connection, manifest, "events", rows)
