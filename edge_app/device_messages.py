"""The messages about the device itself: what it is, and how it is doing."""

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import psutil

from edge_app import __version__
from edge_app.classification.backends import Backend
from edge_app.classification.bundle import Bundle
from edge_app.identity import PipelineIdentity
from edge_app.loop import LoopState
from edge_app.measurement.calibration import Calibration
from edge_app.measurement.histogram import FINE_EDGES_UM, REPORTING_EDGES_UM
from edge_app.messaging.counters import PublisherCounters
from edge_app.messaging.messages import Info, StageTime, Stats
from edge_app.messaging.provenance import Provenance, calibration_words
from edge_app.messaging.settings import MqttSettings
from edge_app.windowing import ClosedWindow

__all__ = ["info_message", "stats_message"]


def info_message(
    *,
    settings: MqttSettings,
    boot_id: str,
    identity: PipelineIdentity,
    bundle: Bundle,
    backend: Backend,
    classes: Sequence[str],
    calibration: Calibration,
    at: datetime,
) -> Info:
    """What the device is while a run goes on: its model, its calibration and the calibration's state at a moment."""
    description = bundle.description
    known = calibration_words(calibration, at)
    return Info(
        site=settings.site,
        device=settings.device_id,
        boot_id=boot_id,
        app_version=__version__,
        pipeline=identity.pipeline_id,
        steps=list(identity.steps),
        model={
            "name": description.name,
            "version": description.version,
            "sha256": bundle.model_sha256,
            "quantisation": "int8",
            "signed_by": bundle.signed_by,
        },
        calibration={
            "id": calibration.id,
            "um_per_px": calibration.um_per_px,
            "calibrated": calibration.calibrated,
            "state": known["calibration_state"],
            "age_days": known["calibration_age_days"],
            "created": calibration.created,
            "expires": calibration.expires,
            "note": calibration.note,
        },
        calibration_state=known["calibration_state"],
        calibration_age_days=known["calibration_age_days"],
        classes=list(classes),
        edges_um=[e if np.isfinite(e) else None for e in FINE_EDGES_UM],
        reporting_sizes_um=list(REPORTING_EDGES_UM),
        backend=f"{backend.name} {backend.version}",
        accelerator="edgetpu" if backend.name == "edgetpu" else "cpu",
        host={"machine": platform.machine(), "system": platform.system(), "python": platform.python_version()},
    )


def stats_message(
    closed: ClosedWindow,
    *,
    provenance: Provenance,
    run_id: str,
    now: LoopState,
    before: LoopState,
    elapsed_s: float,
    frames_dropped: int,
    counters: PublisherCounters,
) -> Stats:
    """How the device is doing: rates between two looks at the loop, ``elapsed_s`` apart.

    Parameters
    ----------
    closed
        The window that was closed last: its latencies are the stage times.
    now, before
        State of the loop now and at the last look.
    frames_dropped
        Frames lost and rejected since the start of the run.
    """
    return Stats(
        device=provenance.device,
        boot_id=provenance.boot_id,
        run_id=run_id,
        frames_per_s_in=(now.frames_in - before.frames_in) / elapsed_s,
        frames_per_s_out=(now.frames_counted - before.frames_counted) / elapsed_s,
        particles_per_s=(now.particles - before.particles) / elapsed_s,
        stages={
            "frame": StageTime(
                p50_ms=float(np.percentile(closed.latency_ms, 50)),
                p99_ms=float(np.percentile(closed.latency_ms, 99)),
            )
        },
        frames_dropped=frames_dropped,
        temperatures_c=_temperatures(),
        rss_mb=psutil.Process(os.getpid()).memory_info().rss / 1e6,
        waiting=counters.waiting,
        published=counters.published,
        reconnects=counters.reconnects,
        merged=counters.merged,
        **provenance.calibration_at(),
    )


def _temperatures() -> dict[str, float]:
    # Not every platform has the call.
    read: Callable[[], Mapping[str, Any]] = getattr(psutil, "sensors_temperatures", dict)
    return {name: float(entries[0].current) for name, entries in read().items() if entries}
