"""Changes of a finished crop that physics allows: no direction is preferred but the way off the axis."""

from dataclasses import replace

import numpy as np

from training.datasets.labelled import LabelledCrops

__all__ = ["augment_batch"]


def augment_batch(crops: LabelledCrops, rng: np.random.Generator, *, field_known: int | None = 3) -> LabelledCrops:
    """Turn each crop by a random multiple of 90 degrees and mirror half of them, where its place is not known.

    A crop of known place is turned outward already (`edge_app.classification.context.turned_outward`).

    Parameters
    ----------
    crops : LabelledCrops
    rng : numpy.random.Generator
    field_known : int or None
        Column of the context that says whether the place is known; None, or a context without it: it never is.

    Returns
    -------
    LabelledCrops
    """
    out = np.empty_like(crops.pixels)
    turn = rng.integers(0, 8, len(crops))
    if field_known is not None and field_known < crops.context.shape[1]:
        turn[crops.context[:, field_known] > 0.5] = 0
    for k in range(8):
        rows = turn == k
        some = np.rot90(crops.pixels[rows], k % 4, axes=(1, 2))
        out[rows] = some[:, :, ::-1] if k >= 4 else some
    return replace(crops, pixels=out)
