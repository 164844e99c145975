"""Crops in, classes out: quantisation, batches, calibrated probabilities, rejection."""

import numpy as np
import numpy.typing as npt

from edge_app.classification.backends import Backend
from edge_app.classification.bundle import UNKNOWN, Bundle
from edge_app.classification.crops import Crops
from edge_app.classification.rejection import Classification, decide, probabilities_of
from edge_app.errors import UserError

__all__ = ["Classifier"]

F4 = npt.NDArray[np.float32]


class Classifier:
    """A bundle on a back end.

    The result for a crop does not depend on the crops it is classified with: integer arithmetic, and no state.

    Parameters
    ----------
    bundle
        What `Bundle.load` gave.
    backend
        What `open_backend` gave for the same bundle.
    """

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self.bundle = bundle
        self.backend = backend
        d = bundle.description
        self.classes: tuple[str, ...] = (*d.classes, UNKNOWN)
        self._window = d.input.window_px
        crop, size = d.quantisation["crop"], d.quantisation["size"]
        codes = np.arange(256)
        real = (codes - d.input.ratio_one) / d.input.code_scale
        table = np.clip(np.rint(real / crop.scale) + crop.zero_point, -128, 127).astype(np.int8)
        # Networks of this house take int8 = code - 128, which is the code's byte with its top bit flipped.
        self._flip = bool(np.array_equal(table, (codes - 128).astype(np.int8)))
        self._table = table
        self._size = size
        self._log_prior = np.asarray(d.log_prior, np.float32)

    def quantised(self, crops: Crops) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
        """The int8 inputs (n, W, W, 1) and (n, 1) for crops."""
        if crops.pixels.shape[1:] != (self._window, self._window, 1):
            raise UserError(
                f"crops of {crops.pixels.shape[1:]} given to bundle {self.bundle.description.name}, "
                f"which takes {(self._window, self._window, 1)}"
            )
        pixels = (crops.pixels ^ np.uint8(0x80)).view(np.int8) if self._flip else self._table[crops.pixels]
        steps = np.rint(crops.size / np.float32(self._size.scale)) + self._size.zero_point
        return pixels, np.clip(steps, -128, 127).astype(np.int8)

    def outputs(self, crops: Crops) -> tuple[F4, F4 | None]:
        """Logits float32 (n, C) and, where the network has it, the embedding float32 (n, E), dequantised."""
        pixels, size = self.quantised(crops)
        raw = self.backend.infer(pixels, size)
        d, head = self.bundle.description.quantisation, self.bundle.head

        def real(name: str) -> F4:
            return (raw[name].astype(np.float32) - d[name].zero_point) * np.float32(d[name].scale)

        if "embedding" not in raw:
            return real("logits"), None
        if head is None:
            return real("logits"), real("embedding")
        q = d["embedding"]
        return head.logits(raw["embedding"], scale=q.scale, zero_point=q.zero_point), real("embedding")

    def classify(self, crops: Crops) -> Classification:
        """Classes and calibrated probabilities of crops; see `Classification`."""
        if len(crops) == 0:
            n = len(self.bundle.classes)
            return Classification(
                class_index=np.empty(0, np.int16),
                confidence=np.empty(0, np.float32),
                probabilities=np.empty((0, n), np.float32),
            )
        logits, embedding = self.outputs(crops)
        d = self.bundle.description
        p = probabilities_of(logits, temperature=d.temperature, log_prior=self._log_prior)
        return decide(p, rejection=d.rejection, embedding=embedding, prototypes=self.bundle.prototypes)
