"""Teaching a small network on spots that anyone can tell apart."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from edge_app.errors import UserError
from training.datasets.labelled import LabelledCrops
from training.fitting.machines import Machines
from training.fitting.schedule import Schedule, StageRate
from training.fitting.stages import freeze_statistics, stages_of
from training.learning import DivergedError, Keeping, Taught, Validation, predict, predict_all_ways, teach
from training.networks import build_network

SMALL = {"window_px": 16, "alpha": 0.25, "stem": 8, "head": 16, "stages": [(32, 1, 2), (32, 1, 2)]}
SCHEDULE = Schedule(
    epochs=3, samples_per_epoch=64, batch=16, learning_rate=3e-3, warm_up_steps=2, ema_momentum=0.8, size_weight=0.25
)
EVEN = np.array([0.5, 0.5])


def spots(n: int = 48, *, seed: int = 0, strangers: int = 0) -> LabelledCrops:
    """Dark spots (class 0), bright ones (class 1), stripes (none of the classes)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:16, 0:16] - 7.5
    label = np.concatenate([np.arange(n) % 2, np.full(strangers, -1)])
    sigma = rng.uniform(1.5, 3.0, n + strangers)
    spot = np.exp(-(x**2 + y**2) / (2 * sigma[:, None, None] ** 2))
    stripes = np.broadcast_to(np.cos(x), spot.shape)
    sign = np.array([-50.0, 50.0, 50.0])[label][:, None, None]
    pixels = 160 + sign * np.where(label[:, None, None] < 0, stripes, spot) + rng.normal(0, 2, spot.shape)
    return LabelledCrops(
        pixels=np.clip(pixels, 0, 255).astype(np.uint8)[..., None],
        context=np.zeros((n + strangers, 4), np.float32),
        label=label.astype(np.int64),
        group=np.arange(n + strangers) // 4,
        box_px=(4 * sigma).astype(np.float32),
        ecd_um=(3 * sigma).astype(np.float32),
        field_radius=np.full(n + strangers, np.nan, np.float32),
        depth_um=np.full(n + strangers, np.nan, np.float32),
        um_per_px=np.full(n + strangers, 1.33, np.float32),
    )


def network(seed: int = 5, **options: Any) -> Any:
    keras.utils.set_random_seed(seed)
    return build_network("fused_residual", classes=2, **{**SMALL, **options})


def lesson(model: Any, **options: Any) -> Taught:
    given: dict[str, Any] = {"prior": EVEN, "schedule": SCHEDULE, "seed": 4, **options}
    return teach(model, lambda epoch: spots(seed=epoch), **given)


def same_weights(first: Any, second: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first.get_weights(), second.get_weights(), strict=True))


class Stop(Exception):
    """Stands for a kill between two epochs."""


@pytest.mark.parametrize(
    ("stages", "dither_steps"), [((), 0.0), ((StageRate(), StageRate(after=0.4, rate=0.3)), 0.0), ((), 2.0)]
)
def test_a_training_that_goes_on_ends_as_one_that_was_never_stopped(
    tmp_path: Path, stages: tuple[StageRate, ...], dither_steps: float
) -> None:
    options: dict[str, Any] = {
        "schedule": replace(SCHEDULE, stages=stages, dither_steps=dither_steps),
        "validation": Validation(crops=spots(seed=99), keep_start=True),
    }
    unbroken = network()
    whole = lesson(unbroken, **options)

    def stop(epoch: int, loss: float) -> None:
        if epoch == 1:
            raise Stop

    keeping = Keeping(path=tmp_path / "state.npz", identity={"seed": 4})
    with pytest.raises(Stop):
        lesson(network(), **options, keeping=keeping, after_epoch=stop)
    resumed = network(seed=77)  # its own weights are not used
    rest = lesson(resumed, **options, keeping=keeping)
    assert rest.resumed_after == 2
    assert same_weights(unbroken, resumed)
    plain = [{k: v for k, v in row.items() if k != "seconds"} for row in whole.history]
    assert plain == [{k: v for k, v in row.items() if k != "seconds"} for row in rest.history]
    assert rest.kept_epoch == whole.kept_epoch
    with pytest.raises(UserError, match=r"another training .seed 4, not 5."):
        lesson(network(), **options, keeping=Keeping(path=tmp_path / "state.npz", identity={"seed": 5}))
    with pytest.raises(UserError, match="the state of another network"):
        lesson(network(head=24), **options, keeping=keeping)


def test_it_learns_and_keeps_the_best_epoch() -> None:
    model, other = network(), spots(seed=50)
    schedule = replace(SCHEDULE, samples_per_epoch=512, epochs=5, patience=2)
    taught = lesson(model, schedule=schedule, validation=Validation(crops=other))
    rows = {row["epoch"]: row for row in taught.history}
    best = min((row for k, row in rows.items() if k > 0), key=lambda row: row["validation_loss"])
    assert taught.kept_epoch == best["epoch"]
    assert best["validation_loss"] < 0.8 * rows[0]["validation_loss"]
    # The network holds the weights of that epoch; its loss is the least over temperatures.
    logits = predict(model, other)["logits"].astype(float)

    def loss(temperature: float) -> float:
        scaled = logits / temperature
        each = np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(scaled)), other.label]
        return float(np.mean([each[other.label == c].mean() for c in (0, 1)]))

    assert min(loss(t) for t in np.geomspace(0.3, 4.0, 60)) == pytest.approx(best["validation_loss"], rel=1e-4)


def test_the_start_is_kept_to_the_last_bit_where_teaching_does_harm() -> None:
    model = network()
    lesson(model, schedule=replace(SCHEDULE, epochs=6))
    before = [w.copy() for w in model.get_weights()]
    wrong = replace(spots(), label=1 - spots().label)
    taught = teach(
        model,
        lambda epoch: wrong,
        prior=EVEN,
        schedule=replace(SCHEDULE, patience=2, epochs=8),
        seed=1,
        validation=Validation(crops=spots(seed=60), keep_start=True),
    )
    assert taught.kept_start
    assert taught.stopped_early
    assert len(taught.history) == 1 + 2
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_frozen_stages_stay_and_later_ones_move_less() -> None:
    model = network()
    freeze_statistics(model)
    stages = stages_of(model)
    kernels = [[layer.get_weights()[0].copy() for layer in stage] for stage in stages]
    slow = replace(SCHEDULE, stages=(StageRate(), StageRate(rate=0.01)), weight_decay=0.0)
    lesson(model, schedule=slow)

    def moved(k: int) -> float:
        pairs = zip(kernels[k], stages[k], strict=True)
        return max(float(np.abs(layer.get_weights()[0] - old).max()) for old, layer in pairs)

    assert moved(0) > 20 * moved(1) > 0
    assert moved(2) == moved(3) == 0


def test_strangers_teach_the_novelty_head_and_not_the_classes() -> None:
    crops = spots(strangers=24)
    model = network()
    schedule = replace(SCHEDULE, samples_per_epoch=512, epochs=5, stranger_share=0.3)
    teach(model, lambda epoch: crops, prior=EVEN, schedule=schedule, seed=2)
    told = predict(model, spots(seed=9, strangers=24))
    novelty, label = told["novelty"][:, 0], spots(seed=9, strangers=24).label
    assert novelty[label < 0].min() > np.median(novelty[label >= 0])
    assert (told["logits"].argmax(axis=1) == label)[label >= 0].mean() > 0.9


def test_a_class_that_weighs_more_in_the_loss_is_called_more_often() -> None:
    rng = np.random.default_rng(3)
    noise = replace(spots(), pixels=rng.integers(140, 180, spots().pixels.shape).astype(np.uint8))
    called = []
    for weights in ([1.8, 0.2], [0.2, 1.8]):
        model = network()
        schedule = replace(SCHEDULE, epochs=4)
        teach(model, lambda epoch: noise, prior=EVEN, schedule=schedule, seed=2, class_weights=np.array(weights))
        called.append(float((predict(model, noise)["logits"].argmax(axis=1) == 0).mean()))
    assert called[0] > 0.8
    assert called[1] < 0.2


def test_a_loss_that_is_no_number_ends_it() -> None:
    with pytest.raises(DivergedError, match="not a number in epoch 1; try a lower learning rate"):
        lesson(network(), schedule=replace(SCHEDULE, learning_rate=1e30, optimizer="sgd"))


def test_half_precision_teaches_the_same_thing() -> None:
    machines = replace(Machines.here(), policy="mixed_bfloat16")
    with machines.network_scope():
        model = network()
    assert keras.config.dtype_policy().name == "float32"
    assert {layer.compute_dtype for layer in model.layers if layer.weights} == {"bfloat16"}
    other = spots(seed=50)
    taught = lesson(model, machines=machines, validation=Validation(crops=other))
    assert taught.history[-1]["validation_loss"] < taught.history[0]["validation_loss"]
    assert all(v.dtype == "float32" for v in model.trainable_variables)


def test_place_unknown_is_asked_in_all_eight_ways() -> None:
    model = network()
    crops = spots(4)
    crops = replace(crops, pixels=np.triu(crops.pixels[..., 0]).astype(np.uint8)[..., None])
    columns = ("log2_reduction", "field_x", "field_y", "field_known")
    together = predict_all_ways(model, crops, columns=columns)
    turned = replace(crops, pixels=np.ascontiguousarray(np.rot90(crops.pixels, 1, axes=(1, 2))))
    np.testing.assert_allclose(together, predict_all_ways(model, turned, columns=columns), atol=1e-5)
    assert not np.allclose(together, predict(model, crops)["logits"], atol=1e-5)
    known = replace(crops, context=np.tile(np.array([0, 0, 0, 1], np.float32), (4, 1)))
    np.testing.assert_allclose(predict_all_ways(model, known, columns=columns), predict(model, known)["logits"])
