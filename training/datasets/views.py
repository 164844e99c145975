"""Simulated pictures at rest: views of many particles in flat arrays, in shards that survive an interruption."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, fields
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.optics import SizePrior, View
from training.optics.generate import one_volume
from training.optics.scene import RANGES

__all__ = ["ViewStore", "render_shards"]


@dataclass(frozen=True, kw_only=True)
class ViewStore:
    """Views of simulated particles, one row per view.

    ``pixels`` (float16, intensity over background) and ``mask`` (bool, the true mask) hold the pictures one after the
    other; picture i is ``pixels[start[i]:start[i] + height[i] * width[i]]`` in rows of ``width[i]``.
    ``group`` numbers the particle: all views of one particle share it, so that a split by group is fair.
    """

    pixels: npt.NDArray[np.float16]
    mask: npt.NDArray[np.bool_]
    start: npt.NDArray[np.int64]
    height: npt.NDArray[np.int32]
    width: npt.NDArray[np.int32]
    family: npt.NDArray[np.str_]
    group: npt.NDArray[np.int64]
    ecd_um: npt.NDArray[np.float32]
    z_um: npt.NDArray[np.float32]
    field_x: npt.NDArray[np.float32]
    field_y: npt.NDArray[np.float32]
    um_per_px: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.start)

    def picture(self, i: int) -> npt.NDArray[np.float16]:
        """Intensity over background of view ``i``, shape (h, w)."""
        n = int(self.height[i]) * int(self.width[i])
        return self.pixels[self.start[i] : self.start[i] + n].reshape(self.height[i], self.width[i])

    def true_mask(self, i: int) -> npt.NDArray[np.bool_]:
        """Pixels that the particle's projection covers, shape (h, w)."""
        n = int(self.height[i]) * int(self.width[i])
        return self.mask[self.start[i] : self.start[i] + n].reshape(self.height[i], self.width[i])

    @staticmethod
    def from_views(views: Sequence[View], groups: Sequence[int]) -> ViewStore:
        """Pack views; ``groups`` gives the particle's number of each."""
        sizes = np.array([v.intensity.size for v in views], np.int64)
        return ViewStore(
            pixels=np.concatenate([v.intensity.ravel() for v in views]),
            mask=np.concatenate([v.true_mask.ravel() for v in views]),
            start=np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64),
            height=np.array([v.intensity.shape[0] for v in views], np.int32),
            width=np.array([v.intensity.shape[1] for v in views], np.int32),
            family=np.array([v.family for v in views]),
            group=np.array(groups, np.int64),
            ecd_um=np.array([v.ecd_um for v in views], np.float32),
            z_um=np.array([v.z_um for v in views], np.float32),
            field_x=np.array([v.field_x for v in views], np.float32),
            field_y=np.array([v.field_y for v in views], np.float32),
            um_per_px=np.array([v.scene.um_per_px for v in views], np.float32),
        )

    @staticmethod
    def concatenate(parts: Sequence[ViewStore]) -> ViewStore:
        """Join stores in the given order."""
        offsets = np.cumsum([0] + [len(p.pixels) for p in parts[:-1]])
        columns = {f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(ViewStore)}
        columns["start"] = np.concatenate([p.start + o for p, o in zip(parts, offsets, strict=True)])
        return ViewStore(**columns)

    @staticmethod
    def load(directory: Path) -> ViewStore:
        """Read all shards below a folder, in name order."""
        return ViewStore.concatenate([_read(path) for path in sorted(directory.glob("*.npz"))])


def _read(path: Path) -> ViewStore:
    with np.load(path) as data:
        return ViewStore(**{f.name: data[f.name] for f in fields(ViewStore)})


def _render_shard(
    path: Path,
    indices: range,
    *,
    families: tuple[str, ...],
    seed: int,
    ranges: str,
    views: int,
    scenes: int,
    tail: float,
) -> Path:
    pictures: list[View] = []
    groups: list[int] = []
    for index in indices:
        found = one_volume(
            index,
            families=families,
            seed=seed,
            ranges=RANGES[ranges],
            views_per_volume=views,
            scenes_per_volume=scenes,
            sizes=SizePrior(tail=tail),
        )
        pictures += found
        groups += [seed * 1_000_000 + index] * len(found)
    store = ViewStore.from_views(pictures, groups)
    partial_path = path.with_suffix(".partial")
    with partial_path.open("wb") as file:
        np.savez(file, **{f.name: getattr(store, f.name) for f in fields(store)})
    partial_path.rename(path)
    return path


def render_shards(
    directory: Path,
    *,
    families: Iterable[str],
    volumes: int,
    seed: int,
    ranges: str = "training",
    views_per_volume: int = 6,
    scenes_per_volume: int = 3,
    large_share: float = 0.10,
    per_shard: int = 300,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> ViewStore:
    """Render a library of views into ``directory``; shards that are already there are kept, so a killed job resumes.

    Parameters
    ----------
    directory : Path
        One folder per library: its arguments are not checked against shards found there.
    families : iterable of str
        Families, taken in turn; one that is named twice is drawn twice as often.
    volumes : int
        Number of particles.
    seed : int
        Below 1,000,000 for training; `training.optics.generate` reserves ranges for tests.
    ranges : {'training', 'held-out', 'nominal'}
        Optics to draw from, `training.optics.scene.RANGES`.
    views_per_volume, scenes_per_volume : int
        Pictures per particle, shared out over that many optics and field positions.
    large_share : float
        Share of the size prior's tail of large particles.
    per_shard : int
        Particles per file.
    workers : int
        Processes; the result does not depend on it.
    progress : callable, optional
        Called with (shards done, shards).

    Returns
    -------
    ViewStore
    """
    directory.mkdir(parents=True, exist_ok=True)
    jobs = {
        directory / f"views_{low:07d}_{min(low + per_shard, volumes):07d}.npz": range(
            low, min(low + per_shard, volumes)
        )
        for low in range(0, volumes, per_shard)
    }
    missing = {path: indices for path, indices in jobs.items() if not path.exists()}
    render = partial(
        _render_shard,
        families=tuple(families),
        seed=seed,
        ranges=ranges,
        views=views_per_volume,
        scenes=scenes_per_volume,
        tail=large_share,
    )
    done = len(jobs) - len(missing)
    if workers <= 1:
        for path, indices in missing.items():
            render(path, indices)
            done += 1
            if progress is not None:
                progress(done, len(jobs))
    elif missing:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for future in as_completed([pool.submit(render, path, indices) for path, indices in missing.items()]):
                future.result()
                done += 1
                if progress is not None:
                    progress(done, len(jobs))
    return ViewStore.concatenate([_read(path) for path in sorted(jobs)])
