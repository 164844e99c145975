"""Speed of the loop and of its parts, and where the time goes.

``python -m benchmarks.loop_speed`` prints what ``edge-app bench`` measures, for several densities of particles;
``--profile`` the costliest calls of one stage after the other, in one thread.
"""

import argparse
import cProfile
import io
import json
import pstats

from edge_app.capture.simulation.flow_cell import open_simulation
from edge_app.classification.backends import open_backend
from edge_app.classification.bundle import Bundle
from edge_app.classification.classifier import Classifier
from edge_app.classification.context import field_positions
from edge_app.classification.crops import cut_crops
from edge_app.config import Settings, load_settings
from edge_app.measurement.descriptors import measure
from edge_app.pipeline import choose_calibration
from edge_app.segmentation.segmenter import Segmenter
from edge_app.speed import HeldFrames, SpeedRequest, measure_speed

DENSITIES_PER_ML = (20_000, 175_000, 900_000)


def profile(request: SpeedRequest, settings: Settings, *, frames: int, lines: int) -> str:
    """The costliest calls by their own time, in one thread, after a warm-up."""
    bundle = Bundle.load(settings.classification.bundle)
    opened = open_backend(bundle, preference=settings.classification.backend, threads=1)
    classifier = Classifier(bundle, opened.backend)
    source = open_simulation(request.uri)
    calibration = choose_calibration(settings.flow_cell, source.info)
    stream = list(HeldFrames(source.info, list(source.frames()), count=2 * frames).frames())
    segmenter = Segmenter(settings.segmentation)
    segmenter.prime([frame.image for frame in stream[: segmenter.prime_frames]])

    def work(first: int, last: int) -> None:
        for frame in stream[first:last]:
            found = segmenter.process(frame)
            if found.ratio is None:
                continue
            p = measure(found.ratio, found.regions, frame=frame.sequence, time_s=frame.time_s, calibration=calibration)
            p = p.take(p.ecd_um >= settings.window.min_ecd_um)
            crops = cut_crops(
                found.ratio, p.x_px, p.y_px, p.width_px, p.height_px,
                geometry=bundle.geometry, um_per_px=calibration.um_per_px,
                field=field_positions(p.x_px, p.y_px, p.width_px, p.height_px, frame_shape=found.ratio.shape),
            )  # fmt: skip
            classifier.classify(crops)

    work(0, frames)
    profiler = cProfile.Profile()
    profiler.enable()
    work(frames, 2 * frames)
    profiler.disable()
    text = io.StringIO()
    pstats.Stats(profiler, stream=text).strip_dirs().sort_stats("tottime").print_stats(lines)
    return text.getvalue()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="where the time goes instead of how much there is")
    args = parser.parse_args()
    settings = load_settings(None, {"mqtt.url": "embedded"})
    if args.profile:
        print(profile(SpeedRequest(), settings, frames=100, lines=30))
        return
    columns = (
        "particles_per_frame", "loop_particles_per_min", "line_rate_multiple", "loop_frames_per_s",
        "segmentation_frames_per_s", "classifier_particles_per_min", "loop_share_of_parts", "run_particles_per_min",
        "p50_ms", "p99_ms", "rss_mb", "spread", "stage_ms",
    )  # fmt: skip
    for density in DENSITIES_PER_ML:
        request = SpeedRequest(concentration_per_ml=density, frames=args.frames, repeats=args.repeats)
        result = measure_speed(request, settings)
        print(f"{density:,}/mL: {json.dumps({name: result[name] for name in columns})}", flush=True)
    print(f"{result['backend']}, {result['threads']} thread(s), {result['cores']} cores")


if __name__ == "__main__":
    main()
