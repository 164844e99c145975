"""Against instruments' exports and reference pictures, where they are on the machine."""

import os
from pathlib import Path

import pytest

from benchmarks.flowcam_agreement import compare
from benchmarks.iso_discs import measure_discs

DATA = Path(os.environ.get("EDGE_APP_REAL_DATA", Path(__file__).parents[3].parent / "shared" / "data"))

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"real data not found at {DATA} (EDGE_APP_REAL_DATA)")


@needs_data
@pytest.mark.parametrize("diameter", ["5", "10", "30"])
def test_iso_discs_have_their_nominal_diameter(diameter: str) -> None:
    result = measure_discs(DATA / "iso_discs" / f"Monodisperse_n100_{diameter}px.tif")
    assert result.counted >= 470
    assert result.error == pytest.approx(0.0, abs=0.1)


@needs_data
def test_flowcam_with_its_own_thresholds() -> None:
    figures = compare(DATA / "flowcam" / "run1", mode="instrument")
    assert figures.instrument_particles > 300
    assert figures.found_iou_03 >= 0.98
    assert figures.found_iou_05 >= 0.95
    assert 0.95 <= figures.median_area_ratio <= 1.25
    assert figures.per_ml == pytest.approx(figures.instrument_per_ml, rel=0.05)


@needs_data
def test_flowcam_with_our_settings_misses_next_to_nothing() -> None:
    figures = compare(DATA / "flowcam" / "run1", mode="default")
    assert figures.overlapped >= 0.97
    assert figures.merges <= 0.02 * figures.instrument_particles
