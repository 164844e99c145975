"""How often an interval holds the truth, and how wide it is: simulated counts of runs whose concentration is known.

A run is 600 frames of 0.232 uL at 10 frames a second in windows of 1 s (a flow cell at 1.33 um/px, 100 um deep); 5 % of
the frames are lost. Particles of 5 um up follow a power law in size, each is accepted with the probability that the
border leaves it whole and then counts by the inverse. Three kinds of scatter:

- ``poisson``: every image is a particle of its own;
- ``repeated``: a particle is imaged in up to four frames in a row (mean 2), the case of a slow flow;
- ``clumped``: the concentration itself wanders, with a memory of 2 s and a relative standard deviation of 15 %;

and, for the classes, a classifier whose calibrated probabilities overlap (accuracy about 0.8), with the counts of seven
classes corrected by EMQ and by the confusion matrix. The worst of seven classes lies below 0.95 by chance: by 400 runs,
below 0.935 in half of such tables even if each class had exactly 0.95.

Usage::

    python -m benchmarks.interval_coverage [--runs 200] [--class-runs 400] [--seed 1] [--json]
"""

import argparse
import json
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_app.classification.prevalence import corrected_class_counts
from edge_app.measurement.concentration import CountSeries, interval_per_ml

F8 = npt.NDArray[np.float64]

CONCENTRATIONS = (2_000.0, 20_000.0, 175_000.0, 600_000.0)
EDGES_UM = (5.0, 10.0, 25.0, float("inf"))
SHARE_FROM = {5.0: 1.0, 10.0: 2.0**-2.5, 25.0: 5.0**-2.5}
ACCEPTED = np.array([0.993, 0.985, 0.960])  # by the border, in each bin
FRAMES, FRAME_ML, PER_WINDOW = 600, 0.232e-3, 10
SCATTERS = ("poisson", "repeated", "clumped")

CLASS_SHARES = np.array([0.55, 0.2, 0.12, 0.07, 0.04, 0.02, 0.0])
SEPARATION = 2.6


def simulated_run(concentration: float, scatter: str, rng: np.random.Generator, *, frames: int = FRAMES) -> CountSeries:
    """Windows of a run at a concentration (particles of 5 um up per mL)."""
    per_frame = concentration * FRAME_ML
    share = -np.diff([*SHARE_FROM.values(), 0.0])
    rate = np.outer(np.full(frames, per_frame), share * ACCEPTED)
    if scatter == "clumped":
        memory = np.exp(-1 / 20)  # 2 s at 10 frames a second
        noise = rng.standard_normal(frames) * np.sqrt(1 - memory**2)
        noise[0] /= np.sqrt(1 - memory**2)
        wander = np.empty(frames)
        level = 0.0
        for i in range(frames):
            level = memory * level + noise[i]
            wander[i] = level
        rate *= np.exp(0.15 * wander - 0.15**2 / 2)[:, None]
    if scatter == "repeated":
        images = np.array([0.4, 0.3, 0.2, 0.1])  # seen in 1, 2, 3 or 4 frames: mean 2
        first = rng.poisson(rate[None] * (images / (images @ np.arange(1, 5)))[:, None, None])
        seen = np.zeros_like(rate)
        for k in range(4):
            for shift in range(k + 1):
                # Those that came before the first frame are on it too: the run is a cut from a longer flow.
                seen += np.roll(first[k], shift, axis=0)
    else:
        seen = rng.poisson(rate).astype(np.float64)
    taken = rng.random(frames) > 0.05
    seen[~taken] = 0.0
    windows = frames // PER_WINDOW
    counts = seen.reshape(windows, PER_WINDOW, -1).sum(1)
    volume = taken.reshape(windows, PER_WINDOW).sum(1) * FRAME_ML
    kept = volume > 0
    return CountSeries(
        classes=("particle",),
        edges_um=EDGES_UM,
        counts=counts[kept, None, :],
        weighted=(counts / ACCEPTED)[kept, None, :],
        volume_ml=volume[kept],
    )


def coverage(concentration: float, scatter: str, *, size_um: float, runs: int, seed: int) -> dict[str, Any]:
    """Share of runs whose 95 % interval holds the truth, for our interval and for a plain Poisson one."""
    rng = np.random.default_rng([seed, int(concentration), SCATTERS.index(scatter), int(size_um)])
    truth = concentration * SHARE_FROM[size_um]
    inside = plain_inside = 0
    widths, values, plain_widths = [], [], []
    for _ in range(runs):
        series = simulated_run(concentration, scatter, rng)
        ours = interval_per_ml(series, size_um)
        plain = interval_per_ml(series, size_um, dispersion="poisson")
        inside += ours.low <= truth <= ours.high
        plain_inside += plain.low <= truth <= plain.high
        widths.append(ours.high - ours.low)
        plain_widths.append(plain.high - plain.low)
        values.append(ours.value)
    return {
        "coverage": inside / runs,
        "coverage_poisson": plain_inside / runs,
        "width_over_poisson": float(np.mean(widths) / np.mean(plain_widths)),
        "bias": float(np.mean(values) / truth - 1),
    }


def classified(shares: F8, expected: float, rng: np.random.Generator) -> tuple[npt.NDArray[np.int64], F8]:
    """True classes of a Poisson number of particles, and calibrated probabilities under equal shares."""
    number = rng.poisson(expected * shares)
    true = np.repeat(np.arange(len(shares)), number)
    seen = rng.standard_normal((len(true), len(shares)))
    seen[np.arange(len(true)), true] += SEPARATION
    logits = SEPARATION * seen  # the exact posterior of this model
    likelihood = np.exp(logits - logits.max(1, keepdims=True))
    return true, likelihood / likelihood.sum(1, keepdims=True)


def class_coverage(particles: float, method: str, *, runs: int, seed: int) -> dict[str, Any]:
    """The same for the corrected counts of classes; bias of the count as called beside."""
    rng = np.random.default_rng([seed, int(particles), len(method)])
    classes = [f"class {i}" for i in range(len(CLASS_SHARES))]
    inside = np.zeros(7)
    corrected, naive = np.zeros(7), np.zeros(7)
    for run in range(runs):
        # A test set of its own for each run: an unlucky one would shift all of them alike.
        true, p = classified(np.full(7, 1 / 7), 14_000, rng)
        tested = np.bincount(true, minlength=7)
        matrix = np.bincount(true * 8 + _called(p), minlength=56).reshape(7, 8) / tested[:, None]
        _, p = classified(CLASS_SHARES, particles, rng)
        found = corrected_class_counts(
            _called(p),
            np.ones(len(p)),
            classes=classes,
            probabilities=p if method == "emq" else None,
            confusion=matrix,
            tested_per_class=tested,
            seed=run,
        )
        truth = particles * CLASS_SHARES
        inside += (found.low <= truth) & (truth <= found.high)
        corrected += found.corrected / particles / runs
        naive += found.naive / particles / runs
    return {
        "coverage": float(inside.mean() / runs),
        "coverage_worst_class": float(inside.min() / runs),
        "largest_bias": float(np.abs(corrected - CLASS_SHARES).max()),
        "largest_bias_as_called": float(np.abs(naive - CLASS_SHARES).max()),
    }


def _called(probabilities: F8) -> npt.NDArray[np.int64]:
    return np.where(probabilities.max(1) < 0.5, 7, probabilities.argmax(1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--class-runs", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    table: dict[str, Any] = {}
    for scatter in SCATTERS:
        for concentration in CONCENTRATIONS:
            for size in (10.0, 25.0):
                name = f"{scatter}, {concentration:,.0f} per mL, >= {size:g} um"
                table[name] = coverage(concentration, scatter, size_um=size, runs=options.runs, seed=options.seed)
                if not options.json:
                    r = table[name]
                    print(
                        f"{name:44s} holds the truth {r['coverage']:.3f} (plain Poisson {r['coverage_poisson']:.3f}), "
                        f"width over Poisson {r['width_over_poisson']:.2f}, bias {r['bias']:+.4f}"
                    )
    for method in ("emq", "confusion"):
        for particles in (300.0, 3_000.0, 30_000.0):
            name = f"classes by {method}, {particles:,.0f} particles"
            table[name] = class_coverage(particles, method, runs=options.class_runs, seed=options.seed)
            if not options.json:
                r = table[name]
                print(
                    f"{name:44s} holds the truth {r['coverage']:.3f} (worst class {r['coverage_worst_class']:.3f}), "
                    f"largest bias of a share {r['largest_bias']:.4f} (as called {r['largest_bias_as_called']:.4f})"
                )
    if options.json:
        print(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
