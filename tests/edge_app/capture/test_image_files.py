from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from edge_app.capture.image_files import (
    GreyScaling,
    ImageFileError,
    count_pictures,
    list_images,
    natural_key,
    read_pictures,
)

PICTURE = np.arange(37 * 23, dtype=np.uint32).reshape(23, 37)
BYTE = (PICTURE % 251).astype(np.uint8)
WORD = (PICTURE * 37 % 60013).astype(np.uint16)


def only(path: Path) -> np.ndarray:
    pictures = list(read_pictures(path))
    assert len(pictures) == 1
    return pictures[0]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".pgm"])
def test_grey_bytes_come_back_unchanged(tmp_path: Path, suffix: str, silent: None) -> None:
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), BYTE)
    np.testing.assert_array_equal(only(path), BYTE)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_grey_words_come_back_unchanged(tmp_path: Path, suffix: str, silent: None) -> None:
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), WORD)
    np.testing.assert_array_equal(only(path), WORD)


def test_jpeg_is_near(tmp_path: Path, silent: None) -> None:
    smooth = np.tile(np.linspace(40, 200, 64).astype(np.uint8), (48, 1))
    cv2.imwrite(str(tmp_path / "a.JPG"), smooth, [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert np.abs(only(tmp_path / "a.JPG").astype(int) - smooth).max() <= 3


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_colour_becomes_the_mean_of_its_channels(tmp_path: Path, suffix: str) -> None:
    colour = np.zeros((5, 6, 3), np.uint8)
    colour[...] = (30, 60, 200)  # mean 96.67; the eye's weighting would give 98 or 67
    cv2.imwrite(str(tmp_path / f"a{suffix}"), colour)
    assert (only(tmp_path / f"a{suffix}") == 97).all()


def test_sixteen_bit_colour_becomes_the_mean(tmp_path: Path) -> None:
    colour = np.zeros((5, 6, 3), np.uint16)
    colour[...] = (3000, 6000, 21000)
    cv2.imwrite(str(tmp_path / "a.png"), colour)
    assert (only(tmp_path / "a.png") == 10000).all()


def test_equal_channels_are_exact(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.repeat(BYTE[..., None], 3, axis=2))
    np.testing.assert_array_equal(only(tmp_path / "a.png"), BYTE)


def test_transparent_pixels_take_the_level_of_the_opaque_rim(tmp_path: Path) -> None:
    picture = np.zeros((12, 12, 4), np.uint8)
    picture[2:10, 2:10] = (180, 180, 180, 255)
    picture[4:8, 4:8, :3] = 60
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    grey = only(tmp_path / "a.png")
    assert (grey[:2] == 180).all()
    assert (grey[4:8, 4:8] == 60).all()


def test_opaque_alpha_changes_nothing(tmp_path: Path) -> None:
    picture = np.dstack([BYTE, BYTE, BYTE, np.full_like(BYTE, 255)])
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    np.testing.assert_array_equal(only(tmp_path / "a.png"), BYTE)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_pages_of_a_tiff_in_order(tmp_path: Path, big: bool, order: str, silent: None) -> None:
    stack = np.stack([BYTE, BYTE[::-1], 255 - BYTE])
    with tifffile.TiffWriter(tmp_path / "a.tif", bigtiff=big, byteorder=order) as writer:
        for page in stack:
            writer.write(page, photometric="minisblack", contiguous=False)
    assert count_pictures(tmp_path / "a.tif") == 3
    np.testing.assert_array_equal(np.stack(list(read_pictures(tmp_path / "a.tif"))), stack)


def test_stack_longer_than_one_portion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_app.capture.image_files._CHUNK_BYTES", 3 * BYTE.size)
    stack = np.stack([np.roll(BYTE, i) for i in range(8)])
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack")
    np.testing.assert_array_equal(np.stack(list(read_pictures(tmp_path / "a.tif"))), stack)


def test_reduced_preview_pages_are_no_frames(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(BYTE, photometric="minisblack")
        writer.write(BYTE[::2, ::2], photometric="minisblack", subfiletype=1)
        writer.write(BYTE[::-1], photometric="minisblack")
    np.testing.assert_array_equal(np.stack(list(read_pictures(tmp_path / "a.tif"))), [BYTE, BYTE[::-1]])


@pytest.mark.parametrize("share", [0.03, 0.5, 0.97])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".pgm", ".jpg"])
def test_cut_file_is_truncated_and_never_half_a_picture(
    tmp_path: Path, suffix: str, share: float, silent: None
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (120, 160), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / f"whole{suffix}"), noise)
    data = (tmp_path / f"whole{suffix}").read_bytes()
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: max(30, int(len(data) * share))])
    with pytest.raises(ImageFileError) as caught:
        list(read_pictures(path))
    assert caught.value.reason == "truncated"


def test_whole_pages_before_the_cut_are_delivered(tmp_path: Path, silent: None) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for i in range(4):
            writer.write(np.full((50, 60), i, np.uint8), photometric="minisblack", contiguous=False)
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(data[: int(len(data) * 0.6)])
    pages = read_pictures(tmp_path / "cut.tif")
    assert [int(next(pages)[0, 0]) for _ in range(2)] == [0, 1]
    with pytest.raises(ImageFileError, match="after 2 whole pages"):
        next(pages)


def test_damage_inside_a_png_is_found(tmp_path: Path, silent: None) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), BYTE)
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[len(data) // 2] ^= 0x55
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(ImageFileError, match="checksum") as caught:
        list(read_pictures(tmp_path / "a.png"))
    assert caught.value.reason == "unreadable"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"hello, this is text\n", "unreadable"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (b"II*\0", "truncated"),
    ],
)
def test_what_is_no_picture(tmp_path: Path, content: bytes, reason: str, silent: None) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageFileError) as caught:
        list(read_pictures(tmp_path / "a.png"))
    assert caught.value.reason == reason


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(ImageFileError) as caught:
            list(read_pictures(path))
        assert caught.value.reason == "unreadable"


def test_float_pixels_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", BYTE.astype(np.float32))
    with pytest.raises(ImageFileError, match="float32"):
        list(read_pictures(tmp_path / "a.tif"))


def test_looped_tiff_directory_ends(tmp_path: Path, silent: None) -> None:
    tifffile.imwrite(tmp_path / "a.tif", BYTE)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    start = int.from_bytes(data[4:8], "little")
    entries = int.from_bytes(data[start : start + 2], "little")
    data[start + 2 + 12 * entries : start + 6 + 12 * entries] = start.to_bytes(4, "little")
    (tmp_path / "a.tif").write_bytes(data)
    pages = read_pictures(tmp_path / "a.tif")
    np.testing.assert_array_equal(next(pages), BYTE)
    with pytest.raises(ImageFileError):
        next(pages)


@pytest.mark.parametrize(("brightest", "bits"), [(200, 8), (1023, 10), (4095, 12), (16383, 14), (65535, 16)])
def test_depth_is_decided_by_the_brightest_pixel(brightest: int, bits: int) -> None:
    scaling = GreyScaling()
    picture = np.array([[brightest, brightest // 2]], np.uint16)
    scaling.decide([np.zeros((2, 2), np.uint16), picture])
    assert scaling.bits == bits
    np.testing.assert_array_equal(scaling.to_uint8(picture), picture >> (bits - 8))


def test_depth_stays_as_decided() -> None:
    scaling = GreyScaling()
    scaling.to_uint8(np.full((2, 2), 900, np.uint16))
    assert (scaling.to_uint8(np.full((2, 2), 100, np.uint16)) == 25).all()
    with pytest.raises(ImageFileError, match="10 bits"):
        scaling.to_uint8(np.full((2, 2), 1024, np.uint16))


def test_dark_picture_decides_nothing() -> None:
    scaling = GreyScaling()
    assert (scaling.to_uint8(np.full((2, 2), 20, np.uint16)) == 20).all()
    assert scaling.bits is None
    assert (scaling.to_uint8(np.full((2, 2), 1000, np.uint16)) == 250).all()


def test_listing_is_natural_and_leaves_out_what_is_hidden(tmp_path: Path) -> None:
    for name in ("b2.png", "b10.PNG", "b1.tiff", ".b3.png", "notes.txt", "sub/b0.png", ".git/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [p.name for p in list_images(tmp_path)] == ["b1.tiff", "b2.png", "b10.PNG"]
    below = [p.relative_to(tmp_path).as_posix() for p in list_images(tmp_path, recursive=True)]
    assert below == ["b1.tiff", "b2.png", "b10.PNG", "sub/b0.png"]


def test_natural_order_is_total() -> None:
    names = ["", "1", "A1", "a", "a001", "a01", "a1", "b"]
    assert len({str(natural_key(name)) for name in names}) == len(names)
    assert sorted(["a2", "a10", "A1", "1", "b"], key=natural_key) == ["1", "A1", "a2", "a10", "b"]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".pgm", ".jpg"])
def test_any_damage_gives_a_picture_or_a_reason(tmp_path: Path, suffix: str) -> None:
    """No other error gets out, whatever the bytes are."""
    cv2.imwrite(str(tmp_path / f"a{suffix}"), BYTE)
    whole = (tmp_path / f"a{suffix}").read_bytes()
    rng = np.random.default_rng(5)
    reasons = set()
    for _ in range(150):
        data = np.frombuffer(whole, np.uint8).copy()
        data[rng.integers(0, min(len(data), 400), 3)] = rng.integers(0, 256, 3)
        (tmp_path / f"b{suffix}").write_bytes(data.tobytes())
        try:
            assert all(p.dtype in (np.uint8, np.uint16) and p.ndim == 2 for p in read_pictures(tmp_path / f"b{suffix}"))
        except ImageFileError as error:
            reasons.add(error.reason)
    assert reasons <= {"unreadable", "truncated"}
    assert reasons


@pytest.mark.parametrize("suffix", [".webp", ".jp2", ".gif"])
@pytest.mark.parametrize("share", [0.5, 0.97, 1.0])
def test_other_kinds_that_the_decoder_knows(tmp_path: Path, suffix: str, share: float, silent: None) -> None:
    image = pytest.importorskip("PIL.Image")
    whole, cut = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    image.fromarray(BYTE).save(whole, **({"lossless": True} if suffix == ".webp" else {}))
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
    assert list_images(tmp_path) == [whole, cut]
    if share < 1:
        with pytest.raises(ImageFileError) as caught:
            only(cut)
        assert caught.value.reason == "truncated"
    else:
        assert np.abs(only(cut).astype(int) - BYTE).max() <= 2


def test_animation_is_not_read_as_its_first_picture(tmp_path: Path, silent: None) -> None:
    image = pytest.importorskip("PIL.Image")
    pictures = [image.fromarray(np.roll(BYTE, i, axis=1)) for i in range(3)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:])
    with pytest.raises(ImageFileError, match="3 pictures"):
        only(tmp_path / "a.gif")


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_tiff_that_stores_light_as_zero(tmp_path: Path, kind: type) -> None:
    picture = BYTE.astype(kind) * (257 if kind is np.uint16 else 1)
    tifffile.imwrite(tmp_path / "a.tif", np.iinfo(kind).max - picture, photometric="miniswhite")
    np.testing.assert_array_equal(only(tmp_path / "a.tif"), picture)


def test_signed_pixels_are_read_where_none_is_negative(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", (WORD // 2).astype(np.int16))
    np.testing.assert_array_equal(only(tmp_path / "a.tif"), WORD // 2)
    tifffile.imwrite(tmp_path / "a.tif", WORD.astype(np.int16) - 5)
    with pytest.raises(ImageFileError, match="int16"):
        only(tmp_path / "a.tif")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_stack_of_imagej_with_one_directory_is_read_to_its_end(tmp_path: Path, dtype: type) -> None:
    """ImageJ writes stacks beyond 4 GB so."""
    stack = np.stack([np.roll(BYTE, i).astype(dtype) for i in range(5)])
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, truncate=True)
    assert count_pictures(tmp_path / "a.tif") == 5
    np.testing.assert_array_equal(np.stack(list(read_pictures(tmp_path / "a.tif"))), stack)
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(data[: len(data) - 2 * stack[0].nbytes])
    pages = read_pictures(tmp_path / "cut.tif")
    assert len([next(pages) for _ in range(3)]) == 3
    with pytest.raises(ImageFileError, match="after 3 whole pages"):
        next(pages)


def test_ascii_picture_needs_no_blank_at_its_end(tmp_path: Path, silent: None) -> None:
    (tmp_path / "a.pgm").write_text("P2\n3 2\n255\n1 2 3\n4 5 6")
    np.testing.assert_array_equal(only(tmp_path / "a.pgm"), [[1, 2, 3], [4, 5, 6]])


def test_links_are_followed_and_one_that_leads_nowhere_is_listed(tmp_path: Path) -> None:
    data, other = tmp_path / "data", tmp_path / "other"
    for folder in (data / "__MACOSX", other):
        folder.mkdir(parents=True)
    for path in (other / "a.png", data / "__MACOSX" / "b.png", data / "._c.png", data / "Thumbs.db"):
        path.touch()
    (data / "link").symlink_to(other)
    (data / "again").symlink_to(data)
    (data / "gone.png").symlink_to("nowhere.png")
    assert [p.relative_to(data).as_posix() for p in list_images(data, recursive=True)] == ["gone.png", "link/a.png"]
    assert [p.name for p in list_images(data)] == ["gone.png"]
