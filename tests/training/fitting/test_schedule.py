"""Learning rates against Keras' own cosine, and when stages join."""

import keras
import numpy as np
import pytest

from training.fitting.schedule import FINE_TUNING, Schedule, StageRate, learning_rates


@pytest.mark.parametrize(("epochs", "samples", "warm_up"), [(5, 640, 7), (3, 128, 500), (1, 64, 0), (20, 256, 50)])
def test_rates_are_those_of_keras(epochs: int, samples: int, warm_up: int) -> None:
    schedule = Schedule(epochs=epochs, samples_per_epoch=samples, batch=64, learning_rate=3e-3, warm_up_steps=warm_up)
    steps = schedule.steps_per_epoch
    rising = min(warm_up, steps)
    oracle = keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=max(1, epochs * steps - rising),
        warmup_target=3e-3,
        warmup_steps=rising,
        alpha=0.01,
    )
    found = np.concatenate([learning_rates(schedule, epoch) for epoch in range(epochs)])
    if rising:
        expected = np.array([float(oracle(k)) for k in range(epochs * steps)])
    else:
        plain = keras.optimizers.schedules.CosineDecay(3e-3, decay_steps=epochs * steps, alpha=0.01)
        expected = np.array([float(plain(k)) for k in range(epochs * steps)])
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-9)


def test_stages_join_in_order_and_the_heads_from_the_first_epoch() -> None:
    first = [stage.first_epoch(20) for stage in FINE_TUNING]
    assert first[0] == 0
    assert first == sorted(first)
    assert [stage.rate for stage in FINE_TUNING] == sorted((s.rate for s in FINE_TUNING), reverse=True)
    assert StageRate(after=0.5).first_epoch(1) == 1  # in one epoch only the heads learn
