"""How often the drift test raises the alarm: fresh particles of the same optics, another mix, held-out optics.

usage: python benchmarks/drift_alarm.py [--work work/simulate] [--bundle DIR] [--splits 20] [--windows 12] [--json]

The particles of the calibration and test libraries are halved at random, ``--splits`` times: one half makes the
reference, windows of 900 particles (450 where the mix is changed), one picture each, are drawn from the other half and
from the held-out library. Neither the network nor its calibration has seen the test and held-out libraries.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_app.classification import Bundle, Classifier, open_backend
from edge_app.classification.drift import class_drift, drift_reference
from training.datasets.exposure import simulated_crops
from training.datasets.labelled import LabelledCrops
from training.optics import KNOWN
from training.simulated import render_library

RATES = (0.05, 0.01)
WINDOW = 900
MIXES = ("as drawn", "ten times the oil", "steeper sizes", "flatter sizes")


@dataclass(frozen=True)
class Seen:
    """Particles as the network answers them."""

    crops: LabelledCrops
    particle: npt.NDArray[np.int64]
    embedding: npt.NDArray[np.float32]
    called: npt.NDArray[np.int16]
    confidence: npt.NDArray[np.float32]

    def columns(
        self, rows: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int16], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """What the drift test takes of some of them."""
        return self.embedding[rows], self.called[rows], self.confidence[rows], self.crops.box_px[rows]

    def window(self, rng: np.random.Generator, particles: npt.NDArray[np.int64], mix: str) -> npt.NDArray[np.int64]:
        """One picture each of some of the given particles, in random order."""
        rows = rng.permutation(np.flatnonzero(np.isin(self.particle, particles)))
        rows = rows[np.sort(np.unique(self.particle[rows], return_index=True)[1])][:WINDOW]
        if mix == "as drawn":
            return rows
        weight = {
            "ten times the oil": np.where(self.crops.label[rows] == KNOWN.index("silicone_oil"), 10.0, 1.0),
            "steeper sizes": 1 / self.crops.ecd_um[rows],
            "flatter sizes": self.crops.ecd_um[rows],
        }[mix].astype(float)
        return rng.choice(rows, len(rows) // 2, replace=False, p=weight / weight.sum())


def seen(bundle: Bundle, names: tuple[str, ...], work: Path) -> Seen:
    """Photograph libraries and let the bundle's network look at them."""
    parts, particle = [], []
    for k, name in enumerate(names):
        crops = simulated_crops(render_library(name, work), classes=KNOWN, geometry=bundle.geometry, seed=5)
        parts.append(crops)
        particle.append(crops.group.astype(np.int64) + k * 10**9)
    crops = LabelledCrops.concatenate(parts)
    classifier = Classifier(bundle, open_backend(bundle).backend)
    found = classifier.classify(crops.crops)
    embedding = classifier.outputs(crops.crops)[1]
    assert embedding is not None
    return Seen(crops, np.concatenate(particle), embedding, found.class_index, found.confidence)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work/simulate"))
    parser.add_argument("--bundle", type=Path, default=None)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--windows", type=int, default=12)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    bundle = Bundle.load(given.bundle)
    same, other = seen(bundle, ("calibration", "test"), given.work), seen(bundle, ("heldout",), given.work)
    alarms: dict[tuple[str, str, float], list[bool]] = {}
    tests: list[int] = []
    for split in range(given.splits):
        rng = np.random.default_rng(split)
        half = np.array_split(rng.permutation(np.unique(same.particle)), 2)
        rows = np.flatnonzero(np.isin(same.particle, half[0]))
        reference = drift_reference(
            *same.columns(rows), classes=bundle.classes, particle=same.particle[rows], draws=1500, seed=split
        )
        for mix in MIXES:
            for where, of, particles in (
                ("same optics", same, half[1]),
                ("held-out", other, np.unique(other.particle)),
            ):
                for _ in range(given.windows):
                    columns = of.columns(of.window(rng, particles, mix))
                    for rate in RATES:
                        found = class_drift(reference, *columns, false_alarm_rate=rate)
                        alarms.setdefault((where, mix, rate), []).append(any(t.alarm for t in found))
                    tests.append(sum(t.particles > 0 for t in found))
    share = {f"{where}, {mix}, {rate:g}": round(float(np.mean(v)), 3) for (where, mix, rate), v in alarms.items()}
    if given.json:
        print(json.dumps({"alarms": share, "windows": len(next(iter(alarms.values()))), "tests": np.mean(tests)}))
        return
    print(f"{bundle.description.name} {bundle.description.version}: share of windows with an alarm")
    print(f"({given.splits * given.windows} windows a row, {np.mean(tests):.1f} tests a window)")
    for name, value in share.items():
        print(f"{name:<45} {value:6.1%}")


if __name__ == "__main__":
    main()
