import keras
import numpy as np
import pytest
from keras import layers

from converters.tflite import convert_to_int8, run_int8
from edge_app.errors import UserError
from training import integers
from training.datasets.labelled import LabelledCrops
from training.integers import to_integers
from training.learning import CODE_SCALE, network_inputs
from training.quantisation_aware import fine_tune, rounded_network

WINDOW = 16
CLASSES = 3


def blobs(n: int, seed: int) -> LabelledCrops:
    """Discs, rings and bars with noise: the label is the shape."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:WINDOW, 0:WINDOW] - (WINDOW - 1) / 2
    label = rng.integers(0, CLASSES, n)
    pixels = np.empty((n, WINDOW, WINDOW, 1), np.uint8)
    for i, c in enumerate(label):
        size, angle = rng.uniform(3, 6), rng.uniform(0, np.pi)
        r, along = np.hypot(x, y) / size, np.abs(x * np.cos(angle) + y * np.sin(angle)) / size
        shape = (r < 1, np.abs(r - 0.8) < 0.25, (along < 0.3) & (r < 1.4))[c]
        level = 160 - rng.uniform(20, 60) * shape + 4 * rng.standard_normal(r.shape)
        pixels[i, :, :, 0] = np.clip(np.rint(level), 0, 255)
    nothing = np.full(n, np.nan, np.float32)
    return LabelledCrops(
        pixels=pixels,
        context=np.zeros((n, 1), np.float32),
        label=label,
        group=np.arange(n) // 4,
        box_px=np.full(n, 12, np.float32),
        ecd_um=nothing,
        field_radius=nothing,
        depth_um=nothing,
        um_per_px=np.full(n, 1.33, np.float32),
    )


@pytest.fixture(scope="module")
def crops() -> LabelledCrops:
    return blobs(400, seed=0)


def network() -> keras.Model:
    """Every kind of layer that this house's networks have, few channels; depthwise ones suffer most from rounding."""
    crop, context = keras.Input((WINDOW, WINDOW, 1), name="crop"), keras.Input((1,), name="context")

    def norm(x: object, *, relu: bool = True) -> object:
        x = layers.BatchNormalization(momentum=0.8)(x)
        return layers.ReLU(6.0)(x) if relu else x

    x = norm(layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(crop))
    y = norm(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x))
    x = layers.ReLU(6.0)(layers.Add()([x, norm(layers.Conv2D(8, 1, use_bias=False)(y), relu=False)]))
    x = norm(layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(x))
    x = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), context])
    embedding = layers.Dense(8, activation="relu", name="embedding")(layers.Dropout(0.1)(x))
    logits = layers.Dense(CLASSES, name="logits")(embedding)
    return keras.Model({"crop": crop, "context": context}, {"logits": logits, "embedding": embedding})


@pytest.fixture(scope="module")
def weights(crops: LabelledCrops) -> list[np.ndarray]:
    keras.utils.set_random_seed(3)
    model = network()
    inner = keras.Model(model.inputs, model.output["logits"])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    inner.compile(keras.optimizers.Adam(5e-3), loss, jit_compile=False)
    inner.fit(network_inputs(crops), crops.label, batch_size=40, epochs=12, verbose=0)
    return [np.array(w) for w in model.get_weights()]


@pytest.fixture
def model(weights: list[np.ndarray]) -> keras.Model:
    made = network()
    made.set_weights(weights)
    return made


def int8_logits(model: keras.Model, crops: LabelledCrops, test: LabelledCrops) -> np.ndarray:
    integer = convert_to_int8(model, crops.crops.take(slice(0, 200)), code_scale=CODE_SCALE)
    return run_int8(integer, test.crops)[1]


def test_the_rounded_network_is_nearer_to_int8_than_the_float_network(model: keras.Model, crops: LabelledCrops) -> None:
    test = blobs(200, seed=1)
    wanted = int8_logits(model, crops, test)
    rounded = rounded_network(model, crops.crops.take(slice(0, 200)))
    near = np.asarray(rounded(network_inputs(test), training=False)["embedding"])
    far = np.asarray(model(network_inputs(test), training=False)["embedding"])
    assert np.sqrt(((near - wanted) ** 2).mean()) < 0.85 * np.sqrt(((far - wanted) ** 2).mean())


def test_it_shares_the_weights_and_leaves_the_network_itself_as_it_is(model: keras.Model, crops: LabelledCrops) -> None:
    before = np.asarray(model(network_inputs(crops), training=False)["logits"])
    rounded = rounded_network(model, crops.crops.take(slice(0, 100)))
    assert {id(v) for v in model.trainable_variables} == {id(v) for v in rounded.trainable_variables}
    assert np.array_equal(before, np.asarray(model(network_inputs(crops), training=False)["logits"]))


def test_fine_tuning_brings_int8_nearer_to_the_float_network_it_was(model: keras.Model, crops: LabelledCrops) -> None:
    test = blobs(300, seed=2)
    wanted = np.asarray(model(network_inputs(test), training=False)["logits"])
    representative = crops.crops.take(slice(0, 200))
    head = convert_to_int8(model, representative, code_scale=CODE_SCALE)
    before = np.abs(softmax(run_int8(head, test.crops)[0]) - softmax(wanted)).mean()
    done = fine_tune(model, crops, representative=representative, steps=120, label_share=0, learning_rate=5e-4)
    # So small a network is at the edge of what can be gained, and threads add up in another order: kept if nearer.
    assert done.kept == (done.after < done.before)
    again = convert_to_int8(model, representative, code_scale=CODE_SCALE)
    after = np.abs(softmax(run_int8(again, test.crops)[0]) - softmax(wanted)).mean()
    assert after < before * (1.05 if done.kept else 1.001)


def test_what_does_not_help_is_undone(model: keras.Model, crops: LabelledCrops) -> None:
    start = [np.array(w) for w in model.get_weights()]
    done = fine_tune(model, crops, steps=10, learning_rate=1.0)
    assert not done.kept
    assert all(np.array_equal(a, b) for a, b in zip(start, model.get_weights(), strict=True))
    assert all(layer.trainable for layer in model.layers)


def test_the_same_seed_gives_the_same_weights(
    model: keras.Model, weights: list[np.ndarray], crops: LabelledCrops
) -> None:
    fine_tune(model, crops, steps=5, seed=4)
    first = model.get_weights()
    model.set_weights(weights)
    fine_tune(model, crops, steps=5, seed=4)
    assert all(np.array_equal(a, b) for a, b in zip(first, model.get_weights(), strict=True))


def test_one_group_is_too_few(model: keras.Model, crops: LabelledCrops) -> None:
    one = LabelledCrops(**{**vars(crops), "group": np.zeros(len(crops))})
    with pytest.raises(UserError, match="at least 2 groups"):
        fine_tune(model, one, steps=1)


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def test_integers_are_taught_under_rounding_only_where_they_lose_too_much(
    model: keras.Model, crops: LabelledCrops, monkeypatch: pytest.MonkeyPatch
) -> None:
    aside = blobs(320, seed=9)
    _, record = to_integers(model, aside)
    assert set(record) == {"int8_loss"}  # nothing to learn from
    before = [np.array(w) for w in model.get_weights()]
    # Any loss is too much now, a gain too: it has to try, and to keep only what is better.
    monkeypatch.setattr(integers, "LOSS_THAT_ASKS_FOR_IT", -1.0)
    lines: list[str] = []
    integer, record = to_integers(model, aside, learned_from=crops, report=lines.append)
    assert record["steps"] > 0
    assert "fine-tuning under its rounding" in lines[0]
    assert record["kept"] == (record["int8_loss_fine_tuned"] < record["int8_loss"])
    if not record["kept"]:
        assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    called = run_int8(integer, aside.crops)[0].argmax(axis=1)
    assert (called == aside.label).mean() > 0.6


def test_too_few_crops_cannot_say_that_integers_lose(crops: LabelledCrops, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integers, "LOSS_THAT_ASKS_FOR_IT", -1.0)
    _, record = to_integers(network(), blobs(60, seed=9), learned_from=crops)
    assert set(record) == {"int8_loss"}
