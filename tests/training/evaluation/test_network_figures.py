"""What is read off the networks themselves: importance, multiplications, speed."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers

from converters.joined_pooling import join_before_pooling
from edge_app.classification.bundle import Bundle
from training.evaluation.float_network import float_network
from training.evaluation.importance import importance_maps, share_on_particle
from training.evaluation.photographs import SimulatedSource
from training.evaluation.speed import count_macs, speed_figures


def test_importance_lies_where_a_network_looks(source: SimulatedSource) -> None:
    crops = source.photographs().crops.take(np.arange(6))
    pixels = np.full_like(crops.pixels, 160)
    pixels[:, 8, 30], pixels[:, 25, 12] = 40, 40
    crops = replace(crops, pixels=pixels)
    crop, context = keras.Input((40, 40, 1), name="crop"), keras.Input((crops.context.shape[1],), name="context")
    features = layers.Conv2D(2, 1, use_bias=True)(crop)
    logits = layers.Dense(2, name="logits")(layers.Flatten()(features))
    model = keras.Model({"crop": crop, "context": context}, {"logits": logits})
    model.layers[-1].set_weights([np.zeros((3200, 2)), np.zeros(2)])
    conv = next(x for x in model.layers if isinstance(x, layers.Conv2D))
    conv.set_weights([np.full((1, 1, 1, 2), -1.0), np.full(2, 5.0)])
    kernel = np.zeros((40, 40, 2, 2))
    kernel[8, 30, :, 1], kernel[25, 12, :, 0] = 1.0, 1.0
    model.get_layer("logits").set_weights([kernel.reshape(3200, 2), np.zeros(2)])
    target = np.array([0, 1, 0, 1, 0, 1])
    maps = importance_maps(model, crops, target, batch=4)
    assert maps is not None
    places = [np.unravel_index(int(m.argmax()), m.shape) for m in maps]
    assert [tuple(map(int, p)) for p in places] == [(25, 12), (8, 30)] * 3
    # What the network has everywhere (a bias of 5) speaks for nothing.
    assert np.count_nonzero(maps) == 6


def test_a_network_without_feature_maps_has_no_importance(source: SimulatedSource) -> None:
    crops = source.photographs().crops.take(np.arange(2))
    crop, context = keras.Input((40, 40, 1), name="crop"), keras.Input((crops.context.shape[1],), name="context")
    model = keras.Model({"crop": crop, "context": context}, {"logits": layers.Dense(3)(layers.Flatten()(crop))})
    assert importance_maps(model, crops, np.zeros(2, int)) is None


def test_share_on_the_particle_of_known_maps() -> None:
    pixels = np.full((2, 40, 40, 1), 160, np.uint8)
    pixels[:, 10:20, 10:20] = 60
    maps = np.zeros((2, 40, 40), np.float32)
    maps[0, 12:14, 12:14] = 1.0
    maps[1] = 1.0
    share = share_on_particle(maps, pixels)
    assert share.crops == 2
    assert share.area == pytest.approx(100 / 1600, rel=0.05)
    assert share.on_particle == pytest.approx((1 + share.area) / 2, rel=0.01)


def test_multiplications_are_those_of_the_keras_network(bundle: Bundle) -> None:
    model = float_network(bundle)
    assert model is not None
    model = join_before_pooling(model)
    wanted = 0
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            _, high, wide, channels = layer.output.shape
            wanted += high * wide * channels * int(np.prod(layer.kernel.shape[:3]))
        elif isinstance(layer, layers.Dense):
            wanted += int(np.prod(layer.kernel.shape))
    found = count_macs(bundle.model)
    assert found.total <= wanted
    # A head that the device computes itself is not in the integer network.
    assert found.total >= wanted - 64 * 16


def test_speed_is_measured_for_every_batch_and_thread(source: SimulatedSource, bundle: Bundle) -> None:
    figures = speed_figures(bundle, source.photographs().crops.crops, calls=2)
    assert [(t["threads"], t["batch"]) for t in figures["timings"]] == [(1, 1), (1, 32), (2, 1), (2, 32)]
    assert all(1 < t["us_per_crop"] < 1e6 for t in figures["timings"])
    assert figures["macs"] == sum(figures["macs_by_operator"].values())
