"""Two records of the same frames side by side: what was done differently, and what came out differently."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edge_app.measurement.window import per_ml
from edge_app.recording.particle_columns import RecordedParticles
from edge_app.recording.record_reader import Record

__all__ = ["Change", "Difference", "ParticleMatch", "RecordNumbers", "compare_records"]

ALL: Final = "all"
_NO_INFLUENCE: Final = ("mqtt", "run")
"""Settings that decide where results go and whose they are, but no number."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """Something that was not the same: its name and both values as text (None: not there)."""

    name: str
    parent: str | None
    child: str | None


@dataclass(frozen=True, kw_only=True)
class RecordNumbers:
    """One of the two records.

    Attributes
    ----------
    run_id, started, software, head
        Which record, when it was made, by which version; hash of its last audit entry when it was compared.
    frames, frames_lost, frames_rejected, particles, volume_ml
        Totals of the run.
    per_ml
        Class (``all`` first) -> size in um as text -> cumulative concentration, None where nothing was analysed or
        the size lies below the smallest one that the record reports.
    counts
        Class -> particles.
    rejected
        Reason -> particles or frames.
    """

    run_id: str
    started: str
    software: str
    head: str
    frames: int
    frames_lost: int
    frames_rejected: int
    particles: int
    volume_ml: float
    per_ml: Mapping[str, Mapping[str, float | None]]
    counts: Mapping[str, int]
    rejected: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class ParticleMatch:
    """The particles themselves, matched by frame and box.

    Attributes
    ----------
    same_box
        In both records with the same frame and the same box.
    only_parent, only_child
        In one of them alone: other boxes, or not found.
    resized
        Of ``same_box``: with another size in um.
    size_ratio
        5th, 50th and 95th percentile of size in the child / size in the parent over ``same_box``; None without any.
    reclassified
        (class in the parent, class in the child) -> particles of ``same_box``, where the two differ.
    """

    same_box: int
    only_parent: int
    only_child: int
    resized: int
    size_ratio: tuple[float, float, float] | None
    reclassified: Mapping[tuple[str, str], int]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Two records side by side.

    Attributes
    ----------
    parent, child
        Their numbers.
    reason
        Why the child was made.
    frames_agree
        Both saw the same pixels, by the hash over all frames.
    steps
        Steps of the pipeline's identity that changed, model and calibration among them.
    settings
        Settings with an influence on numbers that changed.
    particles
        What became of each particle.
    """

    parent: RecordNumbers
    child: RecordNumbers
    reason: str
    frames_agree: bool
    steps: tuple[Change, ...]
    settings: tuple[Change, ...]
    particles: ParticleMatch

    @property
    def classes(self) -> tuple[str, ...]:
        """``all``, then every class of either record, ``unknown`` last."""
        names = dict.fromkeys([*self.parent.per_ml, *self.child.per_ml])
        last = [n for n in names if n == "unknown"]
        return tuple([n for n in names if n != "unknown"] + last)

    @property
    def sizes(self) -> tuple[str, ...]:
        """Reporting sizes in um."""
        return tuple(self.parent.per_ml[ALL])

    @property
    def same_numbers(self) -> bool:
        """Whether nothing that is counted or measured differs."""
        p, c, m = self.parent, self.child, self.particles
        same = (p.per_ml, p.counts, p.rejected, p.frames, p.volume_ml) == (
            c.per_ml, c.counts, c.rejected, c.frames, c.volume_ml,
        )  # fmt: skip
        return same and not (m.only_parent or m.only_child or m.resized or m.reclassified)

    def as_json(self) -> dict[str, Any]:
        """Plain form, keys in a fixed order."""
        m = self.particles
        return {
            "schema": "mfi.difference/1",
            "reason": self.reason,
            "frames_agree": self.frames_agree,
            "same_numbers": self.same_numbers,
            "steps": [vars(c) for c in self.steps],
            "settings": [vars(c) for c in self.settings],
            "parent": vars(self.parent),
            "child": vars(self.child),
            "particles": {
                **vars(m),
                "size_ratio": None
                if m.size_ratio is None
                else dict(zip(("p5", "p50", "p95"), m.size_ratio, strict=True)),
                "reclassified": [{"parent": a, "child": b, "particles": n} for (a, b), n in m.reclassified.items()],
            },
        }


def compare_records(parent: Record, child: Record, *, reason: str, frames_agree: bool) -> Difference:
    """Put two records of the same frames side by side.

    Parameters
    ----------
    parent, child
        Finished records.
    reason
        Why the child was made.
    frames_agree
        Whether the hashes over their frames are the same.

    Raises
    ------
    UserError
        If a record is damaged.
    """
    return Difference(
        parent=_numbers(parent),
        child=_numbers(child),
        reason=reason,
        frames_agree=frames_agree,
        steps=_changes(_steps(parent.identity), _steps(child.identity)),
        settings=_changes(_flat(_influential(parent)), _flat(_influential(child))),
        particles=match_particles(parent.particles(), child.particles()),
    )


def change_text(parent: float | None, child: float | None) -> str:
    """A change as a person reads it: in percent of the parent.

    Examples
    --------
    >>> change_text(200.0, 210.0), change_text(5.0, 5.0), change_text(0.0, 3.0), change_text(None, 1.0)
    ('+5.0 %', '=', 'new', '')
    """
    if parent is None or child is None:
        return ""
    if parent == child:
        return "="
    return "new" if parent == 0 else f"{(child - parent) / parent:+.1%}".replace("%", " %")


def match_particles(parent: RecordedParticles, child: RecordedParticles) -> ParticleMatch:
    """Match particles by frame and box (x, y, width, height), all at once."""
    keys = _box_keys(parent, child)
    n = len(parent)
    # Of several with one box (a particle inside another's ring) the first of each record are taken as the same.
    _, a, b = np.intersect1d(keys[:n], keys[n:], return_indices=True)
    before, after = parent.particles.ecd_um[a].astype(np.float64), child.particles.ecd_um[b].astype(np.float64)
    known = before > 0
    percentiles = np.percentile(after[known] / before[known], (5, 50, 95)) if known.any() else None
    names = np.stack([parent.class_names[a].astype(np.str_), child.class_names[b].astype(np.str_)])
    moved = Counter(zip(*(row.tolist() for row in names[:, names[0] != names[1]]), strict=True))
    return ParticleMatch(
        same_box=len(a),
        only_parent=n - len(a),
        only_child=len(child) - len(b),
        resized=int((before != after).sum()),
        size_ratio=None if percentiles is None else tuple(float(np.round(p, 6)) for p in percentiles),  # type: ignore[arg-type]
        reclassified=dict(sorted(moved.items(), key=lambda item: (-item[1], item[0]))),
    )


def _box_keys(*records: RecordedParticles) -> npt.NDArray[np.int64]:
    """A number per particle of all records in turn, the same for the same frame and box."""
    key = np.zeros(sum(map(len, records)), np.int64)
    for name in ("frame", "x_px", "y_px", "width_px", "height_px"):
        column = np.concatenate([getattr(r.particles, name) for r in records])
        # Renumbered at each column, so that the product of ranges never overflows.
        _, key = np.unique(key * (int(column.max(initial=0)) + 1) + column, return_inverse=True)
    return key.astype(np.int64)


def _numbers(record: Record) -> RecordNumbers:
    with record.snapshot():
        meta, total = record.meta, record.total()
        head = [entry.entry_sha256 for entry in record.audit()][-1]
    least_um = float((((meta.get("settings") or {}).get("window")) or {}).get("min_ecd_um") or 0.0)
    return RecordNumbers(
        run_id=record.run_id,
        started=str(meta["started"]),
        software=str(meta.get("software", {}).get("edge_app", "")),
        head=head,
        frames=total.frames,
        frames_lost=total.frames_lost,
        frames_rejected=total.frames_rejected,
        particles=total.particles,
        volume_ml=total.volume_ml,
        per_ml={
            name: {size: value if float(size) >= least_um else None for size, value in row.items()}
            for name, row in per_ml(total.histogram, total.volume_ml).items()
        },
        counts=total.histogram.by_class(),
        rejected=dict(total.rejected),
    )


def _steps(identity: Mapping[str, Any]) -> dict[str, str]:
    steps = {str(s).partition(":")[0]: str(s).partition(":")[2] for s in identity.get("steps", ())}
    named = {"model": "model_sha256", "calibration": "calibration_id", "calibration hash": "calibration_sha256"}
    return steps | {name: str(identity[key]) for name, key in named.items() if key in identity}


def _influential(record: Record) -> dict[str, Any]:
    settings = record.meta.get("settings") or {}
    return {k: v for k, v in settings.items() if k not in _NO_INFLUENCE}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = "" if value is None else str(value)
    return found


def _changes(parent: Mapping[str, str], child: Mapping[str, str]) -> tuple[Change, ...]:
    names = dict.fromkeys([*parent, *child])
    return tuple(
        Change(name=n, parent=parent.get(n), child=child.get(n)) for n in names if parent.get(n) != child.get(n)
    )
