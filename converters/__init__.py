"""Trained networks to what a device runs: full-integer TFLite, and the bundle around it."""

from converters.bundle_writer import check_target, write_bundle
from converters.tflite import IntegerModel, convert_to_int8, run_int8

__all__ = ["IntegerModel", "check_target", "convert_to_int8", "run_int8", "write_bundle"]
