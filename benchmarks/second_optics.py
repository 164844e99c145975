"""Tight crops of a second optics program, written by others: does what was learned from ours hold on theirs?

usage: python -m benchmarks.second_optics --program ../shared/reference/optics_fast_prototype.py [--bundle DIR]
       [--volumes 500] [--seeds 1 2] [--fit SEED ...] [--work work/second_optics] [--json]

The program is called as `PROGRAM SEED VOLUMES OUT` and writes OUT.npz with ``I`` (n, 48, 48), intensity over background
at 1.33 um/px, and OUT.csv with `cls`, `kind` and `vol` of each. Its optics, shapes and size distributions are its own;
nothing was taught with its pictures. They are photographed as runs (a contrast, blur, noise and level each), cut
tightly at 4.2 % and saved as 8-bit crops of at least 5 um by an MFI's size curve, one folder per run, and read by
`classify`'s own way: no place in the field, background estimated. Silicone oil against everything else.

With `--fit 1 --seeds 2` the crops of seed 1 are labelled pictures of a lab, a folder for each of the two classes and a
file of runs, and `python -m training fit` learns from them, once from the bundle and once from nothing; those of seed
2, other particles in other runs, measure.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from edge_app.classification.backends import open_backend
from edge_app.classification.bundle import Bundle
from edge_app.classification.classifier import Classifier
from edge_app.classification.tight_crops import crops_of_pictures
from training.evaluation.scores import macro_f1

U1 = npt.NDArray[np.uint8]

RUNS_PER_SEED: Final = 6
UM_PER_PX: Final = 1.33
OIL: Final = "silicone_oil"
REST: Final = "rest"
HALO_UM: Final = 6.4  # of an MFI's masks: ECD = 1.33 um/px * d_px - 6.4 um
_DISC: Final = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))


@dataclass(frozen=True)
class Cut:
    """A crop with its truth: family, its size as an MFI would state it, and the run that it was photographed in."""

    picture: U1
    family: str
    kind: str
    run: str
    ecd_um: float


def rendered(
    program: Path, seed: int, volumes: int, work: Path
) -> tuple[npt.NDArray[np.float32], list[dict[str, str]]]:
    """Pictures and truth of the second program; made once."""
    out = work / f"second_{seed}_{volumes}"
    if not out.with_suffix(".csv").exists():
        work.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, str(program), str(seed), str(volumes), str(out)], check=True)
    with np.load(out.with_suffix(".npz")) as data:
        pictures = data["I"].astype(np.float32)
    with out.with_suffix(".csv").open(newline="") as file:
        return pictures, list(csv.DictReader(file))


def photographed(pictures: npt.NDArray[np.float32], truth: list[dict[str, str]], seed: int) -> list[Cut]:
    """Tight crops in runs; a particle's pictures are all of one run."""
    rng = np.random.default_rng(seed)
    volumes = rng.permutation(sorted({row["vol"] for row in truth}))
    run_of = {str(v): k * RUNS_PER_SEED // len(volumes) for k, v in enumerate(volumes)}
    runs = [
        (rng.uniform(0.8, 1.1), rng.uniform(0.3, 0.8), rng.uniform(0.005, 0.013), rng.uniform(185, 225))
        for _ in range(RUNS_PER_SEED)
    ]
    cuts = []
    for picture, row in zip(pictures, truth, strict=True):
        run = run_of[row["vol"]]
        gain, blur, noise, level = runs[run]
        image = cv2.GaussianBlur(1 + np.float32(gain) * (picture - 1), (0, 0), blur)
        image = image + np.float32(noise) * rng.standard_normal(image.shape, dtype=np.float32)
        camera = np.clip(np.rint(image * level), 0, 255).astype(np.uint8)
        binary = (np.abs(camera / level - 1) > 0.042).astype(np.uint8)
        binary = np.asarray(cv2.morphologyEx(binary, cv2.MORPH_CLOSE, _DISC), np.uint8)
        count, _, stats, _ = cv2.connectedComponentsWithStats(binary, connectivity=8)
        if count < 2:
            continue
        x, y, w, h, area = (int(v) for v in stats[1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())])
        ecd_um = UM_PER_PX * 2 * float(np.sqrt(area / np.pi)) - HALO_UM
        side_y, side_x = camera.shape
        if ecd_um >= 5 and x > 0 and y > 0 and x + w < side_x and y + h < side_y:
            cuts.append(Cut(camera[y : y + h, x : x + w], row["cls"], row["kind"], f"{seed}-{run}", ecd_um))
    return cuts


def write_labelled(cuts: list[Cut], folder: Path) -> Path:
    """Pictures as `fit` takes them: a folder for each class; returns the file of groups."""
    groups = [("file", "group")]
    for k, cut in enumerate(cuts):
        name = f"{OIL if cut.family == 'oil' else REST}/{k:05d}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), cut.picture)
        groups.append((name, cut.run))
    path = folder.parent / f"{folder.name}.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(groups)
    return path


def fitted(cuts: list[Cut], init: str, work: Path) -> Bundle:
    """A bundle that `fit` makes of the crops."""
    with tempfile.TemporaryDirectory(dir=work) as place:
        groups = write_labelled(cuts, Path(place) / "pictures")
        out = Path(place) / "bundle"
        data = ["--data", str(Path(place) / "pictures"), "--groups", str(groups), "--um-per-px", str(UM_PER_PX)]
        command = [sys.executable, "-m", "training", "fit", *data, "--init", init, "--out", str(out)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return Bundle.load(out)


def figures(classifier: Classifier, cuts: list[Cut]) -> dict[str, Any]:
    """Oil against the rest: scores, by size and by what the particle was."""
    crops = crops_of_pictures(
        [c.picture for c in cuts],
        geometry=classifier.bundle.geometry,
        um_per_px=UM_PER_PX,
        groups=[c.run for c in cuts],
    )
    found = classifier.classify(crops)
    oil = classifier.bundle.classes.index(OIL)
    said = np.asarray(found.class_index) == oil
    true = np.array([c.family == "oil" for c in cuts])
    size = np.array([c.ecd_um for c in cuts])

    def balanced(rows: npt.NDArray[np.bool_]) -> float:
        return round(float((said[rows & true].mean() + (~said[rows & ~true]).mean()) / 2), 4)

    called: dict[str, list[bool]] = defaultdict(list)
    for cut, s in zip(cuts, said.tolist(), strict=True):
        called[f"{cut.family}, {cut.kind}"].append(s)
    return {
        "crops": len(cuts),
        "macro_f1": round(macro_f1(true.astype(int), said.astype(int), 2), 4),
        "balanced_accuracy": balanced(np.ones(len(cuts), bool)),
        "recall_of_oil": round(float(said[true].mean()), 4),
        "recall_of_the_rest": round(float((~said[~true]).mean()), 4),
        "balanced_accuracy_by_um": {
            f"{low}-{high}": balanced((size >= low) & (size < high)) for low, high in ((5, 8), (8, 15), (15, 70))
        },
        "called_oil": {name: [len(v), round(float(np.mean(v)), 3)] for name, v in sorted(called.items())},
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, default=None)
    parser.add_argument("--volumes", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--fit", type=int, nargs="+", default=[], help="seeds of the crops to learn from")
    parser.add_argument("--work", type=Path, default=Path("work/second_optics"))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if not args.program.is_file():
        parser.error(f"{args.program}: no such file")
    if set(args.fit) & set(args.seeds):
        parser.error("--fit and --seeds share a seed: what is learned from cannot measure")

    def cuts_of(seeds: list[int]) -> list[Cut]:
        return [c for s in seeds for c in photographed(*rendered(args.program, s, args.volumes, args.work), seed=s)]

    bundle = Bundle.load(args.bundle)
    bundles = {f"{bundle.description.name} {bundle.description.version}": bundle}
    if args.fit:
        labelled = cuts_of(args.fit)
        words = f"fit on {len(labelled)} crops of other runs"
        bundles[f"{words}, from {next(iter(bundles))}"] = fitted(labelled, str(bundle.directory), args.work)
        bundles[f"{words}, from nothing"] = fitted(labelled, "none", args.work)
    cuts = cuts_of(args.seeds)
    results = [
        {"bundle": name, **figures(Classifier(one, open_backend(one).backend), cuts)} for name, one in bundles.items()
    ]
    if args.json:
        print(json.dumps(results, indent=1))
        return
    for result in results:
        print(
            f"{result['bundle']}: {result['crops']} crops: macro-F1 {result['macro_f1']:.3f}, balanced accuracy "
            f"{result['balanced_accuracy']:.3f} (oil {result['recall_of_oil']:.3f}, "
            f"rest {result['recall_of_the_rest']:.3f}); by um {result['balanced_accuracy_by_um']}"
        )
        for name, (number, share) in result["called_oil"].items():
            print(f"  {name:18s} {number:5d} crops, called oil {share:.3f}")


if __name__ == "__main__":
    main()
