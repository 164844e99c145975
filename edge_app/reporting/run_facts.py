"""Everything that a report says of one run, out of its record alone."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import rfc8785

from edge_app.classification.palette import class_colours
from edge_app.measurement.calibration import Calibration, CalibrationState
from edge_app.measurement.coincidence import Coincidence, coincidence_of
from edge_app.measurement.concentration import CountSeries, interval_per_ml
from edge_app.measurement.histogram import REPORTING_EDGES_UM
from edge_app.measurement.verification_history import Entry, VerificationState, state_at
from edge_app.measurement.window import REJECTION_REASONS, Window
from edge_app.recording.audit import Verdict, verify_record
from edge_app.recording.event import RecordedEvent
from edge_app.recording.particle_columns import RecordedParticles
from edge_app.recording.pictures import sample_keys
from edge_app.recording.record_reader import Record, open_record
from edge_app.recording.signature import ACTION as SIGNED
from edge_app.reporting.class_correction import CorrectedClasses, corrected_classes
from edge_app.reporting.flags import Flag, run_flags
from edge_app.reporting.gallery import Gallery, PictureEntry, galleries, register
from edge_app.reporting.number_text import bin_text
from edge_app.reporting.optics import Optics, read_optics
from edge_app.reporting.particle_list import pack_particle_list
from edge_app.reporting.plots import ScatterClass, SizeBar, TimePoint
from edge_app.reporting.size_table import SizeCell, SizeTable, count_series, size_table

__all__ = ["BinRow", "RunFacts", "all_sizes", "read_run"]

SCATTER_POINTS: Final = 2000
TIME_POINTS: Final = 48
MOST_EVENTS: Final = 200


@dataclass(frozen=True, kw_only=True)
class BinRow:
    """A size bin: its counts and the pictures shown of it."""

    index: int
    bar: SizeBar
    counted: int
    by_class: tuple[int, ...]
    pictures: tuple[PictureEntry, ...]


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """One run as the report shows it; ``key`` is the prefix of its ids."""

    key: str
    path: Path
    run_id: str
    sample: str
    operator: str
    started: str
    ended: str
    state: str
    info: Mapping[str, Any]
    meta: Mapping[str, Any]
    identity: Mapping[str, Any]
    summary: Mapping[str, Any]
    classes: tuple[str, ...]
    colours: Mapping[str, str]
    total: Window
    series: CountSeries | None
    reporting_limit_um: float
    table: SizeTable
    corrected: CorrectedClasses | None
    bins: tuple[BinRow, ...]
    scatter: tuple[ScatterClass, ...]
    scatter_total: int
    time: tuple[TimePoint, ...]
    time_size_um: float
    time_mean: float
    galleries: tuple[Gallery, ...]
    register: tuple[PictureEntry, ...]
    particle_list: str
    rejected_particles: tuple[tuple[str, str, int], ...]
    rejected_frames: tuple[tuple[str, str, int], ...]
    coincidence: Coincidence | None
    optics: Optics
    calibration: Calibration | None
    calibration_state: CalibrationState
    calibration_age_days: float | None
    verification: VerificationState
    events: tuple[RecordedEvent, ...]
    events_left_out: int
    settings_sha256: str
    audit: Verdict
    audit_head: str
    audit_entries: int
    flags: tuple[Flag, ...]

    @property
    def simulated(self) -> bool:
        """Whether the frames come from the simulator."""
        return self.info.get("kind") == "sim"

    @property
    def instrument(self) -> str:
        """What the source says of itself."""
        details = self.info.get("details") or {}
        return str(details.get("instrument") or self.info.get("kind") or "not stated")

    @property
    def field_mm(self) -> tuple[float, float] | None:
        """Width and height of the field, None where frame size or scale are not known."""
        width, height = self.info.get("width_px"), self.info.get("height_px")
        if self.calibration is None or not width or not height:
            return None
        scale = self.calibration.um_per_px / 1000.0
        return width * scale, height * scale


def _reporting_limit(settings: Mapping[str, Any], calibration: Calibration | None) -> float:
    """Smallest size that is reported: the run's own limit, or the size of the smallest mask where that is larger."""
    least = float((settings.get("window") or {}).get("min_ecd_um") or 0.0)
    threshold = (settings.get("segmentation") or {}).get("threshold") or {}
    area = threshold.get("min_area_px")
    # The half-maximum area of a small mask is not known from the mask's.
    if calibration is None or calibration.size_rule != "mask" or area is None:
        return least
    smallest = float(calibration.ecd_um(np.array([area]), np.array([0.0]))[0])
    return max(least, smallest)


def all_sizes(record: Record) -> tuple[float, tuple[SizeCell, ...]]:
    """All particles of a record at the reporting sizes, as its report has them, from the windows alone.

    Returns
    -------
    tuple
        Reporting limit in um, and one cell per size of ``REPORTING_EDGES_UM``.
    """
    limit_um = _reporting_limit(record.meta.get("settings") or {}, record.calibration)
    table = size_table(count_series(list(record.windows())), classes=(), reporting_limit_um=limit_um)
    return limit_um, table.of_kind("all")[0].cells


def _bins(series: CountSeries | None, total: Window, *, key: str, limit_um: float) -> list[tuple[int, SizeBar]]:
    histogram = total.histogram
    edges, counts = histogram.edges_um, histogram.counts
    used = np.flatnonzero(counts.sum(0))
    last = max(int(used[-1]) if used.size else 0, edges.index(50.0) if 50.0 in edges else 0)
    found = []
    for i in range(len(edges) - 1):
        if edges[i] < limit_um or edges[i] <= 0 or i > last:
            continue
        interval = None
        if series is not None:
            upper = None if math.isinf(edges[i + 1]) else edges[i + 1]
            interval = interval_per_ml(series, edges[i], upper_um=upper)
        whole = int(counts[:, i].sum())
        bar = SizeBar(
            low_um=edges[i],
            high_um=edges[i + 1],
            per_ml=0.0 if interval is None else interval.value,
            interval_low=0.0 if interval is None else interval.low,
            interval_high=0.0 if interval is None else interval.high,
            shares={c: int(n) / whole if whole else 0.0 for c, n in zip(histogram.classes, counts[:, i], strict=True)},
            href=f"#{key}-bin-{i}",
        )
        found.append((i, bar))
    return found


def _scatter(
    particles: RecordedParticles, colours: Mapping[str, str], *, limit_um: float, most: int = SCATTER_POINTS
) -> tuple[tuple[ScatterClass, ...], int]:
    """At most ``most`` counted particles, a fixed even sample; frequent classes first, so that rare ones are on top."""
    p = particles.particles
    rows = np.flatnonzero((p.weight > 0) & (p.ecd_um >= limit_um))
    total = len(rows)
    if total > most:
        keys = sample_keys(p.frame[rows], p.x_px[rows], p.y_px[rows])
        rows = rows[np.sort(np.argsort(keys, kind="stable")[:most])]
    index = particles.class_index[rows]
    numbers = np.bincount(index, minlength=len(particles.classes))
    groups = []
    for k in np.argsort(-numbers, kind="stable").tolist():
        if numbers[k]:
            mine = rows[index == k]
            name = particles.classes[k]
            groups.append(ScatterClass(name=name, colour=colours[name], x=p.ecd_um[mine], y=p.aspect_ratio[mine]))
    return tuple(groups), total


def _time(windows: Sequence[Window], *, size_um: float) -> tuple[TimePoint, ...]:
    step = max(1, -(-len(windows) // TIME_POINTS))
    points = []
    for start in range(0, len(windows), step):
        part = windows[start : start + step]
        series = count_series(part)
        found = None if series is None else interval_per_ml(series, size_um, dispersion="poisson")
        points.append(
            TimePoint(
                t0_s=part[0].t0_s,
                t1_s=part[-1].t1_s,
                per_ml=None if found is None else found.value,
                interval_low=0.0 if found is None else found.low,
                interval_high=0.0 if found is None else found.high,
                frames_left_out=sum(w.frames_rejected for w in part),
                frames_lost=sum(w.frames_lost for w in part),
            )
        )
    return tuple(points)


def _coincidence(
    particles: RecordedParticles, total: Window, meta: Mapping[str, Any], calibration: Calibration | None
) -> Coincidence | None:
    info = meta.get("info") or {}
    width, height = info.get("width_px"), info.get("height_px")
    if calibration is None or not width or not height or not total.frames:
        return None
    p = particles.particles
    halo_um = 0.0
    if len(p):
        mask_um = 2.0 * np.sqrt(p.area_px.astype(np.float64) / np.pi) * calibration.um_per_px
        halo_um = max(0.0, float(np.median(mask_um - p.ecd_um)))
    threshold = ((meta.get("settings") or {}).get("segmentation") or {}).get("threshold") or {}
    # Closing joins masks whose gap is up to twice its radius.
    halo_um += 2.0 * float(threshold.get("closing_radius_px") or 0) * calibration.um_per_px
    field_um2 = float(width) * float(height) * calibration.um_per_px**2
    return coincidence_of(total.histogram, frames=total.frames, field_um2=field_um2, halo_um=halo_um)


def _audit_head(record: Record) -> tuple[str, int]:
    """Hash and number of the last entry that is no signature: signing a report must not change the next one."""
    head, number = "", 0
    for entry in record.audit():
        if entry.action != SIGNED:
            head, number = entry.entry_sha256, entry.id
    return head, number


def _moment_of(meta: Mapping[str, Any]) -> datetime:
    """When the frames were taken: the start of the run or, of a reanalysis, of the run that saw them first."""
    text = str((meta.get("parent") or {}).get("started") or meta.get("started", ""))
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return datetime.now(timezone.utc)
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def _verification(meta: Mapping[str, Any], moment: datetime, history: Sequence[Entry] | None) -> VerificationState:
    """From a history that was given, else from what the record kept at its start."""
    kept = meta.get("verification") or {}
    if history is not None:
        return state_at(history, moment)
    return state_at(kept.get("history") or (), moment, problem=str(kept.get("problem") or ""))


def read_run(
    path: Path,
    *,
    number: int = 1,
    container_ml: float | None = None,
    run_id: str | None = None,
    pictures: bool = True,
    history: Sequence[Entry] | None = None,
) -> RunFacts:
    """Read a record and work out everything the report shows.

    Parameters
    ----------
    path
        Record, or folder of records (the newest is taken).
    number
        Place of the run in the report, from 1.
    container_ml
        Nominal content of a container.
    run_id
        Which record of the folder.
    pictures
        False: leave the pictures out.
    history
        Verifications of the instrument (``read_history``) instead of those that the record kept when it was made.

    Raises
    ------
    UserError
        If there is no record or it cannot be read.
    """
    with open_record(path, run_id=run_id) as record, record.snapshot():
        return _read(record, key=f"r{number}", container_ml=container_ml, pictures=pictures, history=history)


def _read(
    record: Record, *, key: str, container_ml: float | None, pictures: bool, history: Sequence[Entry] | None
) -> RunFacts:
    meta = record.meta
    summary, info, settings = (meta.get(k) or {} for k in ("summary", "info", "settings"))
    windows = list(record.windows())
    total = record.total()
    series = count_series(windows)
    calibration, classes, edges = record.calibration, record.classes, record.edges_um
    colours = class_colours(classes)
    particles = record.particles()
    limit_um = _reporting_limit(settings, calibration)
    numbered = _bins(series, total, key=key, limit_um=limit_um)
    um_per_px = 1.0 if calibration is None else calibration.um_per_px
    shown = galleries(record, key=key, um_per_px=um_per_px) if pictures else ()
    entries = register(shown, particles, edges_um=edges)
    names = [bin_text(low, high) for low, high in pairwise(edges)]
    scatter, scatter_total = _scatter(particles, colours, limit_um=limit_um)
    time_size = next((s for s in REPORTING_EDGES_UM if s >= max(limit_um, 5.0)), REPORTING_EDGES_UM[-1])
    rejected = [(r, REJECTION_REASONS.get(r, "reason of the source"), n) for r, n in sorted(total.rejected.items())]
    audit = verify_record(record.path)
    audit_head, audit_entries = _audit_head(record)
    overlap = _coincidence(particles, total, meta, calibration)
    moment = _moment_of(meta)
    state: CalibrationState = "not_calibrated" if calibration is None else calibration.state(moment)
    age_days = None if calibration is None else calibration.age_days(moment)
    verification = _verification(meta, moment, history)
    finished = meta.get("finished")
    events = [e for e in record.events() if e.kind != SIGNED]
    counts = total.histogram.counts
    return RunFacts(
        key=key,
        path=record.path,
        run_id=record.run_id,
        sample=str(meta.get("sample") or ""),
        operator=str(meta.get("operator") or ""),
        started=str(meta.get("started", "")),
        ended=str((finished or {}).get("time", "")),
        state=str((finished or {}).get("state", "unfinished")),
        info=info,
        meta=meta,
        identity=record.identity,
        summary=summary,
        classes=classes,
        colours=colours,
        total=total,
        series=series,
        reporting_limit_um=limit_um,
        table=size_table(series, classes=classes, reporting_limit_um=limit_um, container_ml=container_ml),
        corrected=corrected_classes(
            particles,
            bundle=meta.get("bundle") or {},
            sizes_um=[s for s in REPORTING_EDGES_UM if s >= limit_um],
            volume_ml=total.volume_ml,
        ),
        bins=tuple(
            BinRow(
                index=i,
                bar=bar,
                counted=int(counts[:, i].sum()),
                by_class=tuple(counts[:, i].tolist()),
                pictures=tuple(e for e in entries if e.bin == i),
            )
            for i, bar in numbered
        ),
        scatter=scatter,
        scatter_total=scatter_total,
        time=_time(windows, size_um=time_size),
        time_size_um=time_size,
        time_mean=0.0 if series is None else interval_per_ml(series, time_size, dispersion="poisson").value,
        galleries=shown,
        register=entries,
        particle_list=pack_particle_list(particles, edges_um=edges, names=names),
        rejected_particles=tuple(r for r in rejected if not r[0].startswith("frame_")),
        rejected_frames=tuple(r for r in rejected if r[0].startswith("frame_")),
        coincidence=overlap,
        optics=read_optics(particles.particles, total, summary, pictures=pictures),
        calibration=calibration,
        calibration_state=state,
        calibration_age_days=age_days,
        verification=verification,
        events=tuple(events[:MOST_EVENTS]),
        events_left_out=max(0, len(events) - MOST_EVENTS),
        settings_sha256=hashlib.sha256(rfc8785.dumps(settings)).hexdigest(),
        audit=audit,
        audit_head=audit_head,
        audit_entries=audit_entries,
        flags=run_flags(
            audit=audit,
            finished=finished,
            calibration=calibration,
            state=state,
            age_days=age_days,
            verification=verification,
            simulated=info.get("kind") == "sim",
            bundle=meta.get("bundle") or {},
            total=total,
            overlap=overlap,
            knows_losses=bool(info.get("knows_losses", True)),
        ),
    )
