"""From a taught network to integers: after training, under their rounding where that loses too much, heads refitted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from converters import IntegerModel, convert_to_int8, run_int8
from training.datasets.labelled import LabelledCrops
from training.evaluation.scores import macro_f1
from training.integer_heads import Answers, fit_heads, shift_of_size
from training.learning import CODE_SCALE, predict
from training.quantisation_aware import LOSS_THAT_ASKS_FOR_IT, fine_tune

__all__ = ["to_integers"]

#: Crops that set the ranges of the integers.
REPRESENTATIVE: Final = 400
#: With fewer crops a loss of 0.3 points cannot be told from chance.
JUDGED_FROM: Final = 300
#: Crops to learn from under rounding; more change nothing in the few hundred steps that it takes.
LEARNED_FROM: Final = 20_000
#: Of those, crops that the heads are fitted to.
HEADS_FROM: Final = 6_000


def to_integers(
    model: Any,
    calibration: LabelledCrops,
    *,
    learned_from: LabelledCrops | None = None,
    seed: int = 0,
    report: Callable[[str], None] = lambda line: None,
) -> tuple[IntegerModel, dict[str, Any]]:
    """Convert to full integers; goes on teaching under their rounding where macro-F1 falls by more than 0.3 points.

    The heads of size and novelty are then fitted to the rounded embedding (`training.integer_heads`).

    Parameters
    ----------
    model : keras.Model
        Taught. Changed in place where fine-tuning is kept.
    calibration : LabelledCrops
        Never learned from: ranges of the integers, and what is lost to them.
    learned_from : LabelledCrops, optional
        What the network was taught with. None: nothing is fine-tuned.
    seed : int
    report : callable
        Takes a line.

    Returns
    -------
    integer : IntegerModel
    record : dict
        ``int8_loss`` after training alone; where fine-tuned also ``steps``, ``int8_loss_fine_tuned`` and ``kept``;
        with a size head ``size_shift`` and ``size_shift_fitted``, the median shift of a size by rounding on
        ``calibration``.
    """
    integer, record = _converted(model, calibration, learned_from, seed, report)
    heads_from = calibration
    if learned_from is not None:
        rng = np.random.default_rng([seed, 1])
        some = np.sort(rng.permutation(len(learned_from))[:HEADS_FROM])
        heads_from = LabelledCrops.concatenate([calibration, learned_from.take(some)])
    answers = Answers.of(integer, model, heads_from)
    fitted = fit_heads(integer, answers)
    never_learned = answers.first(len(calibration))
    for name, one in (("size_shift", integer), ("size_shift_fitted", fitted)):
        if (shift := shift_of_size(one, never_learned)) is not None:
            record[name] = round(shift, 4)
    return fitted, record


def _converted(
    model: Any,
    calibration: LabelledCrops,
    learned_from: LabelledCrops | None,
    seed: int,
    report: Callable[[str], None],
) -> tuple[IntegerModel, dict[str, Any]]:
    rng = np.random.default_rng(seed)
    some = calibration.take(rng.permutation(len(calibration))[:REPRESENTATIVE]).crops
    integer = convert_to_int8(model, some, code_scale=CODE_SCALE)
    n = int(calibration.label.max()) + 1
    wanted = macro_f1(calibration.label, predict(model, calibration)["logits"].argmax(axis=1), n)
    lost = wanted - _macro_f1(integer, calibration, n)
    record: dict[str, Any] = {"int8_loss": round(lost, 4)}
    if learned_from is None or len(calibration) < JUDGED_FROM or lost <= LOSS_THAT_ASKS_FOR_IT:
        return integer, record
    known = learned_from.take(np.flatnonzero(learned_from.label >= 0))
    if len(np.unique(known.group)) < 2:
        return integer, record
    if len(known) > LEARNED_FROM:
        known = known.take(np.sort(rng.permutation(len(known))[:LEARNED_FROM]))
    report(f"int8 loses {100 * lost:.2f} points of macro-F1: fine-tuning under its rounding")
    before = model.get_weights()
    tuned = fine_tune(model, known, representative=some, seed=seed, report=report)
    better = convert_to_int8(model, some, code_scale=CODE_SCALE)
    still_lost = wanted - _macro_f1(better, calibration, n)
    kept = still_lost < lost
    if not kept:
        model.set_weights(before)
    record |= {"steps": tuned.steps, "int8_loss_fine_tuned": round(still_lost, 4), "kept": kept}
    return better if kept else integer, record


def _macro_f1(integer: IntegerModel, crops: LabelledCrops, n: int) -> float:
    return macro_f1(crops.label, run_int8(integer, crops.crops)[0].argmax(axis=1), n)
