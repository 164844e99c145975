"""A whole run: the rooms opened, the loop driven, every closed window recorded and published."""

import contextlib
import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from typing import Any, Literal

from edge_app import __version__
from edge_app.capture.registry import open_source
from edge_app.capture.source import FrameSource, SourceInfo, lost_at_end
from edge_app.classification.backends import OpenedBackend, open_backend
from edge_app.classification.bundle import Bundle
from edge_app.classification.classifier import Classifier
from edge_app.classification.measured_accuracy import measured_accuracy
from edge_app.config import Settings, without_secrets
from edge_app.device_messages import info_message, stats_message
from edge_app.flow_cell_geometry import calibration_doubts, choose_calibration, frame_volume_ml
from edge_app.identity import PipelineIdentity, step_string
from edge_app.loop import Loop
from edge_app.measurement.histogram import FINE_EDGES_UM, Histogram
from edge_app.measurement.verification_history import HISTORY_FILE, history_for_record
from edge_app.measurement.window import Window, per_ml
from edge_app.messaging.messages import (
    Event as EventMessage,
)
from edge_app.messaging.messages import (
    Info,
    Message,
    Run,
    histogram_message,
    outgoing,
    summary_message,
    total_message,
    utc_text,
)
from edge_app.messaging.outbox import default_state_dir
from edge_app.messaging.provenance import Provenance, calibration_words
from edge_app.messaging.publisher import Publisher
from edge_app.messaging.topics import Topics
from edge_app.recording.errors import RecordingError
from edge_app.recording.event import Severity
from edge_app.recording.outgoing import Outgoing
from edge_app.recording.pictures import PicturePicker
from edge_app.recording.run_record import RunRecord, RunState, new_run_id
from edge_app.recovery import recover_earlier
from edge_app.reporting.optics import optics_summary
from edge_app.run_request import RunRequest
from edge_app.segmentation.segmenter import Segmenter
from edge_app.stall_watch import StallWatch
from edge_app.windowing import ClosedWindow, WindowBuilder

__all__ = ["Pipeline", "RunRequest", "choose_calibration"]


class Pipeline:
    """One run, from opening its parts to closing its record.

    Parameters
    ----------
    request, settings
        What to do and how.
    on_window
        Called after each window is safe on disk, with the sum of all so far.
    on_message
        Called with each line that a person should see (broken files, fallbacks, link trouble).

    Raises
    ------
    UserError
        If a part cannot be opened; nothing has been written then.
    """

    def __init__(
        self,
        request: RunRequest,
        settings: Settings,
        *,
        on_window: Callable[[Window], None] | None = None,
        on_message: Callable[[str], None] | None = None,
    ) -> None:
        self.request = request
        self.settings = settings
        self.on_window = on_window
        self.on_message = on_message or (lambda line: None)
        self._publisher: Publisher | None = None
        self._stopped = False
        self.boot_id = secrets.token_hex(4)
        self.run_id = new_run_id()
        self.bundle = Bundle.load(settings.classification.bundle, trusted_keys=settings.classification.trusted_keys)
        self.source: FrameSource = open_source(request.source, frames=request.frames)
        try:
            self._opened: OpenedBackend = open_backend(
                self.bundle, preference=settings.classification.backend, threads=settings.classification.threads
            )
            self.calibration = choose_calibration(settings.flow_cell, self.source.info)
            self.classifier = Classifier(self.bundle, self._opened.backend)
            self._loop = self._build_loop()
        except BaseException:
            self.source.close()
            raise
        self.identity = self._identify()
        self.started = datetime.now(timezone.utc)
        self._total = Window(
            run_id=self.run_id, seq=0, first_frame=-1, last_frame=-1, t0_s=0.0, t1_s=0.0, frames=0, frames_lost=0,
            frames_rejected=0, rejected={}, volume_ml=0.0, histogram=Histogram.empty(self.classifier.classes),
        )  # fmt: skip
        self._windows = 0
        self._events = 0
        self._told = 0
        self._stalled_s: list[float] = []
        self._event_lock = threading.Lock()

    @property
    def info(self) -> SourceInfo:
        """What the source says of itself."""
        return self.source.info

    @property
    def publisher_url(self) -> str:
        """Broker that this run publishes to, once it is known; empty before, and if nothing is published."""
        return "" if self._publisher is None else self._publisher.url

    def stop(self) -> None:
        """End the run in order after the frames in hand; may be called from a signal handler."""
        self._loop.stop()
        self._stopped = True

    def _build_loop(self) -> Loop:
        info, settings = self.info, self.settings
        return Loop(
            source=self.source,
            segmenter=Segmenter.for_source(
                info, settings.segmentation, use_instrument_thresholds=self.request.instrument_thresholds
            ),
            classifier=self.classifier,
            calibration=self.calibration,
            builder=WindowBuilder(
                run_id=self.run_id,
                classes=self.classifier.classes,
                frame_volume_ml=partial(frame_volume_ml, calibration=self.calibration, info=info),
                length_s=settings.window.length_s,
                picker=PicturePicker(classes=self.classifier.classes, options=settings.recording.pictures),
                leave_out_bubble_bursts=settings.window.leave_out_bubble_bursts,
            ),
            min_ecd_um=settings.window.min_ecd_um,
            hash_frames=settings.recording.hash_frames,
        )

    def _identify(self) -> PipelineIdentity:
        settings = self.settings
        thresholds = self.info.thresholds if self.request.instrument_thresholds else None
        # The size head is no part of the model's file, whose hash stands beside.
        learned = self.calibration.size_rule == "learned"
        reader = f"^reader={self.bundle.size_reader_sha256[:12]}" if learned else ""
        return PipelineIdentity(
            steps=(
                f"edge-app:version={__version__}",
                step_string("segmentation", settings.segmentation),
                f"instrument-thresholds:{'none' if thresholds is None else '+'.join(map(str, thresholds))}",
                f"size:rule={self.calibration.size_rule}{reader}",
                step_string("window", settings.window),
                step_string("crop", self.bundle.geometry),
                f"{self.bundle.identity}^backend={self._opened.backend.name}",
            ),
            model_sha256=self.bundle.model_sha256,
            calibration_id=self.calibration.id,
            calibration_sha256=self.calibration.sha256,
        )

    def run(self) -> dict[str, Any]:
        """Do the run; returns what ``--json`` prints.

        Raises
        ------
        UserError
            If the record cannot be written (full disk): what was recorded before is kept.
        """
        state_dir = default_state_dir()
        recover_earlier(self.request.out, state_dir, on_message=self.on_message)
        settings = self.settings
        try:
            publisher = Publisher(
                settings.mqtt, boot_id=self.boot_id, info=self._describe(), calibration=self.calibration,
                state_dir=state_dir,
            )  # fmt: skip
        except BaseException:
            self.source.close()
            raise
        self.topics = Topics.from_settings(settings.mqtt)
        self._provenance = Provenance(
            device=settings.mqtt.device_id,
            boot_id=self.boot_id,
            pipeline=self.identity.pipeline_id,
            model_sha256=self.identity.model_sha256,
            calibration=self.calibration,
        )
        began = time.perf_counter()
        try:
            with self._create_record() as record:
                publisher.start()
                self._publisher = publisher
                publisher.attach(record.path, self.run_id)
                publisher.set_status("running", self.run_id)
                try:
                    self._announce(record)
                    with self._stall_watch(record, publisher):
                        self._drive(record, publisher)
                    result = self._finish(record, time.perf_counter() - began)
                    publisher.notify()
                except BaseException as error:
                    self._fail(record, error)
                    publisher.notify()
                    raise
                finally:
                    publisher.set_status("ready")
                    report = publisher.stop(settings.mqtt.flush_s)
        finally:
            self.source.close()
            publisher.stop(0)
        result["messages"] = {"delivered": report.delivered, "waiting": report.waiting}
        if report.waiting:
            self.on_message(f"{report.waiting} messages wait on disk for {publisher.url}; the next start delivers them")
        return result

    # -- parts of a run ------------------------------------------------------------------------------------------

    def _create_record(self) -> RunRecord:
        info = self.info
        return RunRecord.create(
            self.request.out,
            run_id=self.run_id,
            settings=json.loads(without_secrets(self.settings).model_dump_json()),
            identity=self.identity.as_record(),
            info={
                "uri": info.uri, "kind": info.kind, "width_px": info.width_px, "height_px": info.height_px,
                "frame_rate_hz": info.frame_rate_hz, "um_per_px": info.um_per_px, "depth_um": info.depth_um,
                "flow_rate_ul_per_min": info.flow_rate_ul_per_min, "frames_total": info.frames_total,
                "knows_losses": info.knows_losses, "thresholds": info.thresholds,
                "volume_imaged_ml": info.volume_imaged_ml, "details": dict(info.details),
            },
            classes=self.classifier.classes,
            edges_um=FINE_EDGES_UM,
            calibration=self.calibration.model_dump(),
            bundle={
                "name": self.bundle.description.name,
                "version": self.bundle.description.version,
                "sha256": self.bundle.model_sha256,
                "size_reader_sha256": self.bundle.size_reader_sha256,
                "assumed_mix": list(self.bundle.assumed_mix),
                "signed_by": self.bundle.signed_by,
                "backend": self._opened.backend.name,
                "backend_version": self._opened.backend.version,
                "measured": measured_accuracy(self.bundle.description.metrics, self.bundle.description.training),
            },
            extra={
                "sample": self.settings.run.sample, "operator": self.settings.run.operator, "boot_id": self.boot_id,
                "verification": history_for_record(default_state_dir() / HISTORY_FILE),
            },
        )  # fmt: skip

    def _describe(self) -> Info:
        return info_message(
            settings=self.settings.mqtt,
            boot_id=self.boot_id,
            identity=self.identity,
            bundle=self.bundle,
            backend=self._opened.backend,
            classes=self.classifier.classes,
            calibration=self.calibration,
            at=self.started,
        )

    def _announce(self, record: RunRecord) -> None:
        record.enqueue(self._rows([self._run_message("running")]))
        self._event(record, "run_started", f"run {self.run_id} started on {self.info.uri}")
        for warning in self._opened.warnings:
            self._event(record, "backend_fallback", warning, severity="warning")
            self.on_message(warning)
        for kind, doubt in self._calibration_doubts().items():
            self._event(record, kind, doubt, severity="warning")

    def _run_message(self, state: Literal["running", "finished", "failed"], *, ended: datetime | None = None) -> Run:
        """The retained message about this run, as far as it has come."""
        total = self._total
        return Run(
            device=self._provenance.device,
            boot_id=self.boot_id,
            run_id=self.run_id,
            state=state,
            started=utc_text(self.started),
            ended=None if ended is None else utc_text(ended),
            source=self.info.uri,
            sample_id=self.settings.run.sample,
            operator=self.settings.run.operator,
            flow_rate_ul_per_min=self.info.flow_rate_ul_per_min,
            frames=total.frames,
            particles=total.particles,
            volume_ml=total.volume_ml,
            **self._provenance.calibration_at(ended),
        )

    def _event(
        self,
        record: RunRecord,
        code: str,
        text: str,
        *,
        severity: Severity = "info",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        with self._event_lock:
            self._events += 1
            number = self._events
        message = EventMessage(
            device=self._provenance.device,
            boot_id=self.boot_id,
            id=f"{self.run_id}-{number}",
            severity=severity,
            code=code,
            text=text,
            run_id=self.run_id,
            data=dict(details or {}),
            **self._provenance.calibration_at(),
        )
        record.event(code, text, severity=severity, details=details, outgoing=self._rows([message]))

    def _rows(self, messages: Sequence[Message]) -> list[Outgoing]:
        """Rows for the outbox; none where nothing is ever published, since nobody would delete them."""
        return [outgoing(self.topics, m) for m in messages] if self.settings.mqtt.enabled else []

    def _stall_watch(self, record: RunRecord, publisher: Publisher) -> StallWatch:
        """Says so, in the record and to everybody, while no frame comes, and how long that was."""

        def tell(code: str, text: str, severity: Severity, silent_s: float) -> None:
            # Windows are committed meanwhile: a full disk is told by them, and ends the run there.
            with contextlib.suppress(RecordingError):
                details = {"silent_s": round(silent_s, 1), "frames": self._loop.state.frames_in}
                self._event(record, code, text, severity=severity, details=details)
            publisher.notify()
            self.on_message(text)

        def on_stall(silent_s: float) -> None:
            text = f"{self.info.uri}: stalled, no frame for {silent_s:.1f} s"
            publisher.set_status("stalled", self.run_id, detail=text)
            tell("source_stalled", text, "warning", silent_s)

        def on_resume(silent_s: float) -> None:
            self._stalled_s.append(silent_s)
            publisher.set_status("running", self.run_id)
            tell("source_resumed", f"{self.info.uri}: went on after {silent_s:.1f} s without a frame", "info", silent_s)

        return StallWatch(
            lambda: self._loop.state.waiting_since,
            after_s=self.request.stalled_after_s,
            on_stall=on_stall,
            on_resume=on_resume,
        )

    def _drive(self, record: RunRecord, publisher: Publisher) -> None:
        windows = self._loop.windows()
        last_stats = time.monotonic()
        seen = replace(self._loop.state)
        try:
            for closed in windows:
                self._commit(record, closed)
                publisher.notify()
                self._tell_problems()
                if self.on_window is not None:
                    self.on_window(self._total)
                now = time.monotonic()
                if now - last_stats >= 1.0:
                    state = replace(self._loop.state)
                    stats = stats_message(
                        closed, provenance=self._provenance, run_id=self.run_id, now=state, before=seen,
                        elapsed_s=now - last_stats, counters=publisher.counters(),
                        frames_dropped=self._total.frames_lost + self._total.frames_rejected,
                    )  # fmt: skip
                    publisher.publish_volatile("stats", stats)
                    last_stats, seen = now, state
        finally:
            # Before the stages are waited for: they may be waiting for a source that is silent.
            self.source.close()
            windows.close()  # type: ignore[attr-defined]  # a generator; ends the stages' threads
        self._tell_problems()

    def _commit(self, record: RunRecord, closed: ClosedWindow) -> None:
        window = closed.window
        total = window if self._windows == 0 else self._total + window
        messages: list[Message] = [
            histogram_message(window, provenance=self._provenance, started=self.started),
            total_message(total, provenance=self._provenance, started=self.started),
        ]
        record.commit_window(
            window,
            closed.particles,
            class_index=closed.classification.class_index,
            confidence=closed.classification.confidence,
            probabilities=closed.classification.probabilities if self.settings.recording.probabilities else None,
            pictures=closed.pictures,
            outgoing=self._rows(messages),
        )
        self._total = total
        self._windows += 1

    def _tell_problems(self) -> None:
        messages = self.source.messages
        for line in messages[self._told :]:
            self.on_message(line)
        self._told = len(messages)

    def _finish(self, record: RunRecord, seconds: float) -> dict[str, Any]:
        loop, total = self._loop, self._total
        problems: Counter[str] = self.source.problems
        if problems:
            text = ", ".join(f"{n} {reason}" for reason, n in sorted(problems.items()))
            self._event(
                record, "source_problems", f"not everything could be read: {text}", severity="warning",
                details={"problems": dict(problems), "messages": self.source.messages},
            )  # fmt: skip
        result = {
            "run_id": self.run_id,
            "record": str(record.path),
            "frames": total.frames,
            # Without a frame there is no window that could hold the loss.
            "frames_lost": total.frames_lost if self._windows else lost_at_end(self.source),
            "losses_known": self.info.knows_losses,
            "frames_rejected": total.frames_rejected,
            "particles": total.particles,
            "volume_ml": total.volume_ml,
            "per_ml": per_ml(total.histogram, total.volume_ml)["all"],
            "counts": total.histogram.by_class(),
            "rejected": dict(total.rejected),
            "stuck_objects": loop.state.stuck_objects,
            "stuck_counted_before_found": loop.state.stuck_counted_before,
            "source_problems": dict(sorted(problems.items())),
            "source_stalls": len(self._stalled_s),
            "source_stalled_s": round(sum(self._stalled_s), 1),
            "windows": self._windows,
            "seconds": round(seconds, 3),
            "particles_per_min": round(total.particles / seconds * 60.0, 1) if seconds > 0 else 0.0,
            "doubts": self._notes(),
            "calibrated": self.calibration.calibrated,
            "calibration_state": self.calibration_state,
            "calibration_age_days": calibration_words(self.calibration, self.started)["calibration_age_days"],
            "calibration_expires": self.calibration.expires,
            **self.identity.as_record(),
        }
        frames_sha256 = loop.frame_hash.hexdigest() if loop.frame_hash is not None else None
        result["frames_sha256"] = frames_sha256
        state: RunState = "stopped" if self._stopped else "completed"
        ended = datetime.now(timezone.utc)
        messages: list[Message] = [
            self._run_message("finished", ended=ended),
            summary_message(
                total, provenance=self._provenance, started=self.started, ended=ended, windows=self._windows,
                source=self.info.uri, sample_id=self.settings.run.sample, operator=self.settings.run.operator,
                smallest_size_um=self.settings.window.min_ecd_um, notes=self._notes(),
            ),
        ]  # fmt: skip
        text = f"run {self.run_id} {state}: {total.particles} particles in {total.frames} frames"
        self._event(record, "run_ended", text)
        # Where the record lies is no part of it: it may be moved.
        kept = {key: value for key, value in result.items() if key != "record"}
        kept["optics"] = self._optics()
        record.finish(kept, state=state, frames_sha256=frames_sha256, outgoing=self._rows(messages))
        # Kept outside the record, the head of its chain shows later that nothing was cut off its end.
        return {**result, "record_head": record.head}

    def _optics(self) -> dict[str, Any]:
        """Light and background of the run, for its report; with a picture, so no part of what is printed."""
        state, background = self._loop.state, self._loop.background
        return optics_summary(
            background=background.picture if background.ready else None,
            background_level=state.background_level,
            noise=state.noise,
            uneven=state.uneven,
            strip=self._loop.strip.moments(),
        )

    def _fail(self, record: RunRecord, error: BaseException) -> None:
        """Close the record of a run that an error ended; where that cannot be written either, the next start does."""
        if record.finished:
            return
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        message = self._run_message("failed", ended=datetime.now(timezone.utc))
        # If the disk is full this may not fit either; the first error is the one to be told.
        with contextlib.suppress(RecordingError):
            self._event(record, "run_failed", f"run {self.run_id} ended by an error: {reason}", severity="error")
            record.finish({"error": reason}, state="failed", reason=reason, outgoing=self._rows([message]))

    @property
    def calibration_state(self) -> str:
        """``valid``, ``expired`` or ``not_calibrated``, at the start of the run."""
        return self.calibration.state(self.started)

    def _calibration_doubts(self) -> dict[str, str]:
        return calibration_doubts(self.calibration, self.started, simulated=self.info.kind == "sim")

    def _notes(self) -> list[str]:
        notes = list(self._calibration_doubts().values())
        if not self.info.knows_losses:
            notes.append("the source cannot tell whether frames were lost")
        return notes
