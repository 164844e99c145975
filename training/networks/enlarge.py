"""Small windows for layouts that were published for 224 px.

They halve the picture five times: a window of 40 px would end as 2x2 values, a particle of 8 px in a quarter of one.
Enlarged first, the same layout keeps as many values per particle as it was made for; it costs the square in time.
"""

from typing import Any

from keras import layers

__all__ = ["enlarged"]


def enlarged(crop: Any, times: int) -> Any:
    """The picture ``times`` as wide and high, linearly interpolated; 1: as it is."""
    return crop if times == 1 else layers.UpSampling2D(times, interpolation="bilinear", name="enlarge")(crop)
