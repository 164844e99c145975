"""What the run record costs: writing, picking pictures, reading, checking, exporting.

Run: ``python -m benchmarks.record_speed [--windows N] [--json]``. Windows of one second at line rate (14 frames of 43
particles). Figures are medians; all but ``window_wall_ms`` and what follows from it are processor time, so that other
work on the machine does not enter.
"""

import argparse
import json
import sqlite3
import tempfile
import time
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median

import numpy as np

from edge_app.measurement.calibration import nominal_calibration
from edge_app.measurement.histogram import Histogram
from edge_app.measurement.window import Window
from edge_app.recording.audit import verify_record
from edge_app.recording.export import export_table
from edge_app.recording.frame_hash import FrameHash
from edge_app.recording.particle_columns import PARTICLE_DTYPES
from edge_app.recording.pictures import PicturePicker
from edge_app.recording.record_reader import open_record
from edge_app.recording.run_record import RunRecord
from edge_app.recording.schema import AUDITED_TABLES
from edge_app.segmentation.particles import Particles

CLASSES = (
    "silicone_oil",
    "air_bubble",
    "protein_aggregate",
    "protein_mimic",
    "glass",
    "cellulose",
    "bead",
    "unknown",
)
FRAMES, PER_FRAME, SHAPE = 14, 43, (1024, 1280)
RATE_PER_S = 12_000


def particles_of_frame(rng: np.random.Generator, frame: int) -> Particles:
    """Columns with the digits that measured ones have: whole pixels, means of whole grey levels over an area."""
    n = PER_FRAME
    side = np.clip(rng.lognormal(1.9, 0.5, n), 3, 80)
    w, h = np.round(side * rng.uniform(0.8, 1.3, n)).astype(int), np.round(side).astype(int)
    x, y = rng.integers(0, SHAPE[1] - 120, n), rng.integers(0, SHAPE[0] - 120, n)
    area = np.maximum(np.round(0.75 * w * h), 1)
    ecd = 2 * np.sqrt(area / np.pi) * 1.33
    values = {
        "frame": np.full(n, frame),
        "time_s": np.full(n, frame / FRAMES),
        "x_px": x,
        "y_px": y,
        "width_px": w,
        "height_px": h,
        "centroid_x_px": x + rng.integers(0, area * w) / area,
        "centroid_y_px": y + rng.integers(0, area * h) / area,
        "area_px": area,
        "half_max_area_px": np.round(area * 0.9, 1),
        "ecd_um": ecd,
        "max_feret_um": ecd * rng.uniform(1, 1.5, n),
        "min_feret_um": ecd * rng.uniform(0.7, 1, n),
        "perimeter_um": ecd * 3.3,
        "aspect_ratio": rng.uniform(0.3, 1, n),
        "circularity": rng.uniform(0.5, 1, n),
        "solidity": rng.uniform(0.7, 1, n),
        "intensity_mean": rng.integers(80 * area, 155 * area) / area / 160,
        "intensity_min": rng.integers(40, 120, n) / 160,
        "intensity_max": rng.integers(150, 170, n) / 160,
        "intensity_std": rng.uniform(0.02, 0.2, n),
        "edge_gradient": rng.uniform(0, 0.2, n),
        "border": rng.random(n) < 0.02,
        "weight": np.ones(n),
        "learned_ecd_px": ecd / 1.4,
    }
    return Particles(**{name: np.asarray(values[name]).astype(PARTICLE_DTYPES[name]) for name in PARTICLE_DTYPES})


def measure_writing(directory: Path, *, windows: int) -> dict[str, float]:
    """Write a run; cost of a window in ms, wall and processor."""
    rng = np.random.default_rng(0)
    ratio = rng.normal(160, 2, SHAPE).clip(0, 255).astype(np.uint8)
    picker, hashed = PicturePicker(classes=CLASSES), FrameHash()
    wall, cpu, picking, hashing, pictures = [], [], [], [], 0
    calibration = nominal_calibration(um_per_px=1.33, depth_um=100)
    with RunRecord.create(
        directory,
        run_id="benchmark",
        settings={},
        identity={},
        info={},
        classes=CLASSES,
        calibration=calibration.model_dump(),
    ) as record:
        for seq in range(windows):
            parts = [particles_of_frame(rng, seq * FRAMES + f) for f in range(FRAMES)]
            particles = Particles.concatenate(parts)
            n = len(particles)
            probabilities = rng.dirichlet(np.ones(len(CLASSES) - 1), n).astype(np.float32)
            index, confidence = probabilities.argmax(1), probabilities.max(1)
            start = time.process_time()
            for f, part in enumerate(parts):
                own = slice(f * PER_FRAME, (f + 1) * PER_FRAME)
                picker.add(ratio, part, index[own], confidence[own])
            kept = picker.close_window()
            picking.append((time.process_time() - start) / FRAMES)
            pictures += len(kept)
            start = time.process_time()
            hashed.update(ratio, sequence=seq)
            hashing.append(time.process_time() - start)
            window = Window(
                run_id=record.run_id,
                seq=seq,
                first_frame=seq * FRAMES,
                last_frame=seq * FRAMES + FRAMES - 1,
                t0_s=float(seq),
                t1_s=seq + 1.0,
                frames=FRAMES,
                frames_lost=0,
                frames_rejected=0,
                rejected={},
                volume_ml=FRAMES * calibration.frame_volume_ml(SHAPE[1], SHAPE[0]),
                histogram=Histogram.of(index, particles.ecd_um, particles.weight, classes=CLASSES),
            )
            start, start_cpu = time.perf_counter(), time.process_time()
            record.commit_window(
                window,
                particles,
                class_index=index,
                confidence=confidence,
                probabilities=probabilities,
                pictures=kept,
                frames_sha256=hashed.hexdigest(),
            )
            wall.append(time.perf_counter() - start)
            cpu.append(time.process_time() - start_cpu)
        record.finish({})
    rows = FRAMES * PER_FRAME
    return {
        "window_wall_ms": median(wall) * 1e3,
        "window_cpu_ms": median(cpu) * 1e3,
        "core_percent_at_12000_per_s": median(cpu) / rows * RATE_PER_S * 100,
        "particles_per_s_wall": rows / median(wall),
        "picker_us_per_frame": median(picking) * 1e6,
        "frame_hash_ms": median(hashing) * 1e3,
        "pictures_kept": pictures,
        "bytes_per_particle": record.path.stat().st_size / (windows * rows),
    }


def measure_deflating() -> dict[str, float]:
    """What deflating would save and cost, integer and float columns apart."""
    rng = np.random.default_rng(0)
    particles = Particles.concatenate([particles_of_frame(rng, f) for f in range(FRAMES)])
    found: dict[str, float] = {}
    for kind, wanted in (("integer", "ib"), ("float", "f")):
        blobs = [getattr(particles, n).tobytes() for n, d in PARTICLE_DTYPES.items() if d[1] in wanted]
        seconds = timed(lambda blobs=blobs: [zlib.compress(b, 1) for b in blobs])  # type: ignore[misc]
        size = sum(map(len, blobs))
        found[f"deflated_{kind}_share"] = sum(len(zlib.compress(b, 1)) for b in blobs) / size
        found[f"deflated_{kind}_us_per_particle"] = seconds / len(particles) * 1e6
    return found


def audited_rows(path: Path) -> int:
    """Rows of the record that the audit chain answers for."""
    with closing(sqlite3.connect(path)) as connection:
        return sum(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in AUDITED_TABLES)


def timed(work: Callable[[], object], *, repeats: int = 5) -> float:
    """Median processor seconds of a call."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=60, help="windows of 602 particles (default: %(default)s)")
    parser.add_argument("--directory", type=Path, help="where to write (default: a temporary folder)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        directory = Path(name)
        found = measure_writing(directory, windows=options.windows) | measure_deflating()
        path = directory / "benchmark.sqlite"
        with open_record(path) as record:
            rows = len(record.particles())
            found["rows"] = rows
            found["read_particles_s_per_35000"] = timed(record.particles) * 35_000 / rows
            found["summary_s"] = timed(record.summary)
            for format in ("csv", "json", "mfi-csv", "parquet"):
                out = directory / format
                seconds = timed(lambda format=format, out=out: export_table(record, format=format, out=out))  # type: ignore[misc]
                found[f"export_{format}_s_per_35000"] = seconds * 35_000 / rows
        verify_s = timed(lambda: verify_record(path))
        found["verify_ms_per_window"] = verify_s / options.windows * 1e3
        found["verify_s_per_100000_particles"] = verify_s / rows * 1e5
        found["verify_s_per_100000_rows"] = verify_s / audited_rows(path) * 1e5
    if options.json:
        print(json.dumps({k: round(v, 4) for k, v in found.items()}))
    else:
        for key, value in found.items():
            print(f"{key:36} {value:12.4g}")


if __name__ == "__main__":
    main()
