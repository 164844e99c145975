"""Small runs with known content, for tests and for the programs that tests start and kill."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_app.measurement.calibration import nominal_calibration
from edge_app.measurement.histogram import Histogram
from edge_app.measurement.window import Window
from edge_app.recording.event import Event
from edge_app.recording.outgoing import Outgoing
from edge_app.recording.pictures import PictureOptions, PicturePicker
from edge_app.recording.run_record import RunRecord
from edge_app.segmentation.particles import Particles

CLASSES = ("silicone_oil", "air_bubble", "protein_aggregate", "glass", "unknown")
RUN_ID = "20261121t074500z-3f9c"
IDENTITY = {
    "pipeline_id": "ab" * 32,
    "steps": ["background:frames=16", "threshold:fraction=0.04"],
    "model_sha256": "cd" * 32,
    "calibration_id": "nominal-1.33um-100um",
    "calibration_sha256": "ef" * 32,
}
CALIBRATION = nominal_calibration(um_per_px=1.33, depth_um=100.0)
SHAPE = (96, 128)


@dataclass(frozen=True)
class WindowContent:
    window: Window
    particles: Particles
    class_index: np.ndarray
    confidence: np.ndarray
    probabilities: np.ndarray


def particles_of_frame(rng: np.random.Generator, *, frame: int, n: int, shape=SHAPE, time_s: float | None = None):
    height, width = shape
    w, h = rng.integers(4, 20, n), rng.integers(4, 20, n)
    x, y = rng.integers(0, width - 20, n), rng.integers(0, height - 20, n)
    area = np.maximum(w * h * 3 // 4, 1)
    ecd = CALIBRATION.ecd_um(area, area)
    mean = rng.uniform(0.5, 0.97, n)
    border = rng.random(n) < 0.1
    return Particles(
        frame=np.full(n, frame, np.int32),
        time_s=np.full(n, frame / 10 if time_s is None else time_s, np.float32),
        x_px=x.astype(np.int32),
        y_px=y.astype(np.int32),
        width_px=w.astype(np.int32),
        height_px=h.astype(np.int32),
        centroid_x_px=(x + w / 2).astype(np.float32),
        centroid_y_px=(y + h / 2).astype(np.float32),
        area_px=area.astype(np.int32),
        half_max_area_px=(area * 0.9).astype(np.float32),
        ecd_um=ecd,
        max_feret_um=(np.maximum(w, h) * 1.33).astype(np.float32),
        min_feret_um=(np.minimum(w, h) * 1.33).astype(np.float32),
        perimeter_um=((w + h) * 1.7).astype(np.float32),
        aspect_ratio=(np.minimum(w, h) / np.maximum(w, h)).astype(np.float32),
        circularity=rng.uniform(0.4, 1, n).astype(np.float32),
        solidity=rng.uniform(0.6, 1, n).astype(np.float32),
        intensity_mean=mean.astype(np.float32),
        intensity_min=(mean - 0.2).astype(np.float32),
        intensity_max=(mean + 0.03).astype(np.float32),
        intensity_std=rng.uniform(0.01, 0.1, n).astype(np.float32),
        edge_gradient=rng.uniform(0, 0.2, n).astype(np.float32),
        border=border,
        weight=np.where(border, 0, 1 / ((1 - w / width) * (1 - h / height))).astype(np.float32),
        learned_ecd_px=(0.8 * np.sqrt(area)).astype(np.float32),
    )


def classify(rng: np.random.Generator, n: int):
    probabilities = rng.dirichlet(np.ones(len(CLASSES) - 1), n).astype(np.float32)
    index = probabilities.argmax(1).astype(np.int16)
    confidence = probabilities.max(1, initial=0)
    index[confidence < 0.4] = len(CLASSES) - 1
    return index, confidence, probabilities


def window_of(run_id, seq, particles, class_index, *, frames, lost=0, rejected=None) -> Window:
    return Window(
        run_id=run_id,
        seq=seq,
        first_frame=seq * 3,
        last_frame=seq * 3 + 2,
        t0_s=seq * 0.3,
        t1_s=(seq + 1) * 0.3,
        frames=frames,
        frames_lost=lost,
        frames_rejected=sum(v for k, v in (rejected or {}).items() if k.startswith("frame_")),
        rejected=rejected or {},
        volume_ml=frames * CALIBRATION.frame_volume_ml(SHAPE[1], SHAPE[0]),
        histogram=Histogram.of(class_index, particles.ecd_um, particles.weight, classes=CLASSES),
    )


def window_content(rng: np.random.Generator, seq: int, *, per_frame: int = 6, run_id: str = RUN_ID) -> WindowContent:
    parts = [particles_of_frame(rng, frame=seq * 3 + f, n=per_frame) for f in range(3)]
    particles = Particles.concatenate(parts)
    index, confidence, probabilities = classify(rng, len(particles))
    rejected = {"border": int(particles.border.sum()), "frame_dark": seq % 2}
    window = window_of(run_id, seq, particles, index, frames=3 - seq % 2, lost=seq % 3, rejected=rejected)
    return WindowContent(window, particles, index, confidence, probabilities)


def create(directory: Path, *, run_id: str = RUN_ID, **options) -> RunRecord:
    settings = {
        "settings": {"window": {"length_s": 0.3}},
        "identity": IDENTITY,
        "info": {"uri": "sim:?seed=1", "kind": "sim"},
        "classes": CLASSES,
        "calibration": CALIBRATION.model_dump(),
        "bundle": {"name": "default", "sha256": "cd" * 32},
    }
    return RunRecord.create(directory, run_id=run_id, **(settings | options))


def write_run(
    directory: Path,
    *,
    windows: int = 3,
    per_frame: int = 6,
    seed: int = 0,
    run_id: str = RUN_ID,
    finish: bool = True,
    options: PictureOptions | None = None,
) -> Path:
    """Write a run; the content depends on the seed alone."""
    rng = np.random.default_rng(seed)
    picker = PicturePicker(classes=CLASSES, options=options)
    with create(directory, run_id=run_id) as record:
        for seq in range(windows):
            content = window_content(rng, seq, per_frame=per_frame, run_id=run_id)
            frames = content.particles.frame
            for frame in np.unique(frames):
                rows = frames == frame
                ratio = rng.integers(90, 170, SHAPE, np.uint8)
                picker.add(ratio, content.particles.take(rows), content.class_index[rows], content.confidence[rows])
            record.commit_window(
                content.window,
                content.particles,
                class_index=content.class_index,
                confidence=content.confidence,
                probabilities=content.probabilities,
                pictures=picker.close_window(),
                events=[Event(kind="led_drift", message=f"in window {seq}", severity="warning", time_s=0.1)],
                outgoing=[Outgoing(topic="mfi/1/lab/dev/histogram", payload={"seq": seq}, kind="histogram", seq=seq)],
                companion={"ECD(um)": np.arange(3.0), "Edge Particle": np.array(["yes", "no", "no"])},
                frames_sha256=f"{seq:064x}",
            )
        record.event("fallback", "CPU instead of Edge TPU", severity="warning", details={"backend": "litert"})
        if finish:
            record.finish({"seconds": 1.5}, frames_sha256=f"{windows:064x}")
    return record.path
