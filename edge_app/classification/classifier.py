"""Crops in, classes out: quantisation, batches, calibrated probabilities, rejection."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_app.classification.backends import Backend
from edge_app.classification.bundle import UNKNOWN, Bundle
from edge_app.classification.crops import Crops
from edge_app.classification.head import Head
from edge_app.classification.learned_size import SIZE_OUTPUTS, read_size
from edge_app.classification.rejection import Classification, decide, probabilities_of, probability_of_logit
from edge_app.errors import UserError

__all__ = ["Classifier"]

F4 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Outputs:
    """What the network says: logits (n, C) and, where it has them, embedding (n, E), size (n, 4), novelty (n, 1)."""

    logits: F4
    embedding: F4 | None = None
    size: F4 | None = None
    novelty: F4 | None = None

    def combined(self, other: "_Outputs", how: Callable[[F4, F4], F4]) -> "_Outputs":
        """Each output of both put together; an output that one lacks is lacking."""
        joined: dict[str, Any] = {}
        for part in fields(self):
            a, b = getattr(self, part.name), getattr(other, part.name)
            joined[part.name] = None if a is None or b is None else how(a, b)
        return _Outputs(**joined)


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
            return _Outputs(real("logits"))
        q = d["embedding"]

        def exact(head: Head | None) -> F4 | None:
            if head is None:
                return None
            return head.logits(raw["embedding"], scale=q.scale, zero_point=q.zero_point)

        logits = exact(bundle.head)
        return _Outputs(
            logits=real("logits") if logits is None else logits,
            embedding=real("embedding"),
            size=exact(bundle.size_head),
            novelty=exact(bundle.novelty_head),
        )

    def _all_ways(self, crops: Crops) -> _Outputs:
        total: _Outputs | None = None
        for turn in range(8):
            pixels = np.rot90(crops.pixels, turn % 4, axes=(1, 2))
            if turn >= 4:
                pixels = pixels[:, :, ::-1]
            found = self._one_way(replace(crops, pixels=np.ascontiguousarray(pixels)))
            total = found if total is None else total.combined(found, np.add)
        assert total is not None
        return total.combined(total, lambda a, _: a / np.float32(8))

    def _outputs(self, crops: Crops) -> _Outputs:
        if self._field_known is None:
            return self._one_way(crops)
        known = crops.context[:, self._field_known] > 0.5
        if known.all():
            return self._one_way(crops)
        if not known.any():
            return self._all_ways(crops)

        def merged(a: F4, b: F4) -> F4:
            out = np.empty((len(crops), a.shape[1]), np.float32)
            out[known], out[~known] = a, b
            return out

        return self._one_way(crops.take(known)).combined(self._all_ways(crops.take(~known)), merged)

    def outputs(self, crops: Crops) -> tuple[F4, F4 | None]:
        """Logits float32 (n, C) and, where the network has it, the embedding float32 (n, E), dequantised."""
        found = self._outputs(crops)
        return found.logits, found.embedding

    def classify(self, crops: Crops) -> Classification:
        """Classes and calibrated probabilities of crops; see `Classification`."""
        d, bundle = self.bundle.description, self.bundle
        if len(crops):
            found = self._outputs(crops)
        else:
            nothing = np.empty((0, len(bundle.classes)), np.float32)
            found = _Outputs(
                logits=nothing,
                size=None if bundle.size_head is None else np.empty((0, SIZE_OUTPUTS), np.float32),
                novelty=None if bundle.novelty_head is None else np.empty((0, 1), np.float32),
            )
        p = probabilities_of(found.logits, temperature=d.temperature, log_prior=self._log_prior)
        novelty = None if found.novelty is None else probability_of_logit(found.novelty[:, 0])
        decided = decide(
            p,
            rejection=d.rejection,
            embedding=found.embedding,
            prototypes=bundle.prototypes,
            novelty=novelty,
            unplaced=None if self._field_known is None else crops.context[:, self._field_known] <= 0.5,
        )
        if found.size is None:
            return decided
        ecd_um, relative_sd, depth_um = read_size(
            found.size, log2_reduction=crops.context[:, 0], um_per_px=crops.um_per_px
        )
        return replace(decided, ecd_um=ecd_um, ecd_relative_sd=relative_sd, depth_um=depth_um)
