"""A network with everything that is needed to use it rightly, in one folder whose hashes are checked."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edge_app.capture.frame import RATIO_ONE
from edge_app.classification.bundle_signature import check_bundle_signature
from edge_app.classification.context import DEFAULT_CONTEXT
from edge_app.classification.crops import CropGeometry
from edge_app.classification.head import Head
from edge_app.classification.rejection import Rejection
from edge_app.errors import UserError

__all__ = ["SHIPPED", "UNKNOWN", "Bundle", "BundleDescription", "Quantisation", "sha256_of"]

SHIPPED: Final = Path(__file__).parent / "bundles" / "default"
UNKNOWN: Final = "unknown"
SCHEMA: Final = "mfi.bundle/1"


class Quantisation(BaseModel):
    """real = scale * (q - zero_point), q int8."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scale: float = Field(gt=0)
    zero_point: int = Field(ge=-128, le=127)


class BundleInput(BaseModel):
    """What the network takes: ``crop`` int8 (n, W, W, 1) and ``context`` int8 (n, K)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    window_px: int = Field(ge=16, le=256)
    margin_px: int = Field(ge=0, le=8)
    um_per_px: float = Field(gt=0)
    ratio_one: Literal[160] = RATIO_ONE
    code_scale: float = Field(default=64.0, gt=0, description="the network's real input is (code - 160) / code_scale")
    context: tuple[str, ...] = Field(default=DEFAULT_CONTEXT, description="columns of the second input")


class BundleDescription(BaseModel):
    """``bundle.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_name: Literal["mfi.bundle/1"] = Field(alias="schema")
    name: str
    version: str
    classes: tuple[str, ...] = Field(min_length=2)
    input: BundleInput
    quantisation: dict[str, Quantisation] = Field(description="of crop, context, logits and embedding")
    temperature: float = Field(gt=0)
    log_prior: tuple[float, ...] = Field(
        description="added to the scaled logits: from the class mix taught to the mix assumed, per class"
    )
    assumed_mix: tuple[float, ...] | None = Field(
        default=None, description="class shares behind the probabilities; None: equal"
    )
    rejection: Rejection
    confusion_matrix: tuple[tuple[float, ...], ...] = Field(
        description="rows true class, columns classes then unknown; shares of the row"
    )
    metrics: dict[str, Any]
    files: dict[str, str] = Field(description="file name -> SHA-256")
    versions: dict[str, str]
    training: dict[str, Any]

    @model_validator(mode="after")
    def _consistent(self) -> "BundleDescription":
        n = len(self.classes)
        if len(set(self.classes)) != n or UNKNOWN in self.classes:
            raise ValueError(f"classes must differ and none may be '{UNKNOWN}', found {', '.join(self.classes)}")
        if len(self.log_prior) != n:
            raise ValueError(f"log_prior has {len(self.log_prior)} numbers for {n} classes")
        for name, values in (
            ("assumed_mix", self.assumed_mix),
            ("class_offset", self.rejection.class_offset),
            ("class_offset_unplaced", self.rejection.class_offset_unplaced),
        ):
            if values is not None and len(values) != n:
                raise ValueError(f"{name} has {len(values)} numbers for {n} classes")
        if "model.tflite" not in self.files:
            raise ValueError("files does not name model.tflite")
        missing = {"crop", "context", "logits"} - set(self.quantisation)
        if missing:
            raise ValueError(f"quantisation lacks {', '.join(sorted(missing))}")
        return self


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass(frozen=True)
class Bundle:
    """A loaded and verified bundle.

    ``model`` is the TFLite flat buffer, ``prototypes`` float32 (C, E) the mean embedding of each class or None,
    ``head`` the last layer where the bundle holds it apart from the model, ``size_head`` the one that reads true size
    and depth from the embedding (see `edge_app.classification.learned_size`), ``novelty_head`` the one that reads the
    logit of being none of the classes, or None. ``signed_by`` is the fingerprint
    of the trusted key that signed it; None where none was asked for.
    """

    directory: Path
    description: BundleDescription
    model: bytes
    prototypes: npt.NDArray[np.float32] | None
    head: Head | None = None
    size_head: Head | None = None
    novelty_head: Head | None = None
    signed_by: str | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """The network's classes, without ``unknown``."""
        return self.description.classes

    @property
    def assumed_mix(self) -> tuple[float, ...]:
        """Class shares behind the probabilities."""
        n = len(self.classes)
        return self.description.assumed_mix or (1 / n,) * n

    @property
    def geometry(self) -> CropGeometry:
        """How crops are cut for this network."""
        i = self.description.input
        return CropGeometry(window_px=i.window_px, margin_px=i.margin_px, um_per_px=i.um_per_px, context=i.context)

    @property
    def model_sha256(self) -> str:
        """SHA-256 of the network file: the model's identity in records and messages."""
        return self.description.files["model.tflite"]

    @property
    def size_reader_sha256(self) -> str:
        """SHA-256 of what decides a size that the network reads: its file and its size head; empty without one."""
        if self.size_head is None:
            return ""
        parts = (self.size_head.kernel, self.size_head.bias)
        head = b"".join(np.ascontiguousarray(part, "<f4").tobytes() for part in parts)
        return hashlib.sha256(self.model_sha256.encode() + head).hexdigest()

    @property
    def identity(self) -> str:
        """Short readable step for the pipeline identity."""
        d = self.description
        rule = f"p={d.rejection.minimum_probability:g}:n={d.rejection.maximum_novelty:g}:t={d.temperature:g}"
        if d.rejection.class_offset is not None:
            rule += ":o=" + ",".join(f"{v:g}" for v in d.rejection.class_offset)
        if d.rejection.class_offset_unplaced is not None:
            rule += ":u=" + ",".join(f"{v:g}" for v in d.rejection.class_offset_unplaced)
        if "reference.npz" in d.files:
            # The last layers are in it, and they decide classes and sizes as much as the network does.
            rule += f":h={d.files['reference.npz'][:12]}"
        return f"classify:{d.name}@{d.version}:{rule}:m={self.model_sha256[:12]}"

    @staticmethod
    def load(directory: Path | str | None = None, *, trusted_keys: Sequence[Path] = ()) -> "Bundle":
        """Read and verify a bundle folder.

        Parameters
        ----------
        directory
            The folder; None: the bundle shipped with the package.
        trusted_keys
            Public key files of which one must have signed the bundle; none: a signature is not looked at.

        Raises
        ------
        UserError
            A file is missing, unreadable, or not the one whose SHA-256 ``bundle.json`` holds, or the bundle is not
            signed with a trusted key.
        """
        folder = SHIPPED if directory is None else Path(directory)
        card = folder / "bundle.json"
        try:
            text = card.read_bytes()
        except OSError as error:
            raise UserError(f"{card}: not a model bundle, cannot be read ({error.strerror})") from None
        signed_by = check_bundle_signature(folder, text, trusted_keys=trusted_keys) if trusted_keys else None
        try:
            description = BundleDescription.model_validate(json.loads(text))
        except (ValueError, ValidationError) as error:
            raise UserError(f"{card}: not a valid bundle description: {_first_problem(error)}") from None
        for name, wanted in description.files.items():
            path = folder / name
            if Path(name).name != name:
                raise UserError(f"{card}: file name {name!r} leads out of the bundle")
            try:
                found = sha256_of(path)
            except OSError as error:
                raise UserError(f"{path}: named in bundle.json but cannot be read ({error.strerror})") from None
            if found != wanted:
                raise UserError(
                    f"{path}: SHA-256 {found[:12]}... differs from {wanted[:12]}... in bundle.json; refused"
                )
        prototypes = head = size_head = novelty_head = None
        if "reference.npz" in description.files:
            with np.load(folder / "reference.npz") as reference:
                if "prototypes" in reference:
                    prototypes = reference["prototypes"].astype(np.float32)
                if "head_kernel" in reference:
                    head = Head(kernel=reference["head_kernel"], bias=reference["head_bias"])
                if "size_kernel" in reference:
                    size_head = Head(kernel=reference["size_kernel"], bias=reference["size_bias"])
                if "novelty_kernel" in reference:
                    novelty_head = Head(kernel=reference["novelty_kernel"], bias=reference["novelty_bias"])
        return Bundle(
            directory=folder,
            description=description,
            model=(folder / "model.tflite").read_bytes(),
            prototypes=prototypes,
            head=head,
            size_head=size_head,
            novelty_head=novelty_head,
            signed_by=signed_by,
        )


def _first_problem(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(p) for p in first['loc']) or 'bundle'}: {first['msg']}"
    return str(error).splitlines()[0]
