"""The last layer of the network, computed here and not in the int8 model: finer steps where classes are close."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Head"]

F4 = npt.NDArray[np.float32]

_FIXED_POINT = float(2**20)


@dataclass(frozen=True)
class Head:
    """Dense layer from the embedding to the logits.

    The int8 model ends in the same layer, but its 8-bit logits are coarse: where two classes are nearly as likely, one
    step decides, and interpreters that round differently part ways. From the 8-bit embedding the layer is exact here.

    Attributes
    ----------
    kernel
        float32 (E, C).
    bias
        float32 (C,).
    """

    kernel: F4
    bias: F4

    def logits(self, embedding: npt.NDArray[np.int8], *, scale: float, zero_point: int) -> F4:
        """Logits float32 (n, C) of quantised embeddings int8 (n, E).

        Every product and sum is a whole number below 2^53, so the result does not depend on the order of summation,
        and with it neither on the batch nor on the linear algebra library.

        Examples
        --------
        >>> head = Head(kernel=np.array([[1.0], [2.0]], np.float32), bias=np.array([0.5], np.float32))
        >>> head.logits(np.array([[-126, -127]], np.int8), scale=0.25, zero_point=-128).tolist()
        [[1.5]]
        """
        kernel = np.rint(self.kernel.astype(np.float64) * (scale * _FIXED_POINT))
        bias = np.rint(self.bias.astype(np.float64) * _FIXED_POINT)
        total = (embedding.astype(np.float64) - zero_point) @ kernel + bias
        return (total / _FIXED_POINT).astype(np.float32)
