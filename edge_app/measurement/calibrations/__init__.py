"""Calibrations that come with the package."""

from pathlib import Path
from typing import Final

__all__ = ["SIMULATED_MFI"]

SIMULATED_MFI: Final = Path(__file__).with_name("simulated_mfi.json")
"""Size curve of the simulated optics, made by ``python -m benchmarks.fit_simulated_size_curve``."""
