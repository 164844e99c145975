"""Which frames belong to a burst of air bubbles: far more bubbles at once than in the frames around them.

A burst (a loose fitting, a stroke of the syringe) puts more particles before the camera in half a second than a clean
sample has in a minute. They are none of the sample's, so the frames are left out with their volume. Only particles that
the network calls air bubbles are asked: a shower of any other kind of particle is the sample's own and stays.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final

import numpy as np

from edge_app.measurement.poisson import gamma_cdf

__all__ = ["BUBBLE_CLASS", "FRAMES_BEFORE", "LEAST_BUBBLE_UM", "LEAST_HISTORY", "BubbleBursts"]

BUBBLE_CLASS: Final = "air_bubble"
LEAST_BUBBLE_UM: Final = 5.0
"""Bubbles from this size on are asked: smaller ones dissolve, and what is called one is often something else."""

FRAMES_BEFORE: Final = 1
"""Frames before the first one of a burst that are left out with it: its first bubbles may be too few to tell."""

FRAMES_AFTER: Final = 5
"""Frames after the last one of a burst that are left out with it: the slow liquid at the walls takes its time."""

HISTORY: Final = 300
"""Frames whose bubbles say what is usual. A change that outlasts half of them is no burst: it becomes the usual."""

LEAST_HISTORY: Final = 12
"""Fewer frames say nothing of what is usual. The first ones of a run are judged when there are so many."""

LEAST_BUBBLES: Final = 5
BURST_CHANCE: Final = 1e-6
"""A frame begins a burst if chance alone would bring as many bubbles in fewer than one of a million frames."""

TAIL_CHANCE: Final = 0.01
"""A frame prolongs it if chance would bring as many in fewer than one of a hundred."""


class BubbleBursts:
    """Judges the frames of a run by their number of air bubbles.

    How many are usual is the mean over the last frames, each cut at two and two standard deviations above the median so
    that a burst hardly moves it, and taken two standard errors up. Frames within ``FRAMES_AFTER`` of a burst are left
    out whatever is in them, so that leaving them out favours neither full nor empty frames.

    Parameters
    ----------
    first
        Air bubbles of the first frames of a run, which are then judged by `update` like any other: so a burst is found
        that the run begins with.

    Examples
    --------
    >>> bursts = BubbleBursts()
    >>> [bursts.update(n) for n in [0, 1] * 10] == [False] * 20
    True
    >>> [bursts.update(n) for n in [25, 30, 2, 1, 0, 0, 0, 0, 0, 1]]
    [True, True, True, True, True, True, True, False, False, False]
    """

    def __init__(self, first: Iterable[int] = ()) -> None:
        self._history: deque[int] = deque(first, maxlen=HISTORY)
        self._known = len(self._history)
        self._after = 0

    def update(self, bubbles: int) -> bool:
        """Whether the next frame, with so many air bubbles, is in a burst or shortly after one."""
        burst = False
        if len(self._history) >= LEAST_HISTORY and (self._after or bubbles >= LEAST_BUBBLES):
            by_chance = self._chance(bubbles)
            burst = bubbles >= LEAST_BUBBLES and by_chance < BURST_CHANCE
            burst |= self._after > 0 and by_chance < TAIL_CHANCE
        if self._known:
            self._known -= 1
        else:
            self._history.append(bubbles)
        if burst:
            self._after = FRAMES_AFTER
            return True
        self._after, left_out = max(0, self._after - 1), self._after > 0
        return left_out

    def _chance(self, bubbles: int) -> float:
        """Chance of so many or more at the usual rate."""
        if not bubbles:
            return 1.0
        seen = np.array(self._history, np.float64)
        middle = float(np.median(seen))
        total = float(np.minimum(seen, middle + 2 + 2 * np.sqrt(middle)).sum())
        usual = (total + 2 * np.sqrt(total + 1)) / len(seen)
        return float(gamma_cdf(float(bubbles), usual))
