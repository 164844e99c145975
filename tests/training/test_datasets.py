from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_app.classification.crops import CropGeometry
from edge_app.errors import UserError
from training.datasets.exposure import ExposureRanges, detect, expose_view, simulated_crops
from training.datasets.folders import read_folders
from training.datasets.labelled import sampling_weights, split_groups
from training.datasets.views import ViewStore, render_shards
from training.optics import KNOWN


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ViewStore:
    return render_shards(
        tmp_path_factory.mktemp("views"),
        families=("silicone_oil", "bead", "rubber"),
        volumes=12,
        seed=5,
        views_per_volume=3,
        scenes_per_volume=1,
        large_share=0.0,
        per_shard=5,
    )


def test_views_are_the_same_however_they_are_rendered(store: ViewStore, tmp_path: Path) -> None:
    again = render_shards(
        tmp_path,
        families=("silicone_oil", "bead", "rubber"),
        volumes=12,
        seed=5,
        views_per_volume=3,
        scenes_per_volume=1,
        large_share=0.0,
        per_shard=12,
    )
    assert np.array_equal(again.pixels, store.pixels)
    assert np.array_equal(again.group, store.group)
    assert all(np.array_equal(again.picture(i), store.picture(i)) for i in range(len(store)))


def test_an_interrupted_rendering_goes_on_where_it_stopped(tmp_path: Path) -> None:
    options = {
        "families": ("bead",),
        "volumes": 4,
        "seed": 6,
        "views_per_volume": 2,
        "scenes_per_volume": 1,
        "per_shard": 2,
    }
    whole = render_shards(tmp_path, **options)
    first, second = sorted(tmp_path.glob("*.npz"))
    second.unlink()
    stamp = first.stat().st_mtime_ns
    again = render_shards(tmp_path, **options)
    assert first.stat().st_mtime_ns == stamp
    assert np.array_equal(again.pixels, whole.pixels)


def test_views_of_one_particle_share_a_group(store: ViewStore) -> None:
    for group in np.unique(store.group):
        rows = store.group == group
        assert rows.sum() == 3
        assert len(set(store.family[rows])) == 1


def test_exposures_depend_on_seed_and_view_only(store: ViewStore) -> None:
    options = {"classes": KNOWN, "geometry": CropGeometry()}
    whole = simulated_crops(store, seed=3, **options)
    parts = [simulated_crops(store, seed=3, rows=rows, **options) for rows in np.array_split(np.arange(len(store)), 3)]
    assert np.array_equal(np.concatenate([p.pixels for p in parts]), whole.pixels)
    assert not np.array_equal(simulated_crops(store, seed=4, **options).pixels[:3], whole.pixels[:3])


def test_families_outside_the_classes_get_no_label(store: ViewStore) -> None:
    crops = simulated_crops(store, seed=3, classes=KNOWN, geometry=CropGeometry())
    assert set(crops.label.tolist()) <= {-1, KNOWN.index("silicone_oil"), KNOWN.index("bead")}
    assert (crops.label == -1).any()


def test_exposure_keeps_the_background_at_160_within_its_stated_error(store: ViewStore) -> None:
    ranges = ExposureRanges()
    for i in range(len(store)):
        ratio, _, noise, _ = expose_view(store.picture(i), store.true_mask(i), np.random.default_rng(i), ranges)
        border = np.concatenate([ratio[0], ratio[-1], ratio[:, 0], ratio[:, -1]]).astype(float)
        assert abs(np.median(border) / 160 - 1) < 0.025 + 0.006 + 0.01
        assert ranges.noise[0] <= noise <= ranges.noise[1]


def test_detection_is_a_tight_box_of_the_dark_and_bright_parts() -> None:
    ratio = np.full((40, 40), 160, np.uint8)
    ratio[10:15, 12:20] = 100
    ratio[15:18, 12:14] = 220
    near = np.ones_like(ratio)
    options = {"threshold": 0.05, "closing": 0, "smallest_area_px": 10}
    both = detect(ratio, near, dark_only=False, **options)
    assert both is not None
    assert (both.x, both.y, both.width, both.height, both.area) == (12, 10, 8, 8, 46)
    dark = detect(ratio, near, dark_only=True, **options)
    assert dark is not None
    assert (dark.height, dark.area) == (5, 40)
    assert detect(np.full_like(ratio, 158), near, dark_only=False, **options) is None


def test_a_neighbour_away_from_the_true_mask_is_not_taken() -> None:
    ratio = np.full((40, 40), 160, np.uint8)
    ratio[2:12, 2:12] = 90
    ratio[30:35, 30:35] = 90
    near = np.zeros_like(ratio)
    near[28:38, 28:38] = 1
    found = detect(ratio, near, threshold=0.04, dark_only=False, closing=1, smallest_area_px=10)
    assert found is not None
    assert (found.x, found.y) == (30, 30)


def test_within_a_size_the_classes_are_drawn_as_the_prior_says() -> None:
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1], [3000, 3000])
    box = np.concatenate([rng.uniform(6, 14, 3000), rng.uniform(6, 30, 3000)]).astype(np.float32)
    weight = sampling_weights(label, box, prior=[0.7, 0.3])
    assert weight.sum() == pytest.approx(1)
    assert weight[label == 0].sum() == pytest.approx(0.7)
    for low, high in ((6, 8), (8, 10), (10, 12.5)):
        rows = (box >= low) & (box < high)
        share = weight[rows & (label == 0)].sum() / weight[rows].sum()
        raw = (label[rows] == 0).mean()
        assert abs(share - 0.7) < abs(raw - 0.7) or abs(share - 0.7) < 0.1


@settings(max_examples=80, deadline=None)
@given(
    groups=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 2)), min_size=6, max_size=80), seed=st.integers(0, 5)
)
def test_no_group_is_ever_split(groups: list[tuple[int, int]], seed: int) -> None:
    group = np.array([g for g, _ in groups])
    label = np.array([c for _, c in groups])
    try:
        train, test = split_groups(label, group, share=0.25, seed=seed, classes=("a", "b", "c"))
    except UserError:
        return  # a class in one group only, or groups that cannot be shared out
    assert not set(group[train]) & set(group[test])
    assert np.array_equal(train, ~test)
    for c in range(3):
        assert (label[train] == c).any()
        assert (label[test] == c).any()


def test_a_class_in_one_group_cannot_be_split() -> None:
    with pytest.raises(UserError, match="class b: all its pictures are in 1 group"):
        split_groups(np.array([0, 0, 1, 1]), np.array(["x", "y", "x", "x"]), share=0.5, seed=0, classes=("a", "b"))


def test_the_split_has_about_the_wanted_share() -> None:
    rng = np.random.default_rng(0)
    group, label = rng.integers(0, 40, 2000), rng.integers(0, 3, 2000)
    _, test = split_groups(label, group, share=0.2, seed=1, classes=("a", "b", "c"))
    assert 0.15 < test.mean() < 0.3


Folder = Callable[..., tuple[Path, Path]]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    def make(counts: dict[str, int], *, rows: list[str] | None = None, header: str = "file,group") -> tuple[Path, Path]:
        lines = [header]
        for name, count in counts.items():
            (tmp_path / "data" / name).mkdir(parents=True)
            for i in range(count):
                picture = np.full((12, 12), 211, np.uint8)
                picture[3:9, 3:9] = 100
                cv2.imwrite(str(tmp_path / "data" / name / f"{i}.png"), picture)
                lines.append(f"{name}/{i}.png,run{i % 3}")
        table = tmp_path / "groups.csv"
        table.write_text("\n".join(lines if rows is None else [header, *rows]) + "\n")
        return tmp_path / "data", table

    return make


def test_folders_are_read_with_class_group_and_level(folder: Folder) -> None:
    pictures = read_folders(*folder({"oil": 4, "rest": 5}), um_per_px=1.33)
    assert pictures.classes == ("oil", "rest")
    assert pictures.label.tolist() == [0] * 4 + [1] * 5
    assert set(pictures.group) == {"run0", "run1", "run2"}
    assert abs(pictures.level - 211).max() < 1
    crops = pictures.crops(CropGeometry())
    assert crops.pixels.shape == (9, 40, 40, 1)


def test_one_class_is_refused(folder: Folder) -> None:
    with pytest.raises(UserError, match="1 class folder, at least 2"):
        read_folders(*folder({"oil": 4}), um_per_px=1.33)


def test_an_empty_class_is_refused(folder: Folder) -> None:
    with pytest.raises(UserError, match="rest"):
        read_folders(*folder({"oil": 4, "rest": 0}), um_per_px=1.33)


def test_a_picture_without_a_group_is_named(folder: Folder) -> None:
    with pytest.raises(UserError, match=r"no group for oil/0\.png"):
        read_folders(*folder({"oil": 2, "rest": 2}, rows=["oil/1.png,a"]), um_per_px=1.33)


def test_a_picture_in_two_groups_is_refused(folder: Folder) -> None:
    with pytest.raises(UserError, match=r"oil/0\.png is in group a and in group b"):
        read_folders(*folder({"oil": 2, "rest": 2}, rows=["oil/0.png,a", "oil/0.png,b"]), um_per_px=1.33)


def test_wrong_columns_are_named(folder: Folder) -> None:
    with pytest.raises(UserError, match="columns are name, run, needed are file, group"):
        read_folders(*folder({"oil": 2, "rest": 2}, header="name,run"), um_per_px=1.33)


def test_an_unreadable_picture_is_named(folder: Folder) -> None:
    data, groups = folder({"oil": 2, "rest": 2})
    (data / "oil" / "1.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"1\.png"):
        read_folders(data, groups, um_per_px=1.33)


def test_a_missing_folder_or_table_is_named(folder: Folder, tmp_path: Path) -> None:
    data, groups = folder({"oil": 2, "rest": 2})
    with pytest.raises(UserError, match="no such folder"):
        read_folders(tmp_path / "nowhere", groups, um_per_px=1.33)
    with pytest.raises(UserError, match=r"none\.csv: cannot be read"):
        read_folders(data, tmp_path / "none.csv", um_per_px=1.33)


def test_bare_file_names_will_do_where_they_are_unique(tmp_path: Path) -> None:
    for name, files in (("oil", ("a.png", "b.png")), ("rest", ("c.png", "d.png"))):
        (tmp_path / "d" / name).mkdir(parents=True)
        for file in files:
            cv2.imwrite(str(tmp_path / "d" / name / file), np.full((8, 8), 200, np.uint8))
    table = tmp_path / "g.csv"
    table.write_text("file,group\na.png,1\nb.png,2\nc.png,1\nd.png,2\n")
    assert read_folders(tmp_path / "d", table, um_per_px=1.33).group.tolist() == ["1", "2", "1", "2"]
