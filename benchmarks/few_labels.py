"""What pretraining on the simulator is worth where few pictures are labelled.

usage: python -m benchmarks.few_labels [--work work/simulate] [--results work/few_labels] [--seeds 5] [--json]

Pictures of optics outside the training draw stand for a lab's own: 5, 20 or 100 labelled ones of each class, one
picture per particle, are learned from as `python -m training fit` does, once from nothing and once from the shipped
bundle; other particles measure. Runs that are there are not made again. Writes docs/images/few_labels.png.
"""

from __future__ import annotations

import argparse
import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edge_app.capture.frame import RATIO_ONE
from edge_app.classification.bundle import Bundle
from edge_app.classification.crops import CropGeometry
from training.datasets.exposure import ExposureRanges, detect, expose_view
from training.datasets.pictures import LabelledPictures
from training.datasets.views import ViewStore
from training.datasets.weighting import class_mix
from training.evaluation.scores import class_scores, macro_f1
from training.fitting.options import FitOptions
from training.fitting.repeatable import make_repeatable
from training.fitting.results_folder import ResultsFolder
from training.fitting.start import network_from_bundle
from training.fitting.teaching import Logs, teach_pictures
from training.fitting.validation_groups import set_validation_aside
from training.learning import predict
from training.optics import KNOWN
from training.simulated import render_library

LABELS_PER_CLASS = (5, 20, 100)
#: Below it the classes cannot be told apart by anyone.
SMALLEST_UM = 5.0
TEST_PARTICLES_PER_CLASS = 34
TEST_VIEWS_PER_PARTICLE = 4
#: The first of them in which the particle is detected is labelled.
FIT_VIEWS_PER_PARTICLE = 3
#: From nothing takes more epochs than from a taught network; ``kept_epoch`` in the results tells whether they sufficed.
EPOCHS_FROM_NOTHING = {5: 60, 20: 40, 100: 14}
EPOCHS_FROM_BUNDLE = {5: 20, 20: 20, 100: 12}


def photographed(store: ViewStore, rows: np.ndarray, *, seed: int) -> LabelledPictures:
    """Camera pictures of views, cut where a threshold finds the particle, with a margin of one pixel."""
    ranges = ExposureRanges()
    pictures, kept = [], []
    for i in rows.tolist():
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(i,)))
        ratio, near, noise, _ = expose_view(store.picture(i), store.true_mask(i), rng, ranges)
        threshold = max(float(rng.uniform(*ranges.threshold)), 2.7 * noise)
        found = detect(
            ratio, near, threshold=threshold, dark_only=False, closing=1, smallest_area_px=ranges.smallest_area_px
        )
        if found is None or min(found.width, found.height) < 5:
            continue
        top, left = max(found.y - 1, 0), max(found.x - 1, 0)
        cut = ratio[top : found.y + found.height + 1, left : found.x + found.width + 1]
        pictures.append(np.ascontiguousarray(cut))
        kept.append(i)
    at = np.array(kept)
    return LabelledPictures(
        pictures=pictures,
        files=[f"{store.family[i]}/view{i}.png" for i in kept],
        label=np.array([KNOWN.index(str(store.family[i])) for i in kept], np.int64),
        group=np.array([f"particle{store.group[i]}" for i in kept]),
        level=np.full(len(kept), RATIO_ONE, np.float32),
        classes=tuple(KNOWN),
        um_per_px=CropGeometry().um_per_px,
        place=np.stack([store.field_x[at], store.field_y[at]], axis=1).astype(np.float32),
    )


def split_particles(store: ViewStore) -> tuple[np.ndarray, np.ndarray]:
    """Views to label one of for each particle, and views of other particles to measure with."""
    rng = np.random.default_rng(0)
    fit_rows, test_rows = [], []
    for family in KNOWN:
        rows = np.flatnonzero((store.family == family) & (store.ecd_um >= SMALLEST_UM))
        particles = rng.permutation(np.unique(store.group[rows]))
        for k, particle in enumerate(particles.tolist()):
            views = rng.permutation(rows[store.group[rows] == particle])
            if k < TEST_PARTICLES_PER_CLASS:
                test_rows += views[:TEST_VIEWS_PER_PARTICLE].tolist()
            else:
                fit_rows += views[:FIT_VIEWS_PER_PARTICLE].tolist()
    return np.array(fit_rows), np.array(test_rows)


def labelled(pool: LabelledPictures, per_class: int, *, seed: int) -> LabelledPictures:
    """Draw as many of each class."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(per_class,)))
    rows = [rng.permutation(np.flatnonzero(pool.label == c))[:per_class] for c in range(len(KNOWN))]
    return pool.take(np.sort(np.concatenate(rows)))


def score(logits: np.ndarray, test: LabelledPictures) -> dict[str, Any]:
    """Macro-F1 and F1 per class."""
    called = logits.argmax(axis=1)
    _, _, f1, _ = class_scores(test.label, called, len(KNOWN))
    return {"macro_f1": round(macro_f1(test.label, called, len(KNOWN)), 4), "f1": np.round(f1, 4).tolist()}


def one_run(
    pool: LabelledPictures, test: LabelledPictures, per_class: int, seed: int, init: Bundle | None
) -> dict[str, Any]:
    """Teach on a draw of the labels and measure."""
    geometry = CropGeometry() if init is None else init.geometry
    epochs = (EPOCHS_FROM_NOTHING if init is None else EPOCHS_FROM_BUNDLE)[per_class]
    options = FitOptions(epochs=epochs, patience=0 if init is None else FitOptions.patience, seed=seed)
    teaching, validation, _ = set_validation_aside(
        labelled(pool, per_class, seed=seed), share=options.validation_share, seed=seed
    )
    fitted = teach_pictures(
        teaching, validation, init=init, geometry=geometry, options=options, logs=Logs(report=lambda line: None)
    )
    # For equal shares of the classes, as the bundle would say it.
    mix = class_mix(teaching.label, len(KNOWN), method=options.balance)
    return {
        **score(predict(fitted.model, test.crops(geometry))["logits"] - np.log(mix), test),
        "kept_epoch": fitted.taught.kept_epoch,
        "epochs_made": fitted.record["epochs_made"],
        "validated": 0 if validation is None else len(validation),
    }


def untouched(bundle: Bundle, test: LabelledPictures) -> dict[str, Any]:
    """Figures of the bundle as it is, its float network."""
    model = network_from_bundle(bundle, bundle.classes)
    logits = predict(model, test.crops(bundle.geometry))["logits"] / bundle.description.temperature
    rule = bundle.description.rejection
    offset = rule.class_offset_unplaced or rule.class_offset or (0.0,) * len(KNOWN)
    return score(logits + np.asarray(bundle.description.log_prior) + np.asarray(offset), test)


def draw(results: dict[str, Any]) -> bytes:
    """The curve as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, ax = plt.subplots(figsize=(6.4, 4.0), dpi=130, layout="constrained")
    for name, colour, words in (
        ("bundle", "#1f6fb2", "fine-tuned from the shipped bundle"),
        ("nothing", "#c4572e", "from nothing"),
    ):
        rows = [[run["macro_f1"] for run in results[name][str(k)]] for k in LABELS_PER_CLASS]
        middle = [float(np.mean(row)) for row in rows]
        ax.fill_between(
            LABELS_PER_CLASS, [min(r) for r in rows], [max(r) for r in rows], color=colour, alpha=0.15, linewidth=0
        )
        ax.plot(LABELS_PER_CLASS, middle, color=colour, marker="o", linewidth=2, label=words)
        for k, row in zip(LABELS_PER_CLASS, rows, strict=True):
            ax.plot([k] * len(row), row, "o", color=colour, markersize=3, alpha=0.6)
        for k, value in zip(LABELS_PER_CLASS, middle, strict=True):
            above = 8 if name == "bundle" else -27
            ax.annotate(
                f"{value:.3f}", (k, value), xytext=(0, above), textcoords="offset points", ha="center", fontsize=9
            )
    untouched = results["untouched"]["macro_f1"]
    ax.axhline(
        untouched, color="#7a8691", linestyle="--", linewidth=1.2, label=f"shipped bundle untouched: {untouched:.3f}"
    )
    ax.set_xscale("log")
    ax.set_xticks(LABELS_PER_CLASS, [str(k) for k in LABELS_PER_CLASS])
    ax.minorticks_off()
    ax.set_xlim(4, 125)
    ax.set_ylim(0, 1)
    ax.set_xlabel("labelled pictures of each class (7 classes, optics outside the training draw)")
    ax.set_ylabel("macro-F1, other particles")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="#e6eaed", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.legend(frameon=False, fontsize=9, loc="lower right")
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    plt.close(figure)
    return content.getvalue()


def print_table(results: dict[str, Any]) -> None:
    print("labels per class | from nothing | from the bundle | gain, smallest over seeds")
    for k in LABELS_PER_CLASS:
        a, b = (np.array([run["macro_f1"] for run in results[name][str(k)]]) for name in ("nothing", "bundle"))
        cells = [f"{v.mean():.3f} ({v.min():.3f} to {v.max():.3f})" for v in (a, b)]
        print(f"{k} | {cells[0]} | {cells[1]} | {b.mean() - a.mean():+.3f}, {(b - a).min():+.3f}")
    print(f"shipped bundle untouched: {results['untouched']['macro_f1']:.3f}, {results['test_pictures']} pictures")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work/simulate"))
    parser.add_argument("--results", type=Path, default=Path("work/few_labels"))
    parser.add_argument("--bundle", type=Path, default=None)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs/images/few_labels.png"))
    parser.add_argument("--only", choices=["nothing", "bundle"], help="Make the runs of one start and end.")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    make_repeatable()
    bundle = Bundle.load(options.bundle)
    store = render_library("heldout", options.work)
    fit_rows, test_rows = split_particles(store)
    pool, test = photographed(store, fit_rows, seed=31), photographed(store, test_rows, seed=32)
    pool = pool.take(np.sort(np.unique(pool.group, return_index=True)[1]))
    results: dict[str, Any] = {
        "particles_to_label": np.bincount(pool.label).tolist(),
        "test_pictures": len(test),
        "bundle": f"{bundle.description.name} {bundle.description.version}",
    }
    plain = FitOptions()
    plans = {
        "nothing": {"start": "nothing", "epochs": EPOCHS_FROM_NOTHING},
        "bundle": {"start": bundle.model_sha256, "epochs": EPOCHS_FROM_BUNDLE, "stages": str(plain.stages)},
    }
    for name, plan in plans.items():
        if options.only not in (None, name):
            continue
        folder = ResultsFolder(options.results / name, plan)
        init = bundle if name == "bundle" else None
        results[name] = {}
        for k in LABELS_PER_CLASS:
            runs = []
            for seed in range(1, options.seeds + 1):
                piece = folder.piece(f"labels-{k}-seed-{seed}", partial(one_run, pool, test, k, seed, init))
                runs.append(piece)
                if not options.json:
                    print(f"{name}, {k} per class, seed {seed}: macro-F1 {piece['macro_f1']:.3f}", flush=True)
            results[name][str(k)] = runs
    if options.only is not None:
        return
    results["untouched"] = untouched(bundle, test)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_bytes(draw(results))
    if options.json:
        print(json.dumps(results, indent=1))
    else:
        print_table(results)


if __name__ == "__main__":
    main()
