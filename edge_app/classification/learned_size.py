"""True size and depth as the network reads them off the picture, beside the measured size."""

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["DEPTH_UNIT_UM", "SIZE_OUTPUTS", "read_size"]

F4 = npt.NDArray[np.float32]

#: What the size head gives: ln of the ECD in px of the window, ln of its standard deviation, distance from the focal
#: plane in `DEPTH_UNIT_UM`, ln of its standard deviation.
SIZE_OUTPUTS: Final = 4
DEPTH_UNIT_UM: Final = 50.0


def read_size(outputs: F4, *, log2_reduction: F4, um_per_px: F4) -> tuple[F4, F4, F4]:
    """Size and depth from the raw outputs of the size head.

    Parameters
    ----------
    outputs
        float32 (n, 4), see `SIZE_OUTPUTS`.
    log2_reduction
        float32 (n,): how far the picture was reduced to fit the window.
    um_per_px
        float32 (n,): scale of the picture before that.

    Returns
    -------
    ecd_um, ecd_relative_sd, depth_um
        float32 (n,): diameter of the circle of the particle's true projected area, its standard deviation as a fraction
        of it, distance from the focal plane without its sign.

    Examples
    --------
    >>> raw = np.array([[np.log(10.0), np.log(0.05), 0.4, 0.0]], np.float32)
    >>> one = np.ones(1, np.float32)
    >>> [round(float(v[0]), 3) for v in read_size(raw, log2_reduction=one, um_per_px=1.33 * one)]
    [26.6, 0.05, 20.0]
    """
    ecd_um = np.exp(outputs[:, 0]) * np.exp2(log2_reduction) * um_per_px
    depth_um = np.maximum(outputs[:, 2], 0) * np.float32(DEPTH_UNIT_UM)
    return ecd_um.astype(np.float32), np.exp(outputs[:, 1]).astype(np.float32), depth_um.astype(np.float32)
