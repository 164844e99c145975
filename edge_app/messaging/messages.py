"""Everything that is published, as typed messages; the JSON Schemas in ``docs/schemas`` are made from these."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Annotated, Any, ClassVar, Final, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from edge_app.measurement.calibration import CalibrationState
from edge_app.measurement.histogram import Histogram
from edge_app.measurement.window import Window, per_ml
from edge_app.messaging.provenance import Provenance
from edge_app.messaging.topics import TOPIC_RULES, Topics
from edge_app.recording.outgoing import Outgoing, OutgoingKind

__all__ = [
    "MESSAGE_OF_KIND",
    "Event",
    "HistogramMessage",
    "Info",
    "Message",
    "Run",
    "Stats",
    "Status",
    "Summary",
    "histogram_message",
    "merge_histograms",
    "outgoing",
    "schema_names",
    "summary_message",
    "total_message",
    "utc_text",
]

State = Literal["init", "ready", "running", "stalled", "degraded", "error", "disconnected", "lost"]
"""Life of a device: ``stalled`` while a run waits for frames that do not come, ``lost`` is said by the broker alone,
``disconnected`` by a device that ends in order."""

PerMl = dict[str, dict[str, float | None]]
"""Class (or ``all``) -> cumulative size in um -> concentration in particles per mL."""

CalibrationId: TypeAlias = Annotated[str, Field(description="Id of the calibration; empty where none is known yet")]
CalibrationStateNow: TypeAlias = Annotated[
    CalibrationState,
    Field(
        description="Of the calibration when the frames were taken: `valid`, `expired`, or `not_calibrated` where a "
        "certificate is missing and sizes come from a stated scale"
    ),
]
CalibrationAge: TypeAlias = Annotated[
    float | None,
    Field(description="Days since the beads were measured when the frames were taken; null where not calibrated"),
]


def utc_text(moment: datetime | None = None) -> str:
    """A moment (default: now) as ISO 8601 in UTC with milliseconds.

    Examples
    --------
    >>> utc_text(datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc))
    '2026-01-02T03:04:05.000Z'
    """
    moment = datetime.now(timezone.utc) if moment is None else moment.astimezone(timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Message(BaseModel):
    """What all messages have: a schema with its version, and one JSON form.

    Fields may be added within a version, so a subscriber ignores those it does not know.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        populate_by_name=True,
        # What has a default on our side is still in every message: a reader may rely on it.
        json_schema_serialization_defaults_required=True,
    )

    kind: ClassVar[str]

    def payload(self) -> str:
        """The message as compact JSON; NaN and infinity never occur in it."""
        return self.model_dump_json(by_alias=True)


class Status(Message):
    """Retained on ``status``; the will of the link is the same message with the state ``lost``."""

    kind: ClassVar[str] = "status"
    schema_: Literal["mfi.status/1"] = Field("mfi.status/1", alias="schema")
    state: State = Field(description="A `lost` whose boot_id is not the newest one seen is old news")
    boot_id: str = Field(description="Of this start of the program; also in `info` and in every window")
    since: str = Field(description="When the state began, UTC; for `lost`: when the link was made")
    run_id: str | None = Field(None, description="Run in progress")
    detail: str = Field("", description="One line for people: why stalled, degraded or in error")
    calibration: CalibrationId = ""
    calibration_state: CalibrationStateNow = "not_calibrated"
    calibration_age_days: CalibrationAge = None


class Info(Message):
    """Retained on ``info``: what this device is, published at every connection before ``status``."""

    kind: ClassVar[str] = "info"
    schema_: Literal["mfi.info/1"] = Field("mfi.info/1", alias="schema")
    site: str
    device: str
    boot_id: str
    app_version: str
    pipeline: str = Field("", description="SHA-256 over all steps of the pipeline")
    steps: list[str] = Field(default_factory=list, description="The steps, readable, in order")
    model: dict[str, Any] = Field(default_factory=dict, description="Name, version, SHA-256, quantisation of the model")
    calibration: dict[str, Any] = Field(default_factory=dict, description="Id, date, um per px, whether calibrated")
    calibration_state: CalibrationStateNow = "not_calibrated"
    calibration_age_days: CalibrationAge = None
    classes: list[str] = Field(default_factory=list)
    edges_um: list[float | None] = Field(default_factory=list, description="Bin edges; null: open end")
    reporting_sizes_um: list[float] = Field(default_factory=list)
    backend: str = Field("", description="What runs the network")
    accelerator: str = ""
    self_test_ms: float | None = Field(None, description="Time of one self-test inference")
    host: dict[str, Any] = Field(default_factory=dict, description="Machine, operating system, Python")
    schemas: list[str] = Field(default_factory=lambda: schema_names(), description="Messages this device speaks")


class Run(Message):
    """Retained on ``run``: the run in progress or the last one."""

    kind: ClassVar[str] = "run"
    schema_: Literal["mfi.run/1"] = Field("mfi.run/1", alias="schema")
    device: str
    boot_id: str
    run_id: str
    state: Literal["running", "finished", "failed"] = "running"
    started: str = Field(description="UTC")
    ended: str | None = Field(None, description="UTC")
    source: str = Field("", description="URI of the frames")
    sample_id: str = ""
    operator: str = ""
    flow_rate_ul_per_min: float | None = None
    frames: int = Field(0, ge=0, description="Frames analysed so far")
    particles: int = Field(0, ge=0, description="Particles counted so far")
    volume_ml: float = Field(0.0, ge=0, description="Volume analysed so far")
    calibration: CalibrationId = ""
    calibration_state: CalibrationStateNow = "not_calibrated"
    calibration_age_days: CalibrationAge = None
    replayed: bool = Field(False, description="Waited for the link to come back")


class HistogramMessage(Message):
    """Counts by class and size: of one window on ``histogram``, of the run so far on ``histogram/total`` (retained).

    Windows add: a subscriber may sum them, and checks the sum against the total. The key of a window is
    ``(device, run_id, seq)``; a second message with the same key says the same. Where the link was down for very long,
    adjacent windows come merged: one message then stands for ``first_seq`` to ``seq``.
    """

    kind: ClassVar[str] = "histogram"
    schema_: Literal["mfi.histogram/1"] = Field("mfi.histogram/1", alias="schema")
    scope: Literal["window", "total"]
    device: str
    boot_id: str
    run_id: str
    seq: int = Field(ge=0, description="Number of the (last) window in the message, from 0 within the run")
    first_seq: int = Field(ge=0, description="Number of the first window in the message")
    last_seq: int | None = Field(None, description="In a total: the last window that it holds; null in a window")
    windows: int = Field(1, ge=0, description="Number of windows in the message")
    t0: str | None = Field(None, description="Begin, UTC; null where the frames bear no time of day")
    t1: str | None = Field(None, description="End, UTC")
    t0_s: float = Field(description="Begin in s since the start of the run, by the frames' own time")
    t1_s: float
    edges_um: list[float | None] = Field(description="Bin i: edges_um[i] <= ECD < edges_um[i + 1]; null: open end")
    counts: dict[str, list[int]] = Field(description="Class -> particles per bin")
    weighted: dict[str, list[float]] = Field(description="Class -> sum of border weights per bin; per_ml is made of it")
    n: int = Field(ge=0, description="Particles counted")
    frames: int = Field(ge=0, description="Frames analysed")
    frames_lost: int = Field(ge=0, description="Frames that never came")
    frames_rejected: int = Field(ge=0, description="Frames that came and were left out")
    frames_dropped: int = Field(ge=0, description="Frames without volume: lost and rejected")
    volume_ml: float = Field(ge=0, description="Volume of the analysed frames")
    per_ml: PerMl = Field(description="Class (or `all`) -> size in um -> particles per mL of that size and above")
    rejected: dict[str, int] = Field(description="Reason -> particles or, where it begins with frame_, frames")
    pipeline: str = Field(description="SHA-256 over all steps")
    model_sha256: str
    calibration: CalibrationId
    calibration_state: CalibrationStateNow = "not_calibrated"
    calibration_age_days: CalibrationAge = None
    replayed: bool = Field(False, description="Waited for the link to come back")

    def histogram(self) -> Histogram:
        """The counts as a :class:`Histogram` again."""
        classes = tuple(self.counts)
        return Histogram(
            classes=classes,
            edges_um=tuple(float("inf") if e is None else e for e in self.edges_um),
            counts=np.array([self.counts[c] for c in classes], np.int64).reshape(len(classes), -1),
            weighted=np.array([self.weighted[c] for c in classes], np.float64).reshape(len(classes), -1),
        )


class Summary(Message):
    """Retained on ``summary`` at the end of a run."""

    kind: ClassVar[str] = "summary"
    schema_: Literal["mfi.summary/1"] = Field("mfi.summary/1", alias="schema")
    device: str
    boot_id: str
    run_id: str
    started: str = Field(description="UTC")
    ended: str = Field(description="UTC")
    source: str = ""
    sample_id: str = ""
    operator: str = ""
    windows: int = Field(ge=0)
    frames: int = Field(ge=0)
    frames_lost: int = Field(ge=0)
    frames_rejected: int = Field(ge=0)
    n: int = Field(ge=0, description="Particles counted")
    volume_ml: float = Field(ge=0)
    counts: dict[str, int] = Field(description="Class -> particles counted")
    per_ml: PerMl = Field(description="Class (or `all`) -> size in um -> particles per mL of that size and above")
    rejected: dict[str, int]
    smallest_size_um: float | None = Field(None, description="Below this, counts are incomplete with this optics")
    notes: list[str] = Field(default_factory=list, description="What a reader of the numbers must know")
    pipeline: str
    model_sha256: str
    calibration: CalibrationId
    calibration_state: CalibrationStateNow = "not_calibrated"
    calibration_age_days: CalibrationAge = None
    replayed: bool = Field(False, description="Waited for the link to come back")


class StageTime(BaseModel):
    """Time of one stage per frame."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, json_schema_serialization_defaults_required=True
    )

    p50_ms: float = Field(ge=0)
    p99_ms: float = Field(ge=0)


class Stats(Message):
    """On ``stats`` every few seconds, QoS 0: how the device itself is doing."""

    kind: ClassVar[str] = "stats"
    schema_: Literal["mfi.stats/1"] = Field("mfi.stats/1", alias="schema")
    device: str
    boot_id: str
    run_id: str | None = None
    t: str = Field(default_factory=utc_text, description="UTC")
    frames_per_s_in: float = Field(0.0, ge=0)
    frames_per_s_out: float = Field(0.0, ge=0)
    particles_per_s: float = Field(0.0, ge=0)
    stages: dict[str, StageTime] = Field(default_factory=dict)
    queues: dict[str, int] = Field(default_factory=dict, description="Depth of each queue")
    frames_dropped: int = Field(0, ge=0)
    temperatures_c: dict[str, float] = Field(default_factory=dict)
    rss_mb: float | None = None
    waiting: int = Field(0, ge=0, description="Messages on disk that the broker has not acknowledged")
    published: int = Field(0, ge=0, description="Messages acknowledged since the start")
    reconnects: int = Field(0, ge=0)
    merged: int = Field(0, ge=0, description="Windows merged into another because too many waited")
    calibration: CalibrationId = ""
    calibration_state: CalibrationStateNow = "not_calibrated"
    calibration_age_days: CalibrationAge = None


class Event(Message):
    """On ``event``: something happened that a person or a log should know."""

    kind: ClassVar[str] = "event"
    schema_: Literal["mfi.event/1"] = Field("mfi.event/1", alias="schema")
    device: str
    boot_id: str
    id: str = Field(description="Unique within the device")
    severity: Literal["info", "warning", "error"]
    code: str = Field(description="Stable name, for example run_started")
    text: str = Field(description="One line for people")
    t: str = Field(default_factory=utc_text, description="UTC")
    run_id: str | None = None
    data: dict[str, Any] = Field(default_factory=dict)
    calibration: CalibrationId = ""
    calibration_state: CalibrationStateNow = "not_calibrated"
    calibration_age_days: CalibrationAge = None
    replayed: bool = Field(False, description="Waited for the link to come back")


MESSAGE_OF_KIND: Final[Mapping[str, type[Message]]] = {
    "status": Status,
    "info": Info,
    "run": Run,
    "histogram": HistogramMessage,
    "total": HistogramMessage,
    "summary": Summary,
    "stats": Stats,
    "event": Event,
}
"""Which message a kind of topic carries."""


def schema_names() -> list[str]:
    """Names of all schemas with their versions.

    Examples
    --------
    >>> schema_names()[:3]
    ['mfi.status/1', 'mfi.info/1', 'mfi.run/1']
    """
    return list(dict.fromkeys(str(model.model_fields["schema_"].default) for model in MESSAGE_OF_KIND.values()))


def histogram_message(
    window: Window,
    *,
    provenance: Provenance,
    started: datetime | None = None,
    scope: Literal["window", "total"] = "window",
    windows: int = 1,
) -> HistogramMessage:
    """The message of one window (``scope="window"``) or of a sum of windows (:func:`total_message`).

    Parameters
    ----------
    window
        Counts of one window, or the sum of all so far.
    provenance
        Device, pipeline, model and calibration.
    started
        Time of day at which the run's own time is 0; None: ``t0`` and ``t1`` are null, and the calibration's state is
        that of now.
    windows
        Number of windows summed.
    """
    table = window.histogram
    end = None if started is None else started + timedelta(seconds=window.t1_s)
    return HistogramMessage(
        scope=scope,
        device=provenance.device,
        boot_id=provenance.boot_id,
        run_id=window.run_id,
        seq=window.seq,
        first_seq=0 if scope == "total" else window.seq,
        last_seq=window.seq if scope == "total" else None,
        windows=windows,
        t0=None if started is None else utc_text(started + timedelta(seconds=window.t0_s)),
        t1=None if end is None else utc_text(end),
        t0_s=window.t0_s,
        t1_s=window.t1_s,
        edges_um=[float(e) if np.isfinite(e) else None for e in table.edges_um],
        counts=dict(zip(table.classes, table.counts.tolist(), strict=True)),
        weighted=dict(zip(table.classes, table.weighted.tolist(), strict=True)),
        n=window.particles,
        frames=window.frames,
        frames_lost=window.frames_lost,
        frames_rejected=window.frames_rejected,
        frames_dropped=window.frames_lost + window.frames_rejected,
        volume_ml=window.volume_ml,
        per_ml=per_ml(table, window.volume_ml),
        rejected=dict(window.rejected),
        pipeline=provenance.pipeline,
        model_sha256=provenance.model_sha256,
        **provenance.calibration_at(end),
    )


def total_message(
    total: Window, *, provenance: Provenance, started: datetime | None = None, windows: int | None = None
) -> HistogramMessage:
    """The message of the run so far; ``windows`` defaults to ``total.seq + 1``."""
    return histogram_message(
        total,
        provenance=provenance,
        started=started,
        scope="total",
        windows=total.seq + 1 if windows is None else windows,
    )


def merge_histograms(first: HistogramMessage, second: HistogramMessage) -> HistogramMessage:
    """Two adjacent windows of a run as one message: counts, frames and volumes add.

    Raises
    ------
    ValueError
        If they are not windows of the same run, made in the same way, ``second`` right after ``first``.
    """
    fixed = ("scope", "device", "run_id", "edges_um", "pipeline", "model_sha256", "calibration")
    differing = [key for key in fixed if getattr(first, key) != getattr(second, key)]
    if differing or first.scope != "window" or list(first.counts) != list(second.counts):
        names = ", ".join(differing) or "classes"
        raise ValueError(f"windows {first.seq} and {second.seq} do not merge: {names} differ")
    if second.first_seq != first.seq + 1:
        raise ValueError(f"windows {first.seq} and {second.first_seq} are not adjacent")
    table = first.histogram() + second.histogram()
    volume = first.volume_ml + second.volume_ml
    return second.model_copy(
        update={
            "first_seq": first.first_seq,
            "windows": first.windows + second.windows,
            "t0": first.t0,
            "t0_s": first.t0_s,
            "counts": dict(zip(table.classes, table.counts.tolist(), strict=True)),
            "weighted": dict(zip(table.classes, table.weighted.tolist(), strict=True)),
            **{
                key: getattr(first, key) + getattr(second, key)
                for key in ("n", "frames", "frames_lost", "frames_rejected", "frames_dropped")
            },
            "volume_ml": volume,
            "per_ml": per_ml(table, volume),
            "rejected": dict(sorted((Counter(first.rejected) + Counter(second.rejected)).items())),
            "replayed": first.replayed or second.replayed,
        }
    )


def summary_message(
    total: Window,
    *,
    provenance: Provenance,
    started: datetime,
    ended: datetime,
    windows: int,
    source: str = "",
    sample_id: str = "",
    operator: str = "",
    smallest_size_um: float | None = None,
    notes: Sequence[str] = (),
) -> Summary:
    """What a run found, from the sum of its windows."""
    return Summary(
        device=provenance.device,
        boot_id=provenance.boot_id,
        run_id=total.run_id,
        started=utc_text(started),
        ended=utc_text(ended),
        source=source,
        sample_id=sample_id,
        operator=operator,
        windows=windows,
        frames=total.frames,
        frames_lost=total.frames_lost,
        frames_rejected=total.frames_rejected,
        n=total.particles,
        volume_ml=total.volume_ml,
        counts=total.histogram.by_class(),
        per_ml=per_ml(total.histogram, total.volume_ml),
        rejected=dict(total.rejected),
        smallest_size_um=smallest_size_um,
        notes=list(notes),
        pipeline=provenance.pipeline,
        model_sha256=provenance.model_sha256,
        **provenance.calibration_at(ended),
    )


def outgoing(topics: Topics, message: Message) -> Outgoing:
    """A message as the row that is committed with its window and published from there.

    Raises
    ------
    TypeError
        For ``status``, ``info`` and ``stats``, which the publisher sends itself.

    Examples
    --------
    >>> event = Event(device="m", boot_id="b", id="1", severity="info", code="run_started", text="run started")
    >>> outgoing(Topics(site="lab", device="m"), event).topic
    'mfi/1/lab/m/event'
    """
    kind: OutgoingKind
    seq = None
    if isinstance(message, HistogramMessage):
        kind, seq = ("total" if message.scope == "total" else "histogram"), message.seq
    elif isinstance(message, Run):
        kind = "run"
    elif isinstance(message, Summary):
        kind = "summary"
    elif isinstance(message, Event):
        kind = "event"
    else:
        raise TypeError(f"{type(message).__name__} does not wait on disk")
    rule = TOPIC_RULES[kind]
    return Outgoing(
        topic=topics.of(kind), payload=message.payload(), qos=rule.qos, retain=rule.retain, kind=kind, seq=seq
    )
