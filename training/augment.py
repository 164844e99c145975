"""Changes of a finished crop that physics allows: the microscope has no preferred direction."""

import numpy as np
import numpy.typing as npt

__all__ = ["augment_batch"]


def augment_batch(pixels: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Turn each crop by a random multiple of 90 degrees and mirror half of them.

    Parameters
    ----------
    pixels : ndarray of uint8 (n, W, W, 1)
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of uint8 (n, W, W, 1)
    """
    out = np.empty_like(pixels)
    turn = rng.integers(0, 8, len(pixels))
    for k in range(8):
        rows = turn == k
        some = np.rot90(pixels[rows], k % 4, axes=(1, 2))
        out[rows] = some[:, :, ::-1] if k >= 4 else some
    return out
