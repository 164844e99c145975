"""A converted network and its figures into a bundle folder."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.tflite import IntegerModel
from edge_app.capture.frame import RATIO_ONE
from edge_app.classification.bundle import SCHEMA, Bundle
from edge_app.classification.crops import CropGeometry
from edge_app.classification.drift import DriftReference
from edge_app.classification.rejection import Rejection
from edge_app.errors import UserError

__all__ = ["check_target", "write_bundle"]


def _versions() -> dict[str, str]:
    found = {}
    for package in (
        "edge-app",
        "tensorflow",
        "tensorflow-cpu",
        "keras",
        "ai-edge-litert",
        "numpy",
        "opencv-python-headless",
    ):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def check_target(directory: Path) -> None:
    """Refuse a target that holds anything but a bundle, before the work is done.

    Raises
    ------
    UserError
    """
    if not directory.exists():
        return
    if not directory.is_dir():
        raise UserError(f"{directory}: is a file, needed is a folder for the bundle")
    if not (directory / "bundle.json").exists() and any(directory.iterdir()):
        raise UserError(f"{directory}: is not empty and not a bundle; choose another folder")


def write_bundle(
    directory: Path,
    *,
    name: str,
    bundle_version: str,
    classes: Sequence[str],
    geometry: CropGeometry,
    code_scale: float,
    model: IntegerModel,
    float_weights: Path | None,
    temperature: float,
    log_prior: npt.NDArray[np.float64],
    assumed_mix: Sequence[float],
    rejection: Rejection,
    confusion: npt.NDArray[np.float64],
    metrics: Mapping[str, Any],
    training: Mapping[str, Any],
    prototypes: npt.NDArray[np.float32],
    reference_embeddings: npt.NDArray[np.float32],
    reference_labels: npt.NDArray[np.int64],
    card: str,
    drift: DriftReference | None = None,
) -> Bundle:
    """Write a bundle in one step: either the whole new folder is there afterwards or the old one still is.

    Parameters
    ----------
    directory : Path
        Where; an existing bundle is replaced, any other folder that is not empty is refused.
    float_weights : Path, optional
        Keras weights to fine-tune from, copied in as ``float.weights.h5``.
    card : str
        Text of ``MODEL_CARD.md``.
    name, bundle_version, classes, geometry, code_scale, model, temperature, log_prior, assumed_mix, rejection,
    confusion
        Go to ``bundle.json``, as do ``metrics`` and ``training``.
    prototypes, reference_embeddings, reference_labels
        Go to ``reference.npz``, beside the model's last layer: what embeddings of each class look like, for rejection.
    drift : DriftReference, optional
        Goes there too, in place of the sample of embeddings, as it holds one of its own
        (`edge_app.classification.drift.drift_reference`).

    Returns
    -------
    Bundle
        Read back and verified.

    Raises
    ------
    UserError
        The folder holds something else, or cannot be written.
    """
    check_target(directory)
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    except OSError as error:
        raise UserError(f"{directory}: cannot be written ({error.strerror})") from None
    try:
        work.chmod(0o755)
        (work / "model.tflite").write_bytes(model.content)
        (work / "MODEL_CARD.md").write_text(card, encoding="utf-8")
        last_layers: dict[str, Any] = {"head_kernel": model.head.kernel, "head_bias": model.head.bias}
        if model.size_head is not None:
            last_layers |= {"size_kernel": model.size_head.kernel, "size_bias": model.size_head.bias}
        if model.novelty_head is not None:
            last_layers |= {"novelty_kernel": model.novelty_head.kernel, "novelty_bias": model.novelty_head.bias}
        drift_arrays: dict[str, Any] = {} if drift is None else drift.arrays()
        np.savez_compressed(
            work / "reference.npz",
            prototypes=prototypes.astype(np.float32),
            embeddings=reference_embeddings.astype(np.float16),
            labels=reference_labels.astype(np.int16),
            **drift_arrays,
            **last_layers,
        )
        if float_weights is not None:
            shutil.copyfile(float_weights, work / "float.weights.h5")
        description = {
            "schema": SCHEMA,
            "name": name,
            "version": bundle_version,
            "classes": list(classes),
            "input": {
                "window_px": geometry.window_px,
                "margin_px": geometry.margin_px,
                "um_per_px": geometry.um_per_px,
                "ratio_one": RATIO_ONE,
                "code_scale": code_scale,
                "context": list(geometry.context),
            },
            "quantisation": {k: q.model_dump() for k, q in sorted(model.quantisation.items())},
            "temperature": round(temperature, 4),
            "log_prior": [round(float(v), 4) for v in log_prior],
            "assumed_mix": [round(float(v), 6) for v in assumed_mix],
            "rejection": rejection.model_dump(),
            "confusion_matrix": np.round(confusion, 4).tolist(),
            "metrics": dict(metrics),
            "files": {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(work.iterdir())},
            "versions": _versions(),
            "training": dict(training),
        }
        (work / "bundle.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
        Bundle.load(work)
        if directory.exists():
            shutil.rmtree(directory)
        work.rename(directory)
    except OSError as error:
        raise UserError(f"{directory}: cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Bundle.load(directory)
