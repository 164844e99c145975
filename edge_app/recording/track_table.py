"""The tracks of a record as a table: each distinct particle once, named as such, beside the default counting."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from edge_app.errors import UserError
from edge_app.measurement.tracks import TrackRule, Tracks, TrackSummary, find_tracks, summarise_tracks
from edge_app.measurement.window import per_ml
from edge_app.recording.particle_columns import RecordedParticles
from edge_app.recording.record_reader import Record

__all__ = ["TRACK_DOCS", "RecordTracks", "parse_rule", "read_tracks"]

TRACK_DOCS: dict[str, str] = {
    "track": "number of the track, in the order of first images",
    "window": "window of its first image",
    "row": "row of its first image in that window; window-row is the particle's id",
    "images": "images that were joined",
    "counted": "1 if it counts as a particle: enough images, and it moved",
    "class": "class of most of its images (of two alike the first by name order of the record)",
    "time_s": "mean time of its images, s since the start of the run",
    "x_um": "mean place of the centroid across the flow, um",
    "y_um": "mean place of the centroid along the flow, um",
    "ecd_um": "median equivalent circular diameter of its images, um",
    "ecd_sd_um": "standard deviation of the diameter over its images, um; nan for a single one",
    "speed_um_per_s": "slope of place along the flow against time, um/s; nan for a single image",
    "travel_um": "span of its images along the flow, um",
}


class RecordTracks:
    """Tracks of one record.

    Attributes
    ----------
    rows, tracks, summary
        Images, what they were joined to, and the counts of it.
    """

    def __init__(self, rows: RecordedParticles, tracks: Tracks, summary: TrackSummary, default: dict[str, float]):
        self.rows, self.tracks, self.summary = rows, tracks, summary
        self._default = default

    def table(self) -> dict[str, npt.NDArray[np.generic]]:
        """Columns of :data:`TRACK_DOCS`, a row per track."""
        t, rows = self.tracks, self.rows
        used = t.track >= 0
        votes = np.zeros((len(t), len(rows.classes)), np.int64)
        np.add.at(votes, (t.track[used], rows.class_index[used]), 1)
        names = np.asarray(rows.classes, np.str_)
        return {
            "track": np.arange(len(t)),
            "window": rows.window[t.first],
            "row": rows.row[t.first],
            "images": t.images,
            "counted": t.counted,
            "class": names[votes.argmax(1)] if len(t) else names[:0],
            **{
                name: getattr(t, name).astype(np.float32)
                for name in ("time_s", "x_um", "y_um", "ecd_um", "ecd_sd_um", "speed_um_per_s", "travel_um")
            },
        }

    def facts(self) -> dict[str, str]:
        """What the track mode says of the run, for the header of a table."""
        s = self.summary
        found = {
            "counting": s.rule.name,
            "tracks.particles": str(s.particles),
            "tracks.images": str(s.images),
            "tracks.single_images": str(s.single_images),
            "tracks.resting": str(s.resting),
        }
        if s.speed_um_per_s is not None:
            found["tracks.speed_um_per_s"] = "5 %, 50 %, 95 %: " + ", ".join(f"{v:.4g}" for v in s.speed_um_per_s)
        if s.views_of_fastest is not None:
            found["tracks.views_of_fastest"] = f"{s.views_of_fastest:.3g}"
        if s.volume_ml is not None and s.per_ml is not None:
            found["tracks.volume_ml"] = f"{s.volume_ml:.6g}"
            found |= {f"tracks.per_ml_{size}": f"{v:.6g}" for size, v in s.per_ml.items()}
        return found | {f"default_counting.per_ml_{size}": f"{v:.6g}" for size, v in self._default.items()}

    def lines(self) -> Iterator[str]:
        """The same for a person."""
        s = self.summary
        yield f"{s.rule.name}"
        yield (
            f"{s.particles} distinct particles in {s.images} images; {s.single_images} images alone, {s.resting} "
            "tracks at rest: neither counts"
        )
        if s.speed_um_per_s is not None:
            low, middle, high = (v / 1000 for v in s.speed_um_per_s)
            yield f"speed {middle:.2f} mm/s (5 to 95 %: {low:.2f} to {high:.2f})"
        if s.per_ml is None:
            yield "no concentration: the source does not say its flow rate"
        else:
            for size in ("2", "10", "25"):
                default = self._default.get(size)
                beside = "" if default is None else f", default counting {default:,.0f}"
                yield f">= {size} um: {s.per_ml[size]:,.0f} per mL of what flowed past{beside}"
        if s.views_of_fastest is not None and s.views_of_fastest < s.rule.min_images + 1:
            seen = f"{s.views_of_fastest:.1f}"
            yield f"too low: the fastest particles found are in the picture for {seen} frames only, others are missed"


def parse_rule(texts: tuple[str, ...]) -> TrackRule:
    """Read ``KEY=VALUE`` texts.

    Raises
    ------
    UserError
        If a key or value is not allowed.

    Examples
    --------
    >>> parse_rule(("along_um=1500", "ahead_s=0.2")).along_um
    1500.0
    """
    values: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or key not in TrackRule.model_fields:
            raise UserError(f"--track-rule {text!r}: KEY=VALUE with one of {', '.join(TrackRule.model_fields)}")
        values[key] = value
    try:
        return TrackRule.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"--track-rule {first['loc'][0]} is {first['input']!r}: {first['msg']}") from error


def read_tracks(record: Record, rule: TrackRule) -> RecordTracks:
    """Join the images of a record.

    Raises
    ------
    UserError
        If the record has no calibration.
    """
    calibration = record.calibration
    if calibration is None:
        raise UserError(f"{record.path}: tracks need um per px, the record holds no calibration")
    with record.snapshot():
        rows, total, info = record.particles(), record.total(), record.meta["info"]
    seen = total.frames + total.frames_rejected + total.frames_lost
    rate = info.get("frame_rate_hz")
    interval_s = 1 / rate if rate else (total.t1_s - total.t0_s) / max(seen - 1, 1)
    tracks = find_tracks(rows.particles, um_per_px=calibration.um_per_px, rule=rule)
    summary = summarise_tracks(
        tracks,
        rule=rule,
        seconds=total.t1_s - total.t0_s + interval_s if seen else 0.0,
        frame_interval_s=interval_s,
        # A folder that was empty at the start did not say how large its frames would be.
        height_um=(info.get("height_px") or 0) * calibration.um_per_px,
        flow_rate_ul_per_min=info.get("flow_rate_ul_per_min"),
        imaged_share=_imaged_share(info, calibration.um_per_px),
    )
    default = per_ml(total.histogram, total.volume_ml)["all"]
    return RecordTracks(rows, tracks, summary, {k: v for k, v in default.items() if v is not None})


def _imaged_share(info: dict[str, object], um_per_px: float) -> float:
    """Share of the cell's width that the picture shows; 1 where the source does not say how wide the cell is."""
    details = info.get("details")
    scene = details.get("scene") if isinstance(details, dict) else None
    width_mm = scene.get("cell_width_mm") if isinstance(scene, dict) else None
    width_px = info.get("width_px")
    if not isinstance(width_mm, int | float) or not isinstance(width_px, int) or not width_px:
        return 1.0
    return min(1.0, width_px * um_per_px / 1000 / width_mm)
