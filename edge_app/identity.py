"""What exactly was done to the frames: a short readable string per step, and one hash over all of them."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel

__all__ = ["PipelineIdentity", "step_string"]


def step_string(name: str, settings: BaseModel) -> str:
    """Write a step and every option that decides its result, derived from the settings themselves.

    Parameters
    ----------
    name
        Name of the step.
    settings
        Its options; the order is that of the model's fields, so it never depends on a file's order.

    Examples
    --------
    >>> from pydantic import BaseModel
    >>> class Threshold(BaseModel):
    ...     fraction: float = 0.04
    ...     closing_px: int = 2
    >>> step_string("threshold", Threshold())
    'threshold:fraction=0.04^closing_px=2'
    """

    def text(value: object) -> str:
        if isinstance(value, BaseModel):
            return "(" + "^".join(f"{k}={text(getattr(value, k))}" for k in type(value).model_fields) + ")"
        if isinstance(value, float):
            return f"{value:g}"
        if isinstance(value, (tuple, list)):
            return "+".join(text(v) for v in value)
        return str(value)

    return f"{name}:" + "^".join(f"{key}={text(getattr(settings, key))}" for key in type(settings).model_fields)


@dataclass(frozen=True, kw_only=True)
class PipelineIdentity:
    """Everything that decides a result besides the frames.

    Attributes
    ----------
    steps
        One string per step, in the order of the data.
    model_sha256
        Hash of the network file.
    calibration_id, calibration_sha256
        The calibration's id, and the hash of its curve and geometry.
    """

    steps: tuple[str, ...]
    model_sha256: str
    calibration_id: str
    calibration_sha256: str

    @property
    def pipeline_id(self) -> str:
        """SHA-256 over steps, model and calibration, in hex."""
        parts = [*self.steps, f"model={self.model_sha256}", f"calibration={self.calibration_sha256}"]
        return hashlib.sha256("|".join(parts).encode()).hexdigest()

    def as_record(self) -> Mapping[str, object]:
        """Plain form for the run record and the messages."""
        return {
            "pipeline_id": self.pipeline_id,
            "steps": list(self.steps),
            "model_sha256": self.model_sha256,
            "calibration_id": self.calibration_id,
            "calibration_sha256": self.calibration_sha256,
        }
