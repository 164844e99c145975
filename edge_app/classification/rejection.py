"""From logits to calibrated probabilities, class and ``unknown``."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Classification", "Rejection", "decide", "probabilities_of", "probability_of_logit"]

F4 = npt.NDArray[np.float32]


class Rejection(BaseModel):
    """When a particle is called ``unknown``; chosen by the error of the reported composition, part of the bundle."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    minimum_probability: float = Field(
        default=0.0, ge=0, le=1, description="below this share of the chosen class, once the offsets have been added"
    )
    maximum_distance: tuple[float, ...] | None = Field(
        default=None, description="above this distance to the class's prototype in the embedding, a number per class"
    )
    class_offset: tuple[float, ...] | None = Field(
        default=None,
        description="added to the log probability of each class before the best is chosen; the probabilities stay",
    )
    class_offset_unplaced: tuple[float, ...] | None = Field(
        default=None,
        description="instead of class_offset for a crop whose place in the field is not known, as in tight crops",
    )
    maximum_novelty: float = Field(
        default=1.0, ge=0, le=1, description="above this probability of being none of the classes"
    )


@dataclass(frozen=True, kw_only=True)
class Classification:
    """Classes of n particles.

    ``class_index`` int16 (n,) into ``Classifier.classes`` (the last is ``unknown``), ``confidence`` float32 (n,)
    the calibrated probability of the class chosen (also where rejected), ``probabilities`` float32 (n, C) over the
    network's own classes. Where the network reads true size too: ``ecd_um``, ``ecd_relative_sd`` and ``depth_um``
    (distance from the focal plane) float32 (n,); where it was taught to know strangers, ``novelty`` float32 (n,), the
    probability of being none of the classes; else None.
    """

    class_index: npt.NDArray[np.int16]
    confidence: F4
    probabilities: F4
    ecd_um: F4 | None = None
    ecd_relative_sd: F4 | None = None
    depth_um: F4 | None = None
    novelty: F4 | None = None

    def __len__(self) -> int:
        return len(self.class_index)

    @staticmethod
    def concatenate(parts: "list[Classification]") -> "Classification":
        """Join in the given order."""

        def joined(name: str) -> F4 | None:
            columns = [getattr(p, name) for p in parts]
            return None if any(c is None for c in columns) else np.concatenate(columns)

        return Classification(
            class_index=np.concatenate([p.class_index for p in parts]),
            confidence=np.concatenate([p.confidence for p in parts]),
            probabilities=np.concatenate([p.probabilities for p in parts]),
            ecd_um=joined("ecd_um"),
            ecd_relative_sd=joined("ecd_relative_sd"),
            depth_um=joined("depth_um"),
            novelty=joined("novelty"),
        )

    def take(self, rows: npt.NDArray[np.generic] | slice) -> "Classification":
        """Keep some rows."""
        return Classification(
            class_index=self.class_index[rows],
            confidence=self.confidence[rows],
            probabilities=self.probabilities[rows],
            ecd_um=None if self.ecd_um is None else self.ecd_um[rows],
            ecd_relative_sd=None if self.ecd_relative_sd is None else self.ecd_relative_sd[rows],
            depth_um=None if self.depth_um is None else self.depth_um[rows],
            novelty=None if self.novelty is None else self.novelty[rows],
        )

    def rows(self, first: int, last: int) -> "Classification":
        """Rows ``first`` to ``last - 1``."""
        return self.take(slice(first, last))


def probabilities_of(logits: F4, *, temperature: float, log_prior: F4 | None = None) -> F4:
    """Softmax of ``logits / temperature + log_prior``, shape (n, C).

    Examples
    --------
    >>> probabilities_of(np.array([[0.0, 0.0]], np.float32), temperature=2.0).tolist()
    [[0.5, 0.5]]
    """
    scaled = logits.astype(np.float32) / np.float32(temperature)
    if log_prior is not None:
        scaled = scaled + log_prior
    scaled -= scaled.max(axis=1, keepdims=True, initial=-np.inf)
    np.exp(scaled, out=scaled)
    scaled /= scaled.sum(axis=1, keepdims=True)
    return scaled


def probability_of_logit(logit: F4) -> F4:
    """Logistic function.

    Examples
    --------
    >>> probability_of_logit(np.zeros(1, np.float32)).tolist()
    [0.5]
    """
    return np.asarray(1 / (1 + np.exp(-logit)), np.float32)


def decide(
    probabilities: F4,
    *,
    rejection: Rejection,
    embedding: F4 | None = None,
    prototypes: F4 | None = None,
    novelty: F4 | None = None,
    unplaced: npt.NDArray[np.bool_] | None = None,
) -> Classification:
    """Best class, or ``unknown`` (index C) where it is not sure enough or unlike anything of that class.

    Parameters
    ----------
    probabilities
        float32 (n, C), calibrated.
    rejection
        The rule of the bundle.
    embedding, prototypes
        float32 (n, E) and (C, E); needed only by a rule with ``maximum_distance``.
    novelty
        float32 (n,), probability of being none of the classes; needed only by a rule with ``maximum_novelty`` below 1.
    unplaced
        bool (n,), whose place in the field is not known; None: of none.

    Examples
    --------
    >>> rule = Rejection(class_offset_unplaced=(1.0, 0.0))
    >>> even = np.array([[0.4, 0.6], [0.4, 0.6]], np.float32)
    >>> decide(even, rejection=rule, unplaced=np.array([True, False])).class_index.tolist()
    [0, 1]
    """
    n, classes = probabilities.shape
    weighed = probabilities
    placed = (
        np.zeros(classes, np.float32)
        if rejection.class_offset is None
        else np.array(rejection.class_offset, np.float32)
    )
    offset = np.broadcast_to(placed, (n, classes))
    if rejection.class_offset_unplaced is not None and unplaced is not None:
        offset = np.where(unplaced[:, None], np.array(rejection.class_offset_unplaced, np.float32), offset)
    if offset.any():
        # Doubt is judged after the offset: what it makes the choice is not turned away for having needed it.
        weighed = probabilities * np.exp(offset)
        weighed /= weighed.sum(axis=1, keepdims=True)
    best = weighed.argmax(axis=1) if n else np.empty(0, np.int64)
    confidence = probabilities[np.arange(n), best]
    unknown = weighed[np.arange(n), best] < rejection.minimum_probability
    if rejection.maximum_distance is not None and embedding is not None and prototypes is not None:
        distance = np.linalg.norm(embedding - prototypes[best], axis=1)
        unknown |= distance > np.asarray(rejection.maximum_distance, np.float32)[best]
    if novelty is not None:
        unknown |= novelty > rejection.maximum_novelty
    return Classification(
        class_index=np.where(unknown, classes, best).astype(np.int16),
        confidence=confidence,
        probabilities=probabilities,
        novelty=novelty,
    )
