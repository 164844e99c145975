"""Pixels to numbers with units: descriptors, calibration, histogram, concentration."""
