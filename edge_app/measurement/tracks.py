"""Images of one moving particle joined over frames: the NIST-style track mode, beside the default counting.

The default counts every image and divides by the volume of all frames, which is unbiased however often a particle is
seen. Here each *distinct* particle counts once, and is divided by the liquid that flowed past ("100 % counting").
That is right where every particle is seen twice at least, and too low where it is not: :attr:`TrackSummary.views_of_
fastest` says which. The size of a particle is the median of its images, which halves the scatter that defocus makes.

The rule is that of FlowImageTrack100 (Ripple and DeRose, J. Res. NIST 123, 123002, 2018): the next image is the first
one, in the order of the file, within a time, a distance across and along the flow and a ratio of sizes. Here an image
in the same frame is never the next one; there it may be.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from edge_app.segmentation.particles import Particles

__all__ = ["TrackRule", "TrackSummary", "Tracks", "find_tracks", "summarise_tracks"]

F8 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int64]


class TrackRule(BaseModel):
    """Which images are of one particle. Defaults are NIST's pixels at the 0.759 um per px of its instrument.

    ``along_um`` has to be more than the fastest particle travels between two frames: 1.5 times the mean speed over
    the frame rate.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    across_um: float = Field(3.8, gt=0, description="across the flow, from image to image: less than this (5 px)")
    along_um: float = Field(380.0, gt=0, description="with the flow: less than this (500 px)")
    back_um: float = Field(3.8, gt=0, description="against the flow: less than this (5 px)")
    size_share: float = Field(0.30, gt=0, lt=1, description="difference of diameter, share of the earlier one")
    ahead_s: float = Field(0.301, gt=0, description="time to the next image, at most")
    min_images: int = Field(2, ge=2, description="images of a particle that counts")
    min_travel_um: float = Field(7.6, ge=0, description="along the flow, more than this for one that counts (10 px)")

    @property
    def name(self) -> str:
        """How it is called wherever a number comes from it.

        Examples
        --------
        >>> TrackRule(along_um=1500).name
        'NIST-style tracks: across_um=3.8,along_um=1500,back_um=3.8,size_share=0.3,ahead_s=0.301,min_images=2,\
min_travel_um=7.6'
        """
        return "NIST-style tracks: " + ",".join(f"{k}={v:g}" for k, v in self.model_dump().items())


@dataclass(frozen=True, kw_only=True)
class Tracks:
    """Particles joined over frames, a row per track in the order of their first images.

    Attributes
    ----------
    track
        int64 (n,): track of each image; -1 for images that were left out (cut by the border).
    first
        int64 (m,): row of its first image.
    images
        int64 (m,).
    counted
        bool (m,): enough images, and it moved.
    time_s, x_um, y_um, ecd_um
        float64 (m,): mean time and place of the centroid, median diameter.
    ecd_sd_um
        float64 (m,): standard deviation of the diameter over its images; nan for a single one.
    speed_um_per_s
        float64 (m,): slope of place along the flow against time; nan for a single image.
    travel_um
        float64 (m,): span along the flow.
    """

    track: I8
    first: I8
    images: I8
    counted: npt.NDArray[np.bool_]
    time_s: F8
    x_um: F8
    y_um: F8
    ecd_um: F8
    ecd_sd_um: F8
    speed_um_per_s: F8
    travel_um: F8

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True, kw_only=True)
class TrackSummary:
    """What the track mode says of a run.

    Attributes
    ----------
    particles
        Distinct particles: tracks that count.
    images, single_images, resting
        Images that were used; those that found no second one; tracks long enough that did not move.
    speed_um_per_s
        5th, 50th and 95th percentile over the particles that count; None without any.
    views_of_fastest
        Frames in which the 95th percentile is within the picture; below ``min_images`` + 1 (the border takes one) the
        count is too low. None as before, or without a size of the picture.
    volume_ml
        Liquid that flowed through the imaged part of the cell; None where the flow rate is not known.
    per_ml
        Particles of at least so many um over ``volume_ml``.
    """

    rule: TrackRule
    particles: int
    images: int
    single_images: int
    resting: int
    speed_um_per_s: tuple[float, float, float] | None
    views_of_fastest: float | None
    volume_ml: float | None
    per_ml: dict[str, float] | None


def _candidates(
    frame: I8, time_s: F8, x: F8, y: F8, size: F8, rule: TrackRule
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pairs (earlier, later) of rows that the rule allows, sorted by both; rows are sorted by time."""
    earlier: list[I8] = []
    later: list[I8] = []
    rows = np.arange(len(frame))
    last = np.searchsorted(time_s, time_s + rule.ahead_s, side="right")
    reach = int((last - rows).max(initial=1))
    # Row i against row i + step, for all i at once: as many steps as rows within the time to look ahead.
    for step in range(1, reach):
        i = rows[: len(rows) - step]
        j = i + step
        dy = y[j] - y[i]
        fits = (j < last[i]) & (frame[j] > frame[i]) & (np.abs(x[j] - x[i]) < rule.across_um)
        fits &= (dy < rule.along_um) & (dy > -rule.back_um)
        fits &= np.abs(size[j] / size[i] - 1.0) < rule.size_share
        found = np.flatnonzero(fits)
        earlier.append(found)
        later.append(found + step)
    if not earlier:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    i, j = np.concatenate(earlier), np.concatenate(later)
    order = np.lexsort((j, i))
    return i[order], j[order]


def _chains(n: int, earlier: I8, later: I8) -> I8:
    """Track of each row: from each free row in turn, on to the first free candidate, until there is none."""
    start = np.searchsorted(earlier, np.arange(n + 1)).tolist()
    following = later.tolist()
    track = [-1] * n
    number = 0
    for row in range(n):
        if track[row] >= 0:
            continue
        at = row
        while at >= 0:
            track[at] = number
            at = next((j for j in following[start[at] : start[at + 1]] if track[j] < 0), -1)
        number += 1
    return np.array(track, np.int64)


def find_tracks(particles: Particles, *, um_per_px: float, rule: TrackRule | None = None) -> Tracks:
    """Join the images of each particle over the frames of a run; flow runs down the picture.

    Parameters
    ----------
    particles
        All images of a run, or of the part of it that is looked at; particles cut by the border are left out.
    um_per_px
        Geometric scale.
    rule
        Default: NIST's.

    References
    ----------
    https://github.com/usnistgov/FlowImageTrack100
    """
    rule = rule or TrackRule()
    inside = np.flatnonzero(~particles.border)
    order = inside[np.lexsort((inside, particles.frame[inside], particles.time_s[inside]))]
    time_s = particles.time_s[order].astype(np.float64)
    x, y = (v[order].astype(np.float64) * um_per_px for v in (particles.centroid_x_px, particles.centroid_y_px))
    size = np.maximum(particles.ecd_um[order].astype(np.float64), 1e-6)
    of = _chains(len(order), *_candidates(particles.frame[order].astype(np.int64), time_s, x, y, size, rule))
    m = int(of.max(initial=-1)) + 1
    images = np.bincount(of, minlength=m)

    def mean(values: F8) -> F8:
        return np.bincount(of, weights=values, minlength=m) / np.maximum(images, 1)

    middle_t, middle_y, middle_size = mean(time_s), mean(y), mean(size)
    dt, dy = time_s - middle_t[of], y - middle_y[of]
    spread = np.bincount(of, weights=dt * dt, minlength=m)
    several = images > 1
    with np.errstate(invalid="ignore", divide="ignore"):
        speed = np.where(several & (spread > 0), np.bincount(of, weights=dt * dy, minlength=m) / spread, np.nan)
        variance = np.bincount(of, weights=(size - middle_size[of]) ** 2, minlength=m) / (images - 1)
    low, high = np.full(m, np.inf), np.full(m, -np.inf)
    np.minimum.at(low, of, y)
    np.maximum.at(high, of, y)
    travel = high - low
    track = np.full(len(particles), -1, np.int64)
    track[order] = of
    first = np.zeros(m, np.int64)
    first[of[::-1]] = order[::-1]
    return Tracks(
        track=track,
        first=first,
        images=images,
        counted=(images >= rule.min_images) & (travel > rule.min_travel_um),
        time_s=middle_t,
        x_um=mean(x),
        y_um=middle_y,
        ecd_um=_medians(of, size, images),
        ecd_sd_um=np.where(several, np.sqrt(np.where(several, variance, 0.0)), np.nan),
        speed_um_per_s=speed,
        travel_um=travel,
    )


def _medians(group: I8, values: F8, number: I8) -> F8:
    """Median of the values of each group."""
    by_value = values[np.lexsort((values, group))]
    start = np.cumsum(number) - number
    return np.asarray((by_value[start + (number - 1) // 2] + by_value[start + number // 2]) / 2)


def summarise_tracks(
    tracks: Tracks,
    *,
    rule: TrackRule,
    seconds: float,
    frame_interval_s: float,
    height_um: float,
    flow_rate_ul_per_min: float | None = None,
    imaged_share: float = 1.0,
    sizes_um: tuple[float, ...] = (2.0, 5.0, 10.0, 25.0, 50.0, 70.0),
) -> TrackSummary:
    """Count the distinct particles of a run.

    Parameters
    ----------
    seconds
        How long the liquid was watched; a frame that was lost or rejected shortens nothing, as a particle is missed
        only if all its images are.
    frame_interval_s, height_um
        Time between frames and length of the picture along the flow.
    flow_rate_ul_per_min, imaged_share
        Flow through the cell, and the share of its width that the picture shows.
    sizes_um
        Of the cumulative concentrations.
    """
    counted = tracks.counted
    speed = tracks.speed_um_per_s[counted & (tracks.speed_um_per_s > 0)]
    volume_ml = None if not flow_rate_ul_per_min else flow_rate_ul_per_min / 60e3 * seconds * imaged_share
    size = tracks.ecd_um[counted]
    low, middle, high = (float(v) for v in np.percentile(speed, [5, 50, 95])) if len(speed) else (np.nan,) * 3
    return TrackSummary(
        rule=rule,
        particles=int(counted.sum()),
        images=int(tracks.images.sum()),
        single_images=int((tracks.images == 1).sum()),
        resting=int(((tracks.images >= rule.min_images) & ~counted).sum()),
        speed_um_per_s=(low, middle, high) if len(speed) else None,
        views_of_fastest=height_um / (high * frame_interval_s) if len(speed) and frame_interval_s * height_um else None,
        volume_ml=volume_ml,
        per_ml={f"{s:g}": float((size >= s).sum()) / volume_ml for s in sizes_um} if volume_ml else None,
    )
