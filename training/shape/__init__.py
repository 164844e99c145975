"""Size and shape as numbers for training, measured by the device's own code."""

from training.shape.detected import columns_of_crops, columns_of_detection
from training.shape.run_sizes import drawn_size_shares

__all__ = ["columns_of_crops", "columns_of_detection", "drawn_size_shares"]
