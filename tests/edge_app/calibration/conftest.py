"""One unseen instrument with five bead lots, rendered once per session."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bead_lots import DEPTH_UM, BeadLot, render_dirt, render_lot, unseen_instrument
from edge_app.capture.registry import open_source
from edge_app.measurement.bead_run import BeadRun, read_bead_run
from edge_app.measurement.certificate import BeadStandard
from training.optics.scene import OpticsScene

SIZES_UM = (5.0, 10.0, 15.0, 25.0, 50.0)
BETWEEN_UM = 20.0
SEED = 1


@dataclass(frozen=True)
class Bench:
    """Bead runs of a simulated instrument."""

    scene: OpticsScene
    folder: Path

    def uri(
        self,
        size_um: float,
        *,
        doublets: float = 0.1,
        dirt: float = 0.05,
        frames: int = 40,
        seed: int = 1,
        tag: str = "",
    ) -> str:
        shares = {"bead": 1 - doublets - dirt, "bead_doublet": doublets, "dirt": dirt}
        mix = ",".join(f"{k}:{v:g}" for k, v in shares.items() if v > 0)
        concentration = 90000 if size_um < 40 else 40000
        return (
            f"sim:?sprites={self.folder / f'{tag}{size_um:g}.npz'}&mix={mix}&size_min_um=1&size_max_um=100"
            f"&depth_um={DEPTH_UM:g}&focus_offset_um={self.scene.focus_offset_um:.2f}"
            f"&concentration={concentration}&frames={frames}&seed={seed}&level={205 if size_um < 40 else 200}"
        )

    def run(self, size_um: float, **kinds: float | int | str) -> BeadRun:
        return _read(self.uri(size_um, **kinds))  # type: ignore[arg-type]

    def standard(self, size_um: float, *, error: float = 0.0) -> BeadStandard:
        return BeadStandard(
            nominal_um=size_um,
            certified_um=size_um * (1 + error),
            uncertainty_um=0.006 * size_um,
            source="sim",
            lot="T",
        )

    def lots(self) -> list[tuple[BeadStandard, BeadRun]]:
        return [(self.standard(size), self.run(size)) for size in SIZES_UM]


@lru_cache(maxsize=40)
def _read(uri: str) -> BeadRun:
    return read_bead_run(open_source(uri))


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("beads")
    scene = unseen_instrument(SEED)
    dirt = render_dirt(scene, seed=SEED, particles=6, views=4)
    for size in (*SIZES_UM, BETWEEN_UM):
        few = {"beads": 12, "doublets": 3} if size < 20 else {"beads": 5, "doublets": 1}
        lot = BeadLot(diameter_um=size, sd_um=0.004 * size)
        render_lot(folder / f"{size:g}.npz", lot, scene, seed=SEED + int(size), dirt=dirt, **few)
    # The same beads after somebody moved the condenser: coma the other way round.
    moved = replace(scene, coma_waves=-scene.coma_waves, tilt_na=0.5 * scene.tilt_na)
    render_lot(
        folder / "moved10.npz", BeadLot(diameter_um=10, sd_um=0.04), moved, seed=SEED, dirt=dirt, beads=12, doublets=3
    )
    return Bench(scene=scene, folder=folder)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)
