import pytest

from edge_app.measurement.pixel_guideline import pixel_guideline


@pytest.mark.parametrize(("um_per_px", "smallest"), [(1.7, 15.3), (1.33, 12.0)])
def test_nine_pixels_in_um(um_per_px: float, smallest: float) -> None:
    found = pixel_guideline(um_per_px=um_per_px, frame_width_px=1280, frame_height_px=1024, reporting_from_um=5.0)
    assert found.smallest_um == pytest.approx(smallest, abs=0.05)
    assert found.largest_um == pytest.approx(1024 / 3 * um_per_px)
    assert "ISO 13322-2:2021 (limits quoted second-hand) asks for at least 9 px across a particle" in found.text
    assert f"Sizes from 5 to {smallest:.1f} um are reported below that guideline" in found.text


def test_a_fine_scale_keeps_it() -> None:
    found = pixel_guideline(um_per_px=0.4, frame_width_px=1280, frame_height_px=960, reporting_from_um=5.0)
    assert found.text.endswith("All sizes reported (from 5 um) keep the lower limit.")
