from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy import ndimage

from edge_app.classification.crops import CropGeometry, cut_crops
from edge_app.errors import UserError
from training.datasets.pictures import LabelledPictures
from training.datasets.sources import open_dataset
from training.datasets.variation import Variation, vary
from training.datasets.weighting import class_mix, class_weights
from training.evaluation.corruptions import SEVERITIES

GEOMETRY = CropGeometry()
STILL = Variation(level_error_sd=0, contrast=(1, 1), scale=(1, 1), blur_share=0, sharpen_share=0, noise=(0, 0))


def test_nothing_varied_is_the_device_s_own_crop(draw: Callable) -> None:
    pictures = [draw(i, side=s) for i, s in enumerate((5, 9, 16, 30, 39, 41, 90, 260))]
    level = np.linspace(190, 220, len(pictures)).astype(np.float32)
    rows = np.arange(len(pictures))
    whole = LabelledPictures(
        pictures, [str(i) for i in rows], rows % 2, rows.astype(str), level, ("a", "b"), um_per_px=1.33
    )
    still = whole.varied_crops(GEOMETRY, np.random.default_rng(0), variation=STILL)
    plain = whole.crops(GEOMETRY)
    assert np.array_equal(still.pixels, plain.pixels)
    assert np.array_equal(still.context, plain.context)


def varied(picture: np.ndarray, seed: int = 1, **change: Any) -> np.ndarray:
    variation = replace(STILL, **change)
    crops, _ = vary(
        [picture],
        np.array([160.0], np.float32),
        geometry=GEOMETRY,
        um_per_px=1.33,
        rng=np.random.default_rng(seed),
        variation=variation,
    )
    return crops.pixels[0, 8:32, 8:32, 0].astype(float)


def test_each_variation_is_the_closed_form(draw: Callable) -> None:
    picture = draw(3, side=24, level=160)
    plain = picture.astype(float)
    assert np.array_equal(varied(picture, contrast=(0.9, 0.9)), np.rint(160 + 0.9 * (plain - 160)))
    blurred = ndimage.gaussian_filter(plain, 0.6, mode="nearest", truncate=4)
    assert abs(varied(picture, blur_share=1.0, blur_px=(0.6, 0.6)) - blurred).max() < 1.6
    noisy = varied(np.full((24, 24), 160, np.uint8), noise=(0.008, 0.008))
    assert abs(noisy.std() - np.hypot(0.008 * 160, np.sqrt(1 / 12))) < 0.15
    sharp = varied(picture, sharpen_share=1.0, sharpen=(0.5, 0.5))
    assert ndimage.laplace(sharp).std() > 1.1 * ndimage.laplace(plain).std()


def test_a_change_of_scale_is_told_to_the_truth(draw: Callable) -> None:
    pictures = [draw(0, side=30)] * 50
    level = np.full(50, 205, np.float32)
    options = {"geometry": GEOMETRY, "um_per_px": 1.33, "rng": np.random.default_rng(2)}
    crops, enlarged = vary(pictures, level, **options)
    wide = (crops.pixels[..., 0] != 160).any(axis=1).sum(axis=1)
    assert abs(wide - 30 * enlarged).max() <= 1
    assert 0.93 < enlarged.min() < 0.97 < 1.03 < enlarged.max() < 1.07
    other, enlarged = vary(pictures, level, **(options | {"um_per_px": 0.665}))
    assert abs(enlarged - 1).max() < 0.09
    assert abs((other.pixels[..., 0] != 160).any(axis=1).sum(axis=1) - 15 * enlarged).max() <= 1


def test_varied_crops_are_fast_and_the_same_by_seed(draw: Callable) -> None:
    import time

    pictures = [draw(i % 50, side=8 + i % 40) for i in range(3000)]
    level = np.full(3000, 205, np.float32)
    start = time.process_time()
    first, _ = vary(pictures, level, geometry=GEOMETRY, um_per_px=1.33, rng=np.random.default_rng(1))
    assert time.process_time() - start < 3
    again, _ = vary(pictures, level, geometry=GEOMETRY, um_per_px=1.33, rng=np.random.default_rng(1))
    assert np.array_equal(first.pixels, again.pixels)


def test_corruptions_are_those_of_the_stability_study(draw: Callable) -> None:
    pictures = [draw(0, side=30)] * 400
    level = np.full(400, 205, np.float32)
    options = {"geometry": GEOMETRY, "um_per_px": 1.33}
    plain, _ = vary(pictures, level, rng=np.random.default_rng(0), variation=STILL, **options)
    some = replace(STILL, corruption_share=0.5, corruption_severity=1)
    crops, _ = vary(pictures, level, rng=np.random.default_rng(0), variation=some, **options)
    changed = [
        corruption.apply(plain.pixels[:1], value)[0]
        for corruption in SEVERITIES
        if corruption.name != "defocus blur"  # its severity 1 leaves some pictures as they are
        for severity, value in corruption.values.items()
        if abs(severity) == 1
    ]
    counts = [int((crops.pixels == e).all(axis=(1, 2, 3)).sum()) for e in changed]
    assert min(counts) > 15
    assert 120 < sum(counts) < 200


def test_a_wide_margin_is_taken_off_as_on_the_device(draw: Callable) -> None:
    wide = np.full((60, 60), 160, np.uint8)
    wide[20:40, 25:37] = 90
    still, _ = vary(
        [wide],
        np.array([160], np.float32),
        geometry=GEOMETRY,
        um_per_px=1.33,
        rng=np.random.default_rng(0),
        variation=STILL,
    )
    one = np.array([1])
    expected = cut_crops(wide, 25 * one, 20 * one, 12 * one, 20 * one, geometry=GEOMETRY, um_per_px=1.33)
    assert np.array_equal(still.pixels, expected.pixels)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_depth_of_the_files_is_the_same_for_every_class(lab, draw: Callable, bits: int) -> None:
    for c, name in enumerate(("dim", "bright")):
        for i in range(4):
            eight = draw(10 * c + i, side=7 + 3 * i, level=(120, 240)[c])
            lab.write(f"{name}/{i}.png", eight if bits == 8 else eight.astype(np.uint16) << (bits - 8))
    lab.table([f"{name}/{i}.png,run{i % 2}" for name in ("dim", "bright") for i in range(4)])
    found = open_dataset(lab.data, groups=lab.groups)
    for picture, file in zip(found.pictures, found.files, strict=True):
        own = cv2.imread(str(lab.data / file), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(picture, own >> (bits - 8) if bits > 8 else own)


def test_a_bit_depth_that_is_given_is_kept_to(lab, draw: Callable) -> None:
    lab.fill()
    for path in sorted(lab.data.rglob("*.png")):
        cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.uint16) << 2)
    ten = open_dataset(f"crops:{lab.data}?bits=10", groups=lab.groups)
    twelve = open_dataset(f"crops:{lab.data}?bits=12", groups=lab.groups)
    assert np.array_equal(ten.pictures[0] >> 2, twelve.pictures[0])
    with pytest.raises(UserError, match="does not fit the source's 8 bits"):
        open_dataset(f"crops:{lab.data}?bits=8", groups=lab.groups)


def test_every_run_of_the_simulator_holds_every_class_and_one_instrument() -> None:
    source = "sim:training?particles=18&runs=3&classes=silicone_oil,glass,bead&seed=4"
    found = open_dataset(source)
    again = open_dataset(source + "&workers=2")
    assert all(np.array_equal(a, b) for a, b in zip(found.pictures, again.pictures, strict=True))
    assert found.classes == ("silicone_oil", "glass", "bead")
    for run in np.unique(found.group):
        rows = found.group == run
        assert np.bincount(found.label[rows]).tolist() == [2, 2, 2]
        # One camera per run: the true scale differs by the rounding of the enlarged picture's size only.
        assert np.ptp(found.true_um_per_px[rows]) < 1e-4
    assert len(np.unique(found.true_um_per_px)) == 3
    crops = found.crops(GEOMETRY)
    assert np.isfinite(crops.ecd_um).all()
    assert np.array_equal(crops.context[:, 3], np.ones(18))
    assert np.allclose(np.hypot(crops.context[:, 1], crops.context[:, 2]), crops.field_radius, atol=1e-6)
    other = open_dataset(source.replace("seed=4", "seed=5"))
    assert [p.shape for p in other.pictures] != [p.shape for p in found.pictures]


def test_particles_may_be_the_groups_of_the_simulator() -> None:
    found = open_dataset("sim:nominal?particles=4&runs=2&views=3&classes=glass,bead&group=particle")
    names, counts = np.unique(found.group, return_counts=True)
    assert len(names) == 4
    assert set(counts) <= {1, 2, 3}
    for name in names:
        assert len(set(found.label[found.group == name])) == 1


def test_flowcam_labels_runs_and_places(real_data: Path) -> None:
    root = real_data / "flowcam"
    found = open_dataset(f"flowcam:{root / 'run1'},{root / 'run2'}?classes=Protist,Junk")
    assert found.classes == ("Protist", "Junk")
    counts = {run: np.bincount(found.label[found.group == run]).tolist() for run in ("run1", "run2")}
    assert counts == {"run1": [20, 845], "run2": [187, 717]}
    assert found.um_per_px == 0.5544
    assert found.notes == {"particles labelled Missed": 231}
    assert abs(found.place).max() < 1
    border = np.concatenate([np.concatenate([p[0], p[-1], p[:, 0], p[:, -1]]) for p in found.pictures])
    assert abs(np.median(border.astype(float)) - 160) <= 1
    whole = open_dataset(f"flowcam:{root}?classes=Protist,Junk")
    assert set(whole.group) == {"run1", "run2", "run3"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("run,id,label\nrun1,1,Junk\n", "1 class (Junk), at least 2"),
        ("run,id,label\nrun9,1,Junk\n", "labels are of run run9, the data are run1"),
        ("run,id,label\nrun1,1,Junk\nrun1,1,Protist\n", "particle 1 of run1 is Junk and Protist"),
        ("run,id,label\nrun1,x,Junk\n", "id is x, must be a whole number"),
        ("run,id,label\nrun1,1,Junk\nrun1,9999,Protist\n", "no particle of class Protist is in run1"),
        ("number,kind\n1,Junk\n", "needed are run, id, label or id, label"),
    ],
)
def test_flowcam_labels_that_cannot_be_used(real_data: Path, tmp_path: Path, text: str, said: str) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text(text)
    with pytest.raises(UserError) as error:
        open_dataset(f"flowcam:{real_data / 'flowcam' / 'run1'}?labels={labels}")
    assert said in str(error.value)


def test_class_weights_are_the_published_formula() -> None:
    label = np.repeat(np.arange(3), [5000, 500, 20])
    n = np.array([5000.0, 500, 20])
    for beta in (0.9, 0.99, 0.999, 0.9999):
        raw = (1 - beta) / (1 - beta**n)
        expected = raw * n.sum() / (raw * n).sum()
        found = class_weights(label, 3, method="effective", prototypes=1 / (1 - beta))
        np.testing.assert_allclose(found, expected, rtol=1e-9)
    sklearn = pytest.importorskip("sklearn.utils.class_weight")
    balanced = sklearn.compute_class_weight("balanced", classes=np.arange(3), y=label)
    np.testing.assert_allclose(class_weights(label, 3, method="inverse"), balanced)
    for method in ("none", "sqrt", "inverse", "effective"):
        assert class_weights(label, 3, method=method)[label].mean() == pytest.approx(1)
        assert class_mix(label, 3, method=method).sum() == pytest.approx(1)
    np.testing.assert_allclose(class_mix(label, 3, method="inverse"), 1 / 3)
    with pytest.raises(UserError, match="class number 3: no picture"):
        class_weights(label, 4)


def test_two_bit_depths_in_one_set_are_refused(lab, draw: Callable) -> None:
    """The darker set would turn black, and brightness would tell the class."""
    for name, bits in (("oil", 2), ("rest", 8)):
        for i in range(4):
            lab.write(f"{name}/{i}.tif", draw(i + 10 * bits).astype(np.uint16) << bits)
    lab.table([f"{name}/{i}.tif,run{i % 2}" for name in ("oil", "rest") for i in range(4)])
    with pytest.raises(UserError, match=r"oil: brightest pixel is \d+, other pictures of the set use 16 bits"):
        open_dataset(lab.data, groups=lab.groups)


def test_dark_background_is_refused(lab) -> None:
    lab.fill()
    for path in lab.data.rglob("*.png"):
        cv2.imwrite(str(path), np.maximum(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), 195) - 195)
    with pytest.raises(UserError, match=r"pictures of group run0 have a dark background \(grey level \d+ of 255\)"):
        open_dataset(lab.data, groups=lab.groups)


def test_what_systems_leave_behind_is_no_class(lab) -> None:
    lab.fill()
    for name in ("__MACOSX/oil", "@eaDir", ".git"):
        (lab.data / name).mkdir(parents=True)
        (lab.data / name / "._0.png").touch()
    (lab.data / "oil" / "Thumbs.db").touch()
    assert open_dataset(lab.data, groups=lab.groups).classes == ("oil", "rest")


def test_linked_folders_are_read_and_links_to_nowhere_refused(lab, tmp_path: Path) -> None:
    lab.fill()
    (lab.data / "oil").rename(tmp_path / "elsewhere")
    (lab.data / "oil").mkdir()
    (lab.data / "oil" / "run").symlink_to(tmp_path / "elsewhere")
    found = open_dataset(lab.data, group_regex=r"([0-9])\.png")
    assert len(found.pictures) == 18
    (lab.data / "oil" / "gone.png").symlink_to("nowhere.png")
    with pytest.raises(UserError, match=r"gone\.png: No such file"):
        open_dataset(lab.data, group_regex=r"([0-9])\.png")


def test_names_are_found_however_their_umlauts_are_stored(lab, draw: Callable) -> None:
    import unicodedata

    for c, name in enumerate(("oil", "rest")):
        for i in range(3):
            written = lab.write(f"{name}/{i}.png", draw(10 * c + i))
            written.rename(written.with_name(unicodedata.normalize("NFD", f"L\u00e4uf {i}.png")))
    lab.table([f"{name}/L\u00e4uf {i}.png,g{i}" for name in ("oil", "rest") for i in range(3)])
    assert sorted(set(open_dataset(lab.data, groups=lab.groups).group)) == ["g0", "g1", "g2"]
