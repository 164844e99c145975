"""The sprite library: round trip, the shipped file, and what is said of files that are none."""

import numpy as np
import pytest

from edge_app.capture.frame import RATIO_ONE
from edge_app.capture.simulation.sprite_library import SpriteLibrary, SpriteLibraryError, pack

FAMILIES = ("silicone_oil", "glass")


@pytest.fixture(scope="module")
def shipped() -> SpriteLibrary:
    return SpriteLibrary.shipped()


def small_library(count: int = 7) -> tuple[SpriteLibrary, list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(0)
    shapes = [(int(h), int(w)) for h, w in rng.integers(3, 20, (count, 2))]
    patches = [rng.integers(0, 256, s).astype(np.uint8) for s in shapes]
    masks = [rng.random(s) > 0.5 for s in shapes]
    numbers = np.linspace(2, 20, count).tolist()
    library = pack(
        families=FAMILIES,
        patches=patches,
        masks=masks,
        family=[i % 2 for i in range(count)],
        columns={
            "ecd_um": numbers,
            "max_feret_um": numbers,
            "z_um": [10 * n - 50 for n in numbers],
            "field_radius": [n / 20 for n in numbers],
            "um_per_px": [1.33] * count,
        },
        metadata={"seed": 7_000_000},
    )
    return library, patches, masks


def test_round_trip(tmp_path) -> None:
    library, patches, masks = small_library()
    library.save(tmp_path / "s.npz")
    read = SpriteLibrary.load(tmp_path / "s.npz")
    assert len(read) == len(library)
    assert read.families == FAMILIES
    assert read.metadata["seed"] == 7_000_000
    for i, (patch, mask) in enumerate(zip(patches, masks, strict=True)):
        np.testing.assert_array_equal(read.patch(i), patch)
        np.testing.assert_array_equal(read.mask(i), mask)
    np.testing.assert_array_equal(read.ecd_um, library.ecd_um)
    assert read.family_name(1) == "glass"
    library.save(tmp_path / "again.npz")
    assert (tmp_path / "s.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()


def test_pictures_cannot_be_written_to(tmp_path) -> None:
    small_library()[0].save(tmp_path / "s.npz")
    with pytest.raises(ValueError, match="read-only"):
        SpriteLibrary.load(tmp_path / "s.npz").patch(0)[0, 0] = 1


def test_find_and_nearest() -> None:
    library, _, _ = small_library()
    assert library.find(family="glass").tolist() == [1, 3, 5]
    assert library.find(ecd_um=(4.0, 9.0)).tolist() == [1, 2]
    i = library.nearest(family="silicone_oil", ecd_um=20.0, z_um=150.0, field_radius=1.0)
    assert i == 6
    with pytest.raises(LookupError, match="sand"):
        library.find(family="sand")


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04broken"])
def test_other_files_are_refused_in_one_line(tmp_path, content: bytes) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(SpriteLibraryError, match=r"x\.npz is not a sprite library"):
        SpriteLibrary.load(path)


def test_truncated_library_is_refused(tmp_path) -> None:
    path = tmp_path / "s.npz"
    small_library()[0].save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(SpriteLibraryError):
        SpriteLibrary.load(path)


def test_another_npz_is_refused(tmp_path) -> None:
    np.savez(tmp_path / "o.npz", a=np.zeros(3))
    with pytest.raises(SpriteLibraryError, match=r"o\.npz"):
        SpriteLibrary.load(tmp_path / "o.npz")


def test_missing_file_says_so(tmp_path) -> None:
    with pytest.raises(FileNotFoundError):
        SpriteLibrary.load(tmp_path / "none.npz")


def test_shipped_library_covers_what_it_promises(shipped: SpriteLibrary) -> None:
    assert len(shipped) > 1500
    assert len(shipped.families) == 11
    assert shipped.metadata["seed"] >= 7_000_000
    np.testing.assert_allclose(shipped.um_per_px, 1.33, rtol=1e-6)
    for family in shipped.families:
        rows = shipped.find(family=family)
        assert len(rows) > 100
        sizes = shipped.ecd_um[rows]
        assert sizes.min() < 3
        assert sizes.max() > 50
        assert ((sizes > 2) & (sizes < 25)).mean() > 0.75
        assert shipped.z_um[rows].min() < -45
        assert shipped.z_um[rows].max() > 45
        assert shipped.field_radius[rows].max() > 0.95


def test_shipped_sprites_end_in_background(shipped: SpriteLibrary) -> None:
    for i in range(len(shipped)):
        patch = shipped.patch(i)
        assert (patch[0] == RATIO_ONE).all()
        assert (patch[-1] == RATIO_ONE).all()
        assert (patch[:, 0] == RATIO_ONE).all()
        assert (patch[:, -1] == RATIO_ONE).all()


def test_shipped_masks_agree_with_their_sizes(shipped: SpriteLibrary) -> None:
    rows = shipped.find(ecd_um=(8.0, 100.0))
    area = np.array([shipped.mask(int(i)).sum() for i in rows])
    measured = 2 * np.sqrt(area / np.pi) * 1.33
    assert np.median(np.abs(measured / shipped.ecd_um[rows] - 1)) < 0.03
