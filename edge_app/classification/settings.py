"""Which network classifies, and what runs it."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["ClassificationSettings"]


class ClassificationSettings(BaseModel):
    """The network and the interpreter that runs it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bundle: Path | None = Field(None, description="Folder of a model bundle; empty: the one that is shipped")
    backend: str = Field("auto", description="auto, edgetpu, onnx, litert or tflite_runtime")
    threads: int = Field(1, ge=1, le=64, description="Threads of one call of the interpreter")
    trusted_keys: tuple[Path, ...] = Field(
        (), description="Ed25519 public key files (PEM): only bundles signed with one of them are taken; empty: any"
    )
