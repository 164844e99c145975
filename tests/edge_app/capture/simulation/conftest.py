"""A small sprite file made of discs and rods whose truth is exact by construction."""

from pathlib import Path

import numpy as np
import pytest

from edge_app.capture.frame import RATIO_ONE
from edge_app.capture.simulation.sprite_library import SpriteLibrary, pack

UM_PER_PX = 1.33
COLUMNS = ("ecd_um", "max_feret_um", "z_um", "field_radius", "um_per_px")
FAMILIES = ("silicone_oil", "air_bubble", "cellulose", "rubber")


def _disc(diameter_px: float, *, stretch: float, light: float, crescent: float) -> tuple[np.ndarray, np.ndarray]:
    """Patch and mask of an ellipse, with a crescent on the outer (+x) side; light is that inside it."""
    half = int(np.ceil(diameter_px * stretch / 2)) + 4
    fine = (np.arange((2 * half + 1) * 8) + 0.5) / 8 - 0.5 - half
    x, y = np.meshgrid(fine, fine)
    a, b = diameter_px / 2 * np.sqrt(stretch), diameter_px / 2 / np.sqrt(stretch)
    inside = (x / a) ** 2 + (y / b) ** 2 <= 1
    picture = np.where(inside, light * (1 - crescent * (x > a / 3)), 1.0)
    size = 2 * half + 1
    coverage = inside.reshape(size, 8, size, 8).mean((1, 3))
    patch = np.rint(picture.reshape(size, 8, size, 8).mean((1, 3)) * RATIO_ONE).astype(np.uint8)
    return patch, coverage >= min(0.5, float(coverage.max()))


@pytest.fixture(scope="session")
def library() -> SpriteLibrary:
    patches, masks, family = [], [], []
    columns: dict[str, list[float]] = {k: [] for k in COLUMNS}
    for row, name in enumerate(FAMILIES):
        for ecd in np.geomspace(4.0 if name == "cellulose" else 2.5, 60.0, 14):
            for z in (-45.0, -15.0, 15.0, 45.0):
                for radius in (0.1, 0.5, 0.9):
                    light = {"silicone_oil": 0.5, "air_bubble": 0.2, "cellulose": 1.3, "rubber": 0.1}[name]
                    patch, mask = _disc(
                        ecd / UM_PER_PX,
                        stretch=4.0 if name == "cellulose" else 1.0,
                        light=light,
                        crescent=0.5 * radius if name == "silicone_oil" else 0.0,
                    )
                    patches.append(patch)
                    masks.append(mask)
                    family.append(row)
                    for key, value in zip(columns, (ecd, ecd, z, radius, UM_PER_PX), strict=True):
                        columns[key].append(float(value))
    return pack(families=FAMILIES, patches=patches, masks=masks, family=family, columns=columns, metadata={})


@pytest.fixture(scope="session")
def sprites(library: SpriteLibrary, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sprites") / "discs.npz"
    library.save(path)
    return path
