"""From a taught network to a bundle: temperature, rejection, int8, figures, model card."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converters import IntegerModel, run_int8, write_bundle
from edge_app.classification.bundle import Bundle
from edge_app.classification.crops import CropGeometry
from edge_app.classification.drift import drift_reference
from edge_app.classification.rejection import (
    Classification,
    Rejection,
    decide,
    probabilities_of,
    probability_of_logit,
)
from training.datasets.labelled import LabelledCrops
from training.evaluation.calibration import find_temperature
from training.evaluation.crop_figures import evaluate_crops
from training.evaluation.rejection import choose_rejection, composition_errors, nearest_prototypes
from training.evaluation.scores import confusion_shares, macro_f1
from training.integers import to_integers
from training.learning import CODE_SCALE, predict
from training.model_card import model_card

__all__ = ["finish_bundle"]

F4 = npt.NDArray[np.float32]

REFERENCE_PER_CLASS = 60
#: Smaller particles (true ECD, um) are hardly ever counted, and most look alike: they do not set the temperature.
SMALLEST_UM = 4.0
#: True ECD from which particles are reported, um: the rejection is chosen and judged by the composition of these.
REPORTED_UM = 5.0
#: Share of particles outside the classes in the mixes by which the rejection is judged.
UNKNOWN_SHARE = 0.10


def _novelty(integer: IntegerModel, embedding: F4) -> F4 | None:
    head = integer.novelty_head
    return None if head is None else probability_of_logit((embedding @ head.kernel + head.bias)[:, 0])


def _classified(
    integer: IntegerModel, crops: LabelledCrops, *, temperature: float, log_prior: F4, rejection: Rejection
) -> Classification:
    logits, embedding = run_int8(integer, crops.crops)
    probabilities = probabilities_of(logits, temperature=temperature, log_prior=log_prior)
    return decide(probabilities, rejection=rejection, novelty=_novelty(integer, embedding))


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
    taught_mix: Sequence[float] | None = None,
    class_offset: Sequence[float] | None = None,
    class_offset_unplaced: Sequence[float] | None = None,
    strangers: LabelledCrops | None = None,
    worse: LabelledCrops | None = None,
    learned_from: LabelledCrops | None = None,
    report: Callable[[str], None] = lambda line: None,
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
        Crops never used before, by name; figures go into the bundle. One called ``unknown`` has label -1
        and comes last.
    classes : sequence of str
    training : mapping
        How it was taught, for the record.
    taught_mix : sequence of float, optional
        Class shares of the crops it was taught; default equal. The bundle's probabilities are for equal shares.
    class_offset : sequence of float, optional
        Added to the log probability of each class before the best is chosen; the probabilities stay.
    class_offset_unplaced : sequence of float, optional
        Instead of it for crops whose place in the field is not known. The rejection is chosen, and the tests are
        called, without it.
    strangers : LabelledCrops, optional
        Crops of families outside the classes, not among the tests: they choose the rejection. None: nothing is
        rejected.
    worse : LabelledCrops, optional
        Crops never trained on either, under conditions beyond those taught. The temperature is chosen on them and
        ``calibration`` together: on an instrument that nobody has taught it, a network is wrong more often than it
        thinks.
    learned_from : LabelledCrops, optional
        Crops that it was taught with, to teach it further under the rounding of int8 where that loses too much
        (`training.integers`).
    report : callable
        Takes a line.

    Returns
    -------
    Bundle
    """
    n = len(classes)
    # The network learned the mix it was taught; the probabilities that leave it are for equal shares.
    shift = np.zeros(n) if taught_mix is None else -np.log(n * np.asarray(taught_mix, np.float64))
    shift4 = shift.astype(np.float32)
    rng = np.random.default_rng(0)
    integer, rounding = to_integers(model, calibration, learned_from=learned_from, report=report)

    logits, embedding = run_int8(integer, calibration.crops)
    said, truth = [logits], [calibration]
    if worse is not None:
        said.append(run_int8(integer, worse.crops)[0])
        truth.append(worse)
    counted = ~(np.concatenate([c.ecd_um for c in truth]) < SMALLEST_UM)
    temperature = find_temperature(
        np.concatenate(said)[counted], np.concatenate([c.label for c in truth])[counted], log_prior=shift4
    )
    offset = None if class_offset is None else tuple(float(v) for v in class_offset)
    rejection = Rejection(class_offset=offset)
    rejection_figures: dict[str, float] = {}
    if strangers is not None:
        strangers = strangers.take(np.flatnonzero(~(strangers.ecd_um < REPORTED_UM)))
        judged = ~(calibration.ecd_um < REPORTED_UM)
        stray, stray_embedding = run_int8(integer, strangers.crops)
        rejection, rejection_figures = choose_rejection(
            probabilities_of(logits[judged], temperature=temperature, log_prior=shift4),
            calibration.label[judged],
            probabilities_of(stray, temperature=temperature, log_prior=shift4),
            known_novelty=_novelty(integer, embedding[judged]),
            unknown_novelty=_novelty(integer, stray_embedding),
            class_offset=offset,
        )
    if class_offset_unplaced is not None:
        rejection = rejection.model_copy(
            update={"class_offset_unplaced": tuple(float(v) for v in class_offset_unplaced)}
        )
    metrics: dict[str, Any] = {}
    confusion = np.zeros((n, n + 1))
    known: tuple[npt.NDArray[np.int64], Classification] | None = None
    for test, crops in tests.items():
        result = _classified(integer, crops, temperature=temperature, log_prior=shift4, rejection=rejection)
        if test == "unknown":
            called = np.bincount(result.class_index, minlength=n + 1) / max(1, len(crops))
            metrics[test] = {
                "particles": len(crops),
                "called": {c: round(float(v), 4) for c, v in zip((*classes, "unknown"), called, strict=True)},
                "rejection_chosen_at": rejection_figures,
            }
            if known is not None:
                label, of_classes = known
                foreign = result.take(~(crops.ecd_um < REPORTED_UM))
                without, with_rule = composition_errors(
                    label,
                    [
                        (of_classes.probabilities.argmax(axis=1), foreign.probabilities.argmax(axis=1)),
                        (of_classes.class_index.astype(np.int64), foreign.class_index.astype(np.int64)),
                    ],
                    classes=n,
                    unknown_shares=[UNKNOWN_SHARE],
                )[:, 0].tolist()
                metrics[test] |= {
                    "composition_error_without": round(without, 4),
                    "composition_error_with": round(with_rule, 4),
                }
            continue
        if known is None:
            reported = ~(crops.ecd_um < REPORTED_UM)
            known = crops.label[reported], result.take(reported)
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
    as_called = _classified(integer, calibration, temperature=temperature, log_prior=shift4, rejection=rejection)
    drift = drift_reference(
        embedding,
        as_called.class_index,
        as_called.confidence,
        calibration.box_px,
        classes=classes,
        # Pictures that the simulator took share their particle; those of a lab share their run, and are particles each.
        particle=calibration.group if np.isfinite(calibration.ecd_um).any() else None,
    )
    record = {
        "network": network,
        "network_options": dict(network_options),
        "finished": date.today().isoformat(),
        "rounding": rounding,
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
            assumed_mix=[1 / n] * n,
            rejection=rejection,
            confusion=confusion,
            metrics=metrics,
            training=record,
            prototypes=nearest_prototypes(embedding, calibration.label, n),
            reference_embeddings=embedding[reference],
            reference_labels=calibration.label[reference],
            drift=drift,
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
