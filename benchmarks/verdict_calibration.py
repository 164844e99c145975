"""How often "pass" and "fail" are wrong, and what a run decides: against limits of which the truth is known.

For Poisson counts the probabilities are summed exactly over all counts. For runs whose windows scatter more than
Poisson (each particle imaged in up to four frames, ``benchmarks.interval_coverage``) they are simulated.

Usage::

    python -m benchmarks.verdict_calibration [--runs 500] [--seed 1] [--json]
"""

import argparse
import json
import math
from collections import Counter
from typing import Any

import numpy as np

from benchmarks.interval_coverage import FRAME_ML, FRAMES, SHARE_FROM, simulated_run
from edge_app.measurement.concentration import Interval, interval_per_ml
from edge_app.measurement.limits import Limit, Standard, compare, load_limits
from edge_app.measurement.poisson import poisson_interval


def limit_of(standard: str, size_um: float, container_ml: float) -> tuple[Standard, Limit]:
    """A limit of the shipped table."""
    found = load_limits()[standard]
    return found, next(x for x in found.applicable(container_ml) if x.size_um == size_um)


def poisson_verdicts(expected_at_limit: float, ratio: float) -> dict[str, float]:
    """Exact probability of each verdict for a count whose mean is ``ratio`` times that of a truth on the limit.

    Parameters
    ----------
    expected_at_limit
        Expected count in the analysed volume if the truth is on the limit.
    """
    mean = expected_at_limit * ratio
    reach = 12 * math.sqrt(mean) + 30
    n = np.arange(max(0, int(mean - reach)), int(mean + reach) + 1)
    log_factorial = np.array([math.lgamma(k + 1) for k in n])
    probability = np.exp(n * math.log(mean) - mean - log_factorial)
    low, high = poisson_interval(n)
    passed, failed = high <= expected_at_limit, low > expected_at_limit
    return {
        "pass": float(probability[passed].sum()),
        "fail": float(probability[failed].sum()),
        "inconclusive": float(probability[~passed & ~failed].sum()),
    }


def simulated_verdicts(
    scatter: str, *, size_um: float, container_ml: float, ratio: float, runs: int, seed: int
) -> dict[str, float]:
    """Share of each verdict over simulated runs, through windows, interval and comparison as in a report."""
    rng = np.random.default_rng([seed, int(1000 * ratio), int(size_um)])
    standard, limit = limit_of("usp-788", size_um, container_ml)
    truth = ratio * limit.maximum / (container_ml if limit.per == "container" else 1.0)
    results: Counter[str] = Counter()
    for _ in range(runs):
        series = simulated_run(truth / SHARE_FROM[size_um], scatter, rng)
        interval = interval_per_ml(series, size_um)
        results[compare(standard, limit, interval, container_ml=container_ml).result] += 1
    return {name: results[name] / runs for name in ("pass", "fail", "inconclusive")}


def decided_after_extra(ratio: float, *, expected_at_limit: float, runs: int, seed: int) -> dict[str, float]:
    """Of the runs left open, the share that the advised extra volume decides, and rightly."""
    rng = np.random.default_rng([seed, int(1000 * ratio)])
    standard, limit = limit_of("usp-788", 10.0, 1.0)
    volume = expected_at_limit / limit.maximum
    rate = ratio * limit.maximum
    opened = decided = wrong = 0
    for _ in range(runs):
        first = _poisson_run(rng, rate, volume)
        verdict = compare(standard, limit, first, container_ml=1.0)
        if verdict.result != "inconclusive" or verdict.extra_volume_ml is None or verdict.extra_volume_ml > 50 * volume:
            continue
        opened += 1
        more = verdict.extra_volume_ml
        again = _poisson_run(rng, rate, volume + more, already=first.counted, already_ml=volume)
        result = compare(standard, limit, again, container_ml=1.0).result
        decided += result != "inconclusive"
        wrong += result == ("fail" if ratio <= 1 else "pass")
    return {"open": opened / runs, "decided": decided / max(opened, 1), "wrong": wrong / max(opened, 1)}


def _poisson_run(
    rng: np.random.Generator, rate: float, volume: float, *, already: int = 0, already_ml: float = 0.0
) -> Interval:
    n = already + int(rng.poisson(rate * (volume - already_ml)))
    low, high = poisson_interval(n)
    return Interval(
        value=n / volume, low=float(low) / volume, high=float(high) / volume, method="poisson_exact", confidence=0.95,
        size_um=10.0, class_name="all", counted=n, volume_ml=volume,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    grid = np.geomspace(4, 20_000, 400)
    on_limit = [poisson_verdicts(float(m), 1.0) for m in grid]
    table: dict[str, Any] = {
        "exact, truth on the limit, 4 to 20,000 expected counts": {
            "pass at most": max(v["pass"] for v in on_limit),
            "fail at most": max(v["fail"] for v in on_limit),
        }
    }
    analysed = FRAMES * 0.95 * FRAME_ML
    for expected in (30.0, 300.0, 3000.0):
        for ratio in (0.5, 0.8, 0.9, 1.0, 1.1, 1.25, 2.0):
            table[f"exact, {expected:,.0f} counts expected on the limit, truth {ratio:g} x limit"] = poisson_verdicts(
                expected, ratio
            )
    for scatter in ("poisson", "repeated"):
        for size, container in ((10.0, 1.0), (25.0, 1.0), (10.0, 10.0)):
            _, limit = limit_of("usp-788", size, container)
            name = f"{scatter}, {analysed:.3f} mL of a {container:g} mL container, >= {size:g} um, truth on the limit"
            table[f"{name} ({analysed * limit.maximum / container:,.0f} counts)"] = simulated_verdicts(
                scatter, size_um=size, container_ml=container, ratio=1.0, runs=options.runs, seed=options.seed
            )
    for ratio in (0.9, 1.1):
        table[f"advised extra volume, 300 counts expected on the limit, truth {ratio:g} x limit"] = decided_after_extra(
            ratio, expected_at_limit=300, runs=options.runs, seed=options.seed
        )
    if options.json:
        print(json.dumps(table, indent=1))
        return
    for name, row in table.items():
        print(f"{name}: " + ", ".join(f"{key} {value:.4f}" for key, value in row.items()))


if __name__ == "__main__":
    main()
