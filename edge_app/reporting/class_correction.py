"""Concentrations by class with the classifier's confusions taken out, beside those as called."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_app.classification.prevalence import corrected_class_counts
from edge_app.measurement.concentration import Interval
from edge_app.recording.particle_columns import RecordedParticles
from edge_app.recording.pictures import UNKNOWN

__all__ = ["CorrectedClasses", "corrected_classes"]


@dataclass(frozen=True, kw_only=True)
class CorrectedClasses:
    """Corrected concentrations.

    Attributes
    ----------
    sizes_um
        Columns: those of the sizes asked for at and above which a particle was counted.
    rows
        Class -> one interval per size, per mL.
    called_unknown
        Particles per size that the classifier called ``unknown`` and that the correction hands to the classes.
    """

    sizes_um: tuple[float, ...]
    rows: Mapping[str, tuple[Interval, ...]]
    called_unknown: tuple[int, ...]


def corrected_classes(
    particles: RecordedParticles,
    *,
    bundle: Mapping[str, Any],
    sizes_um: Sequence[float],
    volume_ml: float,
) -> CorrectedClasses | None:
    """Correct by expectation maximisation on the probabilities of the record (``corrected_class_counts``).

    Parameters
    ----------
    bundle
        What the record says of the model; its ``assumed_mix`` is the mix behind the probabilities.
    sizes_um
        Cumulative sizes.
    volume_ml
        Analysed volume.

    Returns
    -------
    CorrectedClasses or None
        None where the record holds no probabilities or no ``assumed_mix``, or nothing was counted.
    """
    mix, probabilities = bundle.get("assumed_mix"), particles.probabilities
    known = tuple(c for c in particles.classes if c != UNKNOWN)
    if probabilities is None or mix is None or not volume_ml > 0 or len(mix) != len(known):
        return None
    counted = particles.particles.ecd_um[particles.particles.weight > 0]
    # Nothing can be said of a mix where there is no particle.
    sizes_um = [s for s in sizes_um if (counted >= np.float32(s)).any()]
    if not sizes_um:
        return None
    prior = np.asarray(mix, np.float64)
    found = []
    for size_um in sizes_um:
        chosen = particles.particles.ecd_um >= np.float32(size_um)
        found.append(
            corrected_class_counts(
                particles.class_index[chosen],
                particles.particles.weight[chosen],
                classes=known,
                probabilities=probabilities[chosen],
                assumed_prior=prior / prior.sum(),
                window=particles.window[chosen],
            )
        )
    tables = [c.intervals_per_ml(size_um=s, volume_ml=volume_ml) for s, c in zip(sizes_um, found, strict=True)]
    return CorrectedClasses(
        sizes_um=tuple(sizes_um),
        rows={name: tuple(t[name] for t in tables) for name in known},
        called_unknown=tuple(c.called_unknown for c in found),
    )
