"""The source behind ``sim:``: frames of a simulated flow cell with the truth of every particle."""

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from edge_app.capture.frame import Frame, FrameTruth
from edge_app.capture.simulation.camera import Camera
from edge_app.capture.simulation.composer import Composer
from edge_app.capture.simulation.pool import SpritePool, build_pool
from edge_app.capture.simulation.population import BURST_FAMILY, Population
from edge_app.capture.simulation.scene import FlowCellScene, read_scene
from edge_app.capture.simulation.sprite_library import SpriteLibrary, SpriteLibraryError
from edge_app.capture.source import SourceInfo
from edge_app.errors import UserError

__all__ = ["SimulatedFlowCell", "open_simulation"]

_LOSS: Final = 21  # stream of random numbers
_CHUNK: Final = 4096
Z_SLACK_UM: Final = 10.0
"""How far beyond the sprites' own range of depths a particle may lie and still take the nearest picture."""


def open_simulation(uri: str) -> "SimulatedFlowCell":
    """Open a simulated flow cell.

    Parameters
    ----------
    uri
        ``sim:``, ``sim:?key=value&...``, ``sim:scene.toml`` or ``sim:scene.toml?key=value``; keys as in
        :class:`edge_app.capture.simulation.scene.FlowCellScene`.

    Raises
    ------
    UserError
        If a key or value is not allowed, a file cannot be read, or the sprites do not cover what is asked for.

    Examples
    --------
    >>> source = open_simulation("sim:?concentration=20000&frames=2&seed=7")
    >>> [f.sequence for f in source.frames()]
    [0, 1]
    """
    scene = read_scene(uri)
    library, digest = _load_sprites(scene.sprites)
    return SimulatedFlowCell(scene, library, sprites_sha256=digest)


def _load_sprites(path: Path | None) -> tuple[SpriteLibrary, str]:
    if path is None:
        shipped = resources.files("edge_app.capture.simulation") / "sprites.npz"
        with resources.as_file(shipped) as own:
            return _load_sprites(own)
    try:
        return SpriteLibrary.load(path), hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path}: sprite file cannot be read ({error.strerror or error})") from error
    except SpriteLibraryError as error:
        raise UserError(f"{path}: not a sprite file ({' '.join(str(error).split())})") from error


class SimulatedFlowCell:
    """A frame source (see :class:`edge_app.capture.source.FrameSource`) made of a scene and sprites.

    Every random number comes from the scene's seed and the number of the frame, never from the clock or the reader:
    the same scene gives the same frames, byte for byte, at any speed of reading.

    Parameters
    ----------
    scene
        What to simulate.
    library
        Pictures of single particles.
    sprites_sha256
        Hash of the sprite file, for the record.

    Raises
    ------
    UserError
        If the library does not hold a family, a size or a depth of the scene.
    """

    def __init__(self, scene: FlowCellScene, library: SpriteLibrary, *, sprites_sha256: str = "") -> None:
        self.scene = scene
        self.problems: Counter[str] = Counter()
        self.messages: list[str] = []
        um_per_px = scene.um_per_px
        if um_per_px is None:
            um_per_px = round(float(np.median(library.um_per_px)), 6) if len(library) else 1.0
        pool, limits = _pool_for(scene, library, um_per_px=um_per_px)
        self._population = Population(scene, pool, size_limits=limits)
        self._composer = Composer(scene, pool, Camera(scene, um_per_px=um_per_px))
        self._closed = threading.Event()
        self._lost = _losses(scene)
        self._composed = [self._compose(frame) for frame in range(scene.prerender_frames)]
        self._ids_per_cycle = self._population.ids_given - scene.stuck_count
        delivered = int(scene.frames - self._lost.sum()) if scene.frames else None
        resolved = scene.model_copy(update={"um_per_px": um_per_px})
        self.info = SourceInfo(
            uri=resolved.uri(),
            kind="sim",
            width_px=scene.width_px,
            height_px=scene.height_px,
            frame_rate_hz=scene.rate_hz,
            um_per_px=um_per_px,
            depth_um=scene.depth_um,
            flow_rate_ul_per_min=scene.flow_rate_ul_per_min,
            frames_total=delivered,
            knows_losses=True,
            details={
                "instrument": "simulated flow cell",
                "scene": resolved.model_dump(mode="json", exclude_none=True),
                "sprites": "shipped" if scene.sprites is None else str(scene.sprites),
                "sprites_sha256": sprites_sha256,
            },
        )

    def frames(self) -> Iterator[Frame]:
        """Yield the frames; may be called once."""
        scene = self.scene
        start = time.monotonic()
        lost_before = 0
        index = 0
        while not scene.frames or index < scene.frames:
            if scene.realtime and self._closed.wait(max(0.0, start + index / scene.rate_hz - time.monotonic())):
                return
            if self._closed.is_set():
                return
            lost = self._is_lost(index)
            if lost:
                lost_before += 1
                if not scene.prerender_frames:
                    self._population.step()
            else:
                image, truth = self._frame(index)
                yield Frame(
                    image=image,
                    sequence=index,
                    time_s=index / scene.rate_hz,
                    lost_before=lost_before,
                    name="sim",
                    truth=truth,
                )
                lost_before = 0
            index += 1

    def close(self) -> None:
        """End the stream at the next frame; safe to call twice and from another thread."""
        self._closed.set()

    def _frame(self, index: int) -> tuple[npt.NDArray[np.uint8], FrameTruth]:
        if not self._composed:
            return self._compose(index)
        cycle, place = divmod(index, len(self._composed))
        image, truth = self._composed[place]
        if cycle:
            # The same pictures stand for new particles; what is stuck stays the same one.
            ids = np.where(truth.stuck, truth.particle_id, truth.particle_id + cycle * self._ids_per_cycle)
            truth = replace(truth, particle_id=ids)
        return image, truth

    def _compose(self, index: int) -> tuple[npt.NDArray[np.uint8], FrameTruth]:
        image, truth = self._composer.compose(index, self._population.step())
        image.setflags(write=False)
        return image, truth

    def _is_lost(self, index: int) -> bool:
        if not self.scene.lose_fraction:
            return False
        if self.scene.frames:
            return bool(self._lost[index])
        # Endless: a chunk of frames at a time, each with its own random numbers.
        chunk, place = divmod(index, _CHUNK)
        if place == 0 or not len(self._lost):
            self._lost = (
                np.random.default_rng([self.scene.seed, _LOSS, chunk]).random(_CHUNK) < self.scene.lose_fraction
            )
        return bool(self._lost[place])


def _losses(scene: FlowCellScene) -> npt.NDArray[np.bool_]:
    """Which exposed frames never arrive. The last one always does: it is the one that tells of losses before it."""
    if not scene.frames:
        return np.zeros(0, np.bool_)
    chunks = range(-(-scene.frames // _CHUNK))
    drawn = [np.random.default_rng([scene.seed, _LOSS, c]).random(_CHUNK) for c in chunks]
    lost = np.concatenate(drawn)[: scene.frames] < scene.lose_fraction
    lost[-1] = False
    return np.asarray(lost, np.bool_)


def _pool_for(
    scene: FlowCellScene, library: SpriteLibrary, *, um_per_px: float
) -> tuple[SpritePool, npt.NDArray[np.float64]]:
    """Sprites of a scene, and the limits of size (families, 2) within which each family has any."""
    families = list(scene.mix)
    unknown = [f for f in families if f not in library.families]
    if unknown:
        raise UserError(f"mix: sprites hold no family {unknown[0]!r}; allowed: {', '.join(library.families)}")
    if scene.bubble_bursts_per_min and BURST_FAMILY not in families:
        if BURST_FAMILY not in library.families:
            raise UserError(f"bubble_bursts_per_min: sprites hold no family {BURST_FAMILY!r}")
        families.append(BURST_FAMILY)
    sizes = (scene.size_min_um, scene.size_max_um)
    pool = build_pool(library, families=families, um_per_px=um_per_px, size_um=sizes)
    limits = np.zeros((len(families), 2))
    half = scene.depth_um / 2
    for row, family in enumerate(families):
        found = pool.size_range(family)
        if found is None:
            raise UserError(
                f"mix: sprites hold no {family} from size_min_um {scene.size_min_um:g} "
                f"to size_max_um {scene.size_max_um:g}"
            )
        limits[row] = found
        z = pool.z_um[pool.family_index == row]
        low, high = scene.focus_offset_um - half, scene.focus_offset_um + half
        if low < z.min() - Z_SLACK_UM or high > z.max() + Z_SLACK_UM:
            raise UserError(
                f"depth_um {scene.depth_um:g} and focus_offset_um {scene.focus_offset_um:g} ask for {family} from "
                f"{low:g} to {high:g} um off focus; sprites reach from {z.min():.0f} to {z.max():.0f}"
            )
    return pool, limits
