"""Crops in, classes out: quantisation, batches, calibrated probabilities, rejection."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edge_app.classification.backends import Backend
from edge_app.classification.bundle import UNKNOWN, Bundle
from edge_app.classification.crops import Crops
from edge_app.classification.learned_size import read_size
from edge_app.classification.rejection import Classification, decide, probabilities_of
from edge_app.errors import UserError

__all__ = ["Classifier"]

F4 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Outputs:
    """What the network says of n crops: logits (n, C), embedding (n, E) and size head (n, 4) where it has them."""

    logits: F4
    embedding: F4 | None
    size: F4 | None


class Classifier:
    """A bundle on a back end.

    The result for a crop does not depend on the crops it is classified with: integer arithmetic, and no state. Where
    the network takes the place in the field and that of a crop is not known, the way the crop lies means nothing: it is
    shown in all eight ways a square can lie, and the outputs are averaged.

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
        crop = d.quantisation["crop"]
        codes = np.arange(256)
        real = (codes - d.input.ratio_one) / d.input.code_scale
        table = np.clip(np.rint(real / crop.scale) + crop.zero_point, -128, 127).astype(np.int8)
        # Networks of this house take int8 = code - 128, which is the code's byte with its top bit flipped.
        self._flip = bool(np.array_equal(table, (codes - 128).astype(np.int8)))
        self._table = table
        self._context = d.quantisation["context"]
        self._field_known = d.input.context.index("field_known") if "field_known" in d.input.context else None
        self._log_prior = np.asarray(d.log_prior, np.float32)

    def quantised(self, crops: Crops) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
        """The int8 inputs (n, W, W, 1) and (n, K) for crops."""
        wanted = (self._window, self._window, 1), len(self.bundle.description.input.context)
        found = crops.pixels.shape[1:], crops.context.shape[1]
        if found != wanted:
            raise UserError(
                f"crops of {found[0]} with {found[1]} numbers beside given to bundle "
                f"{self.bundle.description.name}, which takes {wanted[0]} with {wanted[1]}"
            )
        pixels = (crops.pixels ^ np.uint8(0x80)).view(np.int8) if self._flip else self._table[crops.pixels]
        steps = np.rint(crops.context / np.float32(self._context.scale)) + self._context.zero_point
        return pixels, np.clip(steps, -128, 127).astype(np.int8)

    def _one_way(self, crops: Crops) -> _Outputs:
        raw = self.backend.infer(*self.quantised(crops))
        d, bundle = self.bundle.description.quantisation, self.bundle

        def real(name: str) -> F4:
            return (raw[name].astype(np.float32) - d[name].zero_point) * np.float32(d[name].scale)

        if "embedding" not in raw:
            return _Outputs(real("logits"), None, None)
        q = d["embedding"]
        heads = [
            None if head is None else head.logits(raw["embedding"], scale=q.scale, zero_point=q.zero_point)
            for head in (bundle.head, bundle.size_head)
        ]
        return _Outputs(real("logits") if heads[0] is None else heads[0], real("embedding"), heads[1])

    def _all_ways(self, crops: Crops) -> _Outputs:
        total: list[F4] | None = None
        for turn in range(8):
            pixels = np.rot90(crops.pixels, turn % 4, axes=(1, 2))
            if turn >= 4:
                pixels = pixels[:, :, ::-1]
            found = self._one_way(replace(crops, pixels=np.ascontiguousarray(pixels)))
            parts = [a for a in (found.logits, found.embedding, found.size) if a is not None]
            total = parts if total is None else [a + b for a, b in zip(total, parts, strict=True)]
        assert total is not None
        mean = [a / np.float32(8) for a in total]
        return _Outputs(mean[0], mean[1] if len(mean) > 1 else None, mean[2] if len(mean) > 2 else None)

    def _outputs(self, crops: Crops) -> _Outputs:
        if self._field_known is None:
            return self._one_way(crops)
        known = crops.context[:, self._field_known] > 0.5
        if known.all():
            return self._one_way(crops)
        if not known.any():
            return self._all_ways(crops)
        first, second = self._one_way(crops.take(known)), self._all_ways(crops.take(~known))

        def merged(a: F4 | None, b: F4 | None) -> F4 | None:
            if a is None or b is None:
                return None
            out = np.empty((len(crops), a.shape[1]), np.float32)
            out[known], out[~known] = a, b
            return out

        logits = merged(first.logits, second.logits)
        assert logits is not None
        return _Outputs(logits, merged(first.embedding, second.embedding), merged(first.size, second.size))

    def outputs(self, crops: Crops) -> tuple[F4, F4 | None]:
        """Logits float32 (n, C) and, where the network has it, the embedding float32 (n, E), dequantised."""
        found = self._outputs(crops)
        return found.logits, found.embedding

    def classify(self, crops: Crops) -> Classification:
        """Classes and calibrated probabilities of crops; see `Classification`."""
        sized = self.bundle.size_head is not None
        if len(crops) == 0:
            n = len(self.bundle.classes)
            nothing = np.empty(0, np.float32)
            return Classification(
                class_index=np.empty(0, np.int16),
                confidence=nothing,
                probabilities=np.empty((0, n), np.float32),
                ecd_um=nothing if sized else None,
                ecd_relative_sd=nothing if sized else None,
                depth_um=nothing if sized else None,
            )
        found = self._outputs(crops)
        d = self.bundle.description
        p = probabilities_of(found.logits, temperature=d.temperature, log_prior=self._log_prior)
        decided = decide(p, rejection=d.rejection, embedding=found.embedding, prototypes=self.bundle.prototypes)
        if found.size is None:
            return decided
        ecd_um, relative_sd, depth_um = read_size(
            found.size, log2_reduction=crops.context[:, 0], um_per_px=crops.um_per_px
        )
        return replace(decided, ecd_um=ecd_um, ecd_relative_sd=relative_sd, depth_um=depth_um)
