"""Every network of the registry, taught with the same crops, on one table: accuracy, mix, size and speed.

usage: python -m benchmarks.network_table [--budget 60000] [--views 20000] [--only NETWORK] [--work work/networks]

Each network is taught with the same number of simulated crops, drawn from the same photographs of the same views, and
becomes a bundle. What is measured is the bundle, by the device's classifier, on unseen particles and on unseen optics.
Finished networks are kept below --work and not taught again with the same settings, so a killed table goes on; the
table itself is printed and written to --work/table.md. With --budget 0 nothing is taught: the table holds costs alone.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge_app.classification.backends import open_backend
from edge_app.classification.bundle import Bundle
from edge_app.classification.classifier import Classifier
from edge_app.classification.context import VOCABULARY
from edge_app.classification.crops import CropGeometry
from training.datasets.exposure import simulated_crops
from training.datasets.labelled import LabelledCrops
from training.datasets.views import ViewStore
from training.evaluation.prevalence import mix_errors
from training.evaluation.scores import macro_f1
from training.evaluation.speed import speed_figures
from training.finish import finish_bundle
from training.learning import Schedule, teach
from training.networks import NETWORKS, build_network, context_of, cost_of
from training.optics import KNOWN
from training.shape import columns_of_crops
from training.simulated import PRIOR, render_library, thin_out_small

WINDOW_PX: Final = 40
SEED: Final = 17
_UNTAUGHT_CROPS: Final = 64
#: Every n-th particle of the test libraries is enough to tell networks apart to a point.
TEST_SHARE: Final = 4


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A network as it stands on the table; ``share`` of the budget it is taught with."""

    options: dict[str, Any] = field(default_factory=dict)
    share: float = 1.0
    learning_rate: float = 1.5e-3


#: Published layouts that are cheap enough see the window twice enlarged (see `training.networks.enlarge`).
ENTRIES: Final[dict[str, Entry]] = {
    "fused_residual": Entry(),
    "multi_modal": Entry(),
    "usr_shape": Entry(),
    "mobilenet_v2_real_scale": Entry(),
    "mobilenet_v2": Entry(options={"alpha": 0.35, "enlarge": 2}),
    "mobilenet_v1": Entry(options={"alpha": 0.25, "enlarge": 2}),
    "mobilenet_v3_small": Entry(options={"alpha": 1.0, "enlarge": 2}),
    "efficientnet_lite0": Entry(share=0.5),
    "efficientnet_lite1": Entry(share=0.5),
    "efficientnet_lite2": Entry(share=0.5),
    "resnet50": Entry(options={"weights": "none", "enlarge": 1}, share=0.5, learning_rate=5e-4),
    "vgg16": Entry(options={"weights": "none", "enlarge": 1}, share=0.5, learning_rate=1e-4),
}


def photograph(work: Path, *, views: int, say: Any) -> dict[str, LabelledCrops]:
    """Crops to teach, calibrate and test with, with every column that any network asks for; kept in ``work``."""
    geometry = CropGeometry(window_px=WINDOW_PX, context=VOCABULARY)
    found: dict[str, LabelledCrops] = {}
    for name, libraries, every in (
        ("teach", ("train0", "train1"), 1),
        ("calibration", ("calibration",), 1),
        ("test", ("test",), TEST_SHARE),
        ("heldout", ("heldout",), TEST_SHARE),
    ):
        path = work / (f"crops_{name}_{views}.npz" if name == "teach" else f"crops_{name}.npz")
        if not path.exists():
            say(f"photographing {name}")
            store = ViewStore.concatenate([render_library(library, Path("work/simulate")) for library in libraries])
            if name == "teach":
                store = thin_out_small(store)
                every = max(1, len(store) // views)
            fixed: dict[str, Any] = {} if name in ("teach", "calibration") else {"margin_px": 1, "field_known": True}
            # Whole particles: all views of one are kept or left out.
            rows = np.flatnonzero(np.unique(store.group, return_inverse=True)[1] % every == 0)
            crops = simulated_crops(store, classes=KNOWN, geometry=geometry, seed=SEED, rows=rows, **fixed)
            crops = crops.take(np.flatnonzero(crops.label >= 0))
            work.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            with partial.open("wb") as file:
                np.savez(file, **vars(crops))
            partial.rename(path)
        with np.load(path) as data:
            found[name] = LabelledCrops(**dict(data.items()))
    return found


def with_context(crops: LabelledCrops, names: Sequence[str]) -> LabelledCrops:
    """Only the columns that a network asks for."""
    return replace(crops, context=crops.context[:, [VOCABULARY.index(name) for name in names]])


def taught_bundle(name: str, entry: Entry, crops: dict[str, LabelledCrops], out: Path, budget: int) -> Bundle:
    """Teach one network and write its bundle."""
    context = context_of(name)
    given = {key: with_context(value, context) for key, value in crops.items()}
    geometry = CropGeometry(window_px=WINDOW_PX, context=context)
    model = build_network(name, classes=len(KNOWN), window_px=WINDOW_PX, **entry.options)
    samples = round(budget * entry.share)
    schedule = Schedule(
        epochs=4,
        samples_per_epoch=max(32, samples // 4),
        # Short runs learn more from many small steps than from few large ones.
        batch=32,
        learning_rate=entry.learning_rate,
        ema_momentum=0.99,
        warm_up_steps=min(100, samples // 320),
    )
    began, cpu = time.perf_counter(), time.process_time()
    prior = np.array([PRIOR[c] for c in KNOWN])
    if budget:
        teach(model, lambda epoch: given["teach"], prior=prior, schedule=schedule, seed=SEED)
    else:
        given = {key: value.take(np.arange(_UNTAUGHT_CROPS)) for key, value in given.items()}
    cost = cost_of(model)
    return finish_bundle(
        model,
        out,
        network=name,
        network_options=entry.options,
        name=f"table-{name}",
        version="1",
        geometry=geometry,
        calibration=given["calibration"],
        tests={key: given[key] for key in ("test", "heldout")},
        classes=KNOWN,
        taught_mix=[PRIOR[c] for c in KNOWN],
        training={
            "source": "simulator",
            "seed": SEED,
            "views": len(given["teach"]),
            "particles": len(np.unique(given["teach"].group)),
            "epochs": schedule.epochs,
            "samples_per_epoch": schedule.samples_per_epoch,
            "samples": samples,
            "seconds": round(time.perf_counter() - began, 1),
            "cpu_seconds": round(time.process_time() - cpu, 1),
            "macs": cost.macs,
            "parameters": cost.parameters,
            "prior": PRIOR,
        },
    )


def figures(name: str, bundle: Bundle, crops: dict[str, LabelledCrops]) -> dict[str, Any]:
    """One row of the table, all of it measured on the bundle."""
    d = bundle.description
    context = d.input.context
    classifier = Classifier(bundle, open_backend(bundle, threads=1).backend)
    row: dict[str, Any] = {key: d.training[key] for key in ("macs", "parameters", "samples", "seconds", "cpu_seconds")}
    for test in ("test", "heldout") if row["samples"] else ():
        some = with_context(crops[test], context)
        some = some.take(np.flatnonzero(some.ecd_um >= 5))
        result = classifier.classify(some.crops)
        best = result.probabilities.argmax(axis=1)
        mixes = mix_errors(
            some.label,
            best,
            result.probabilities,
            confusion=d.confusion_matrix,
            assumed_prior=np.full(len(KNOWN), 1 / len(KNOWN)),
            mixes=100,
        )
        row[test] = {
            "particles": len(some),
            "macro_f1": macro_f1(some.label, best, len(KNOWN)),
            "macro_f1_5_to_8_um": macro_f1(some.label[some.ecd_um < 8], best[some.ecd_um < 8], len(KNOWN)),
            "mix_error_count": float(mixes.mae("count").mean()),
            "mix_error_emq": float(mixes.mae("emq").mean()),
            "int8_loss": d.metrics[test]["int8_loss"],
        }
        if name == "usr_shape":
            beside = some.context.copy()
            of_crop = columns_of_crops(some.pixels, names=context)
            for k, column in enumerate(context):
                if column in of_crop:
                    beside[:, k] = of_crop[column]
            called = classifier.classify(replace(some, context=beside).crops).probabilities.argmax(axis=1)
            row[test]["macro_f1_measured_in_the_crop"] = macro_f1(some.label, called, len(KNOWN))
    speed = speed_figures(bundle, with_context(crops["test"], context).crops, calls=20)
    row["kib"] = speed["model_kib"]
    row["us"] = {f"{t['threads']}x{t['batch']}": t["us_per_crop"] for t in speed["timings"]}
    row["backend"] = speed["backend"]
    return row


def as_markdown(rows: dict[str, dict[str, Any]]) -> str:
    """The table; microseconds per particle as batch of 1 / batch of 32."""
    head = (
        "| network | million MACs | thousand parameters | KiB | us, 1 thread | us, 2 threads | crops taught "
        "| macro-F1 | 5-8 um | unseen optics | 5-8 um | mix error, count | EMQ | int8 loss |"
    )
    lines = [head, "|---|" + "---:|" * (head.count("|") - 2)]
    for name, r in rows.items():
        us = r["us"]
        line = (
            f"| `{name}` | {r['macs'] / 1e6:.1f} | {r['parameters'] / 1e3:.0f} | {r['kib']:.0f} "
            f"| {us['1x1']:.0f} / {us['1x32']:.0f} | {us['2x1']:.0f} / {us['2x32']:.0f} "
        )
        if not r["samples"]:
            lines.append(line + "| - " * 8 + "|")
            continue
        t, h = r["test"], r["heldout"]
        lines.append(
            f"{line}| {r['samples']:,} "
            f"| {t['macro_f1']:.3f} | {t['macro_f1_5_to_8_um']:.3f} | {h['macro_f1']:.3f} "
            f"| {h['macro_f1_5_to_8_um']:.3f} | {100 * h['mix_error_count']:.1f} | {100 * h['mix_error_emq']:.1f} "
            f"| {100 * t['int8_loss']:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=int, default=60_000, help="crops that each network is taught with")
    parser.add_argument("--views", type=int, default=20_000, help="photographs that they are drawn from, at most")
    parser.add_argument("--photographs-only", action="store_true", help="stop when the crops are there")
    parser.add_argument("--only", action="append", choices=list(ENTRIES), help="this network; may be given again")
    parser.add_argument("--work", type=Path, default=Path("work/networks"), help="keeps crops and bundles")
    parser.add_argument("--weights", default="none", help="of VGG16 and ResNet50: imagenet or none")
    parser.add_argument("--speed-again", action="store_true", help="time finished networks again")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    args = parser.parse_args()
    assert set(ENTRIES) == set(NETWORKS)

    def say(line: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)

    crops = photograph(args.work, views=args.views, say=say if not args.json else lambda line: None)
    if args.photographs_only:
        return
    rows: dict[str, dict[str, Any]] = {}
    for name in args.only or ENTRIES:
        entry = ENTRIES[name]
        if "weights" in entry.options:
            entry = replace(entry, options={**entry.options, "weights": args.weights})
        settings = json.dumps(
            {"budget": args.budget, "views": args.views, "seed": SEED, **asdict(entry)}, sort_keys=True
        )
        kept = args.work / f"{name}.json"
        held = json.loads(kept.read_text()) if kept.exists() else {}
        if held.get("settings") != settings:
            if not args.json:
                say(f"teaching {name}")
            bundle = taught_bundle(name, entry, crops, args.work / name, args.budget)
            held = {}
        if not held or args.speed_again:
            bundle = Bundle.load(args.work / name)
            held = {"settings": settings, "row": figures(name, bundle, crops)}
            kept.write_text(json.dumps(held, indent=1) + "\n")
        rows[name] = held["row"]
        if not args.json:
            say(json.dumps({name: held["row"]}))
    if args.json:
        print(json.dumps(rows, indent=1))
        return
    table = as_markdown(rows)
    (args.work / "table.md").write_text(table + "\n", encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
