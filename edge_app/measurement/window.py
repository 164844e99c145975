"""One closed span of a run: its counts, its volume and everything that was left out, with the reason."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edge_app.measurement.histogram import Histogram, cumulative_counts

__all__ = ["REJECTION_REASONS", "Window", "per_ml"]

REJECTION_REASONS: Mapping[str, str] = {
    "border": "particle cut by the frame's border; the others stand for it by their weight",
    "small": "particle below the smallest reported size",
    "speckle": "region of fewer pixels than any particle's mask: camera noise, or a particle too faint to tell from it",
    "stuck": "image of a particle that sits on the window",
    "overload": "particle above the most that one frame may hold",
    "frame_size": "frame of another size than the first",
    "frame_dark": "frame without light",
    "frame_bright": "frame without contrast (saturated)",
    "frame_warmup": "frame used only to learn the background",
    "frame_overload": "frame with more particles than can be told apart",
    "frame_uneven": "frame with schlieren, a large bubble or another large disturbance",
    "frame_bubbles": "frame in a burst of air bubbles, or just before or after one",
}
"""Every reason a particle or (``frame_*``) a frame is left out, and what it means."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """Counts of one span of frames. Windows of a run add.

    Attributes
    ----------
    run_id, seq
        Key of the window; ``seq`` counts from 0 within the run. A sum carries the last ``seq``.
    first_frame, last_frame
        Sequence numbers of the first and last frame seen, whatever became of them (-1: none).
    t0_s, t1_s
        Span in s since the start of the run, from the frames' own time.
    frames
        Frames analysed: the volume is made of these alone.
    frames_lost, frames_rejected
        Frames that the source says never came, and frames that came and were left out.
    rejected
        Reason (``REJECTION_REASONS``) -> number of particles or frames.
    volume_ml
        Analysed volume.
    histogram
        Counts by class and size.
    """

    run_id: str
    seq: int
    first_frame: int
    last_frame: int
    t0_s: float
    t1_s: float
    frames: int
    frames_lost: int
    frames_rejected: int
    rejected: Mapping[str, int]
    volume_ml: float
    histogram: Histogram

    @property
    def particles(self) -> int:
        """Particles counted."""
        return int(self.histogram.counts.sum())

    def __add__(self, other: "Window") -> "Window":
        if self.run_id != other.run_id:
            raise ValueError(f"windows of two runs do not add: {self.run_id}, {other.run_id}")
        first, last = (self, other) if self.seq <= other.seq else (other, self)
        return Window(
            run_id=self.run_id,
            seq=last.seq,
            first_frame=first.first_frame if first.first_frame >= 0 else last.first_frame,
            last_frame=last.last_frame if last.last_frame >= 0 else first.last_frame,
            t0_s=min(first.t0_s, last.t0_s),
            t1_s=max(first.t1_s, last.t1_s),
            frames=self.frames + other.frames,
            frames_lost=self.frames_lost + other.frames_lost,
            frames_rejected=self.frames_rejected + other.frames_rejected,
            rejected=dict(sorted((Counter(self.rejected) + Counter(other.rejected)).items())),
            volume_ml=self.volume_ml + other.volume_ml,
            histogram=self.histogram + other.histogram,
        )


def per_ml(histogram: Histogram, volume_ml: float) -> dict[str, dict[str, float | None]]:
    """Cumulative concentration at each reporting size, for all particles (``all``) and per class.

    ``weighted count / analysed volume`` (Miles-Lantuejoul weights); None where nothing was analysed.

    Examples
    --------
    >>> h = Histogram.of(np.array([0]), np.array([12.0]), np.array([1.0]), classes=("glass",))
    >>> per_ml(h, 0.5)["all"]
    {'2': 2.0, '5': 2.0, '10': 2.0, '25': 0.0, '50': 0.0, '70': 0.0}
    """
    sizes = ("2", "5", "10", "25", "50", "70")
    table = cumulative_counts(histogram, sizes_um=[float(s) for s in sizes])
    return {
        name: {s: float(np.round(v / volume_ml, 6)) if volume_ml > 0 else None for s, v in zip(sizes, row, strict=True)}
        for name, row in table.items()
    }
