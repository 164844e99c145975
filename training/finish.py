"""From a taught network to a bundle: temperature, rejection, int8, figures, model card."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converters import IntegerModel, convert_to_int8, run_int8, write_bundle
from edge_app.classification.bundle import Bundle
from edge_app.classification.crops import CropGeometry
from edge_app.classification.rejection import Classification, Rejection, decide, probabilities_of
from training.datasets.labelled import LabelledCrops
from training.evaluation.calibration import find_temperature
from training.evaluation.crop_figures import evaluate_crops
from training.evaluation.rejection import choose_rejection, nearest_prototypes
from training.evaluation.scores import confusion_shares, macro_f1
from training.learning import CODE_SCALE, predict
from training.model_card import model_card

__all__ = ["finish_bundle"]

F4 = npt.NDArray[np.float32]

REPRESENTATIVE = 400
REFERENCE_PER_CLASS = 60


def _classified(
    integer: IntegerModel, crops: LabelledCrops, *, temperature: float, log_prior: F4, rejection: Rejection
) -> Classification:
    logits, _ = run_int8(integer, crops.crops)
    return decide(probabilities_of(logits, temperature=temperature, log_prior=log_prior), rejection=rejection)


def finish_bundle(
    model: Any,
    out: Path,
    *,
    network: str,
    network_options: Mapping[str, Any],
    name: str,
    version: str,
    geometry: CropGeometry,
    calibration: LabelledCrops,
    tests: Mapping[str, LabelledCrops],
    classes: Sequence[str],
    training: Mapping[str, Any],
    log_prior: npt.NDArray[np.float64] | None = None,
) -> Bundle:
    """Calibrate, quantise, measure and write.

    Parameters
    ----------
    model : keras.Model
        Taught.
    out : Path
        Bundle folder.
    network, network_options : str, mapping
        Its name in `training.networks` and its options, so that it can be built again for fine-tuning.
    name, version : str
    geometry : CropGeometry
    calibration : LabelledCrops
        Crops never trained on: temperature, prototypes, representative data.
    tests : mapping of str to LabelledCrops
        Crops never used before, by name; figures go into the bundle. One called ``unknown`` has label -1: half of it
        chooses the rejection, half measures it.
    classes : sequence of str
    training : mapping
        How it was taught, for the record.
    log_prior : ndarray (C,), optional
        Shift of the logits to another class mix than the one taught.

    Returns
    -------
    Bundle
    """
    n = len(classes)
    shift = np.zeros(n) if log_prior is None else log_prior
    shift4 = shift.astype(np.float32)
    rng = np.random.default_rng(0)
    representative = calibration.take(rng.permutation(len(calibration))[:REPRESENTATIVE])
    integer = convert_to_int8(model, representative.crops, code_scale=CODE_SCALE)

    logits, embedding = run_int8(integer, calibration.crops)
    temperature = find_temperature(logits, calibration.label)
    rejection = Rejection()
    rejection_figures: dict[str, float] = {}
    unknown = tests.get("unknown")
    if unknown is not None:
        groups = np.unique(unknown.group)
        first = np.isin(unknown.group, groups[::2])
        stray, _ = run_int8(integer, unknown.take(first).crops)
        rejection, rejection_figures = choose_rejection(
            probabilities_of(logits, temperature=temperature, log_prior=shift4),
            calibration.label,
            probabilities_of(stray, temperature=temperature, log_prior=shift4),
        )
        tests = {**tests, "unknown": unknown.take(~first)}
    metrics: dict[str, Any] = {}
    confusion = np.zeros((n, n + 1))
    for test, crops in tests.items():
        result = _classified(integer, crops, temperature=temperature, log_prior=shift4, rejection=rejection)
        if test == "unknown":
            called = np.bincount(result.class_index, minlength=n + 1) / max(1, len(crops))
            metrics[test] = {
                "particles": len(crops),
                "called": {c: round(float(v), 4) for c, v in zip((*classes, "unknown"), called, strict=True)},
                **rejection_figures,
            }
            continue
        metrics[test] = evaluate_crops(result, crops, classes)
        float_logits = predict(model, crops)["logits"]
        called_float = probabilities_of(float_logits, temperature=temperature, log_prior=shift4).argmax(axis=1)
        called_int8 = result.probabilities.argmax(axis=1)
        metrics[test]["float_macro_f1"] = round(macro_f1(crops.label, called_float, n), 4)
        metrics[test]["int8_loss"] = round(
            macro_f1(crops.label, called_float, n) - macro_f1(crops.label, called_int8, n), 4
        )
        metrics[test]["int8_same_class"] = round(float((called_float == called_int8).mean()), 4)
        if not confusion.any():
            confusion = confusion_shares(crops.label, result.class_index.astype(int), n)
    reference = np.concatenate(
        [rng.permutation(np.flatnonzero(calibration.label == c))[:REFERENCE_PER_CLASS] for c in range(n)]
    )
    record = {
        "network": network,
        "network_options": dict(network_options),
        "finished": date.today().isoformat(),
        **training,
    }
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "float.weights.h5"
        model.save_weights(weights)
        return write_bundle(
            out,
            name=name,
            bundle_version=version,
            classes=classes,
            geometry=geometry,
            code_scale=CODE_SCALE,
            model=integer,
            float_weights=weights,
            temperature=temperature,
            log_prior=shift,
            rejection=rejection,
            confusion=confusion,
            metrics=metrics,
            training=record,
            prototypes=nearest_prototypes(embedding, calibration.label, n),
            reference_embeddings=embedding[reference],
            reference_labels=calibration.label[reference],
            card=model_card(
                name=name,
                version=version,
                classes=classes,
                metrics=metrics,
                training=record,
                geometry=geometry,
                rejection=rejection,
                temperature=temperature,
            ),
        )
