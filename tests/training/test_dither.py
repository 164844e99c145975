import keras
import numpy as np
import pytest

from training.dither import dithered_network
from training.networks import build_network


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(2)
    return build_network("fused_residual", classes=4, window_px=16, alpha=0.5, head=16, dropout=0.0)


@pytest.fixture(scope="module")
def inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "crop": rng.normal(0, 0.5, (64, 16, 16, 1)).astype(np.float32),
        "context": np.zeros((64, 4), np.float32),
    }


def test_none_is_the_network_itself(model: keras.Model) -> None:
    assert dithered_network(model, steps=0) is model


def test_it_acts_while_teaching_only_and_shares_the_weights(model: keras.Model, inputs: dict[str, np.ndarray]) -> None:
    dithered = dithered_network(model, steps=2)
    assert {id(v) for v in dithered.trainable_variables} == {id(v) for v in model.trainable_variables}
    wanted = np.asarray(model(inputs, training=False)["embedding"])
    assert np.array_equal(wanted, np.asarray(dithered(inputs, training=False)["embedding"]))


def test_the_error_is_spread_evenly_over_one_step_and_differs_from_particle_to_particle() -> None:
    x = keras.Input((8, 8, 4))
    flat = keras.Model(x, keras.layers.ReLU(6.0)(x))
    values = np.full((500, 8, 8, 4), 1.2345, np.float32)
    step = 2 * 6 / 255
    error = (np.asarray(dithered_network(flat, steps=2)(values, training=True)) - values) / step
    assert abs(error).max() <= 0.5 + 1e-3
    # One origin for a particle, another for the next.
    assert np.ptp(error, axis=(1, 2, 3)).max() < 1e-3
    per_particle = error[:, 0, 0, 0]
    assert abs(per_particle.mean()) < 4 * np.sqrt(1 / 12 / 500)
    assert np.std(per_particle) == pytest.approx(np.sqrt(1 / 12), rel=0.1)


def test_gradients_pass_as_if_nothing_were_rounded() -> None:
    import tensorflow as tf

    x = keras.Input((4,))
    flat = keras.Model(x, keras.layers.ReLU(6.0)(x))
    at = tf.constant(np.linspace(0.1, 5.9, 32, dtype=np.float32).reshape(8, 4))
    with tf.GradientTape() as tape:
        tape.watch(at)
        out = tf.reduce_sum(dithered_network(flat, steps=4)(at, training=True))
    np.testing.assert_array_equal(tape.gradient(out, at), np.ones((8, 4), np.float32))
