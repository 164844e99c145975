from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_app.classification.bundle import Bundle
from training.datasets.exposure import ExposureRanges, detect, expose_view
from training.datasets.views import ViewStore
from training.evaluation.photographs import SimulatedSource
from training.optics import KNOWN, NOMINAL, UNKNOWN_ONLY, SizePrior, generate_views


def rendered(families: tuple[str, ...], volumes: int, seed: int) -> ViewStore:
    sizes = SizePrior(low_um=6, middle_um=14, tail=0)
    views = list(
        generate_views(
            families, n_volumes=volumes, seed=seed, ranges=NOMINAL, views_per_volume=3, scenes_per_volume=1, sizes=sizes
        )
    )
    return ViewStore.from_views(views, [i // 3 for i in range(len(views))])


@pytest.fixture(scope="session")
def store() -> ViewStore:
    """Three pictures each of three particles of every class."""
    return rendered(KNOWN, 3 * len(KNOWN), 8_900_001)


@pytest.fixture(scope="session")
def unknown_store() -> ViewStore:
    return rendered(UNKNOWN_ONLY, len(UNKNOWN_ONLY), 8_900_002)


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    return Bundle.load()


@pytest.fixture
def source(store: ViewStore, bundle: Bundle) -> SimulatedSource:
    return SimulatedSource(store, labels=KNOWN, geometry=bundle.geometry, name="tiny library")


@pytest.fixture(scope="session")
def folders(store: ViewStore, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Tight crops in folders silicone_oil and not_oil, and a groups file of three runs."""
    data = tmp_path_factory.mktemp("pictures")
    lines = ["file,group"]
    for i in range(len(store)):
        rng = np.random.default_rng(i)
        ratio, near, *_ = expose_view(store.picture(i), store.true_mask(i), rng, ExposureRanges(scale=(1, 1)))
        box = detect(ratio, near, threshold=0.045, dark_only=False, closing=1, smallest_area_px=16)
        if box is None or min(box.width, box.height) < 5:
            continue
        name = "silicone_oil" if store.family[i] == "silicone_oil" else "not_oil"
        (data / name).mkdir(exist_ok=True)
        cut = ratio[box.y : box.y + box.height, box.x : box.x + box.width]
        cv2.imwrite(str(data / name / f"{i}.png"), np.clip(cut * (211 / 160), 0, 255).astype(np.uint8))
        lines.append(f"{name}/{i}.png,run{store.group[i] % 3}")
    groups = data.parent / "groups.csv"
    groups.write_text("\n".join(lines))
    return data, groups
