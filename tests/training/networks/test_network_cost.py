"""Counts by hand, from the published tables, from the library's own networks, and from the converted network."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from converters.joined_pooling import join_before_pooling
from converters.tflite import convert_to_int8
from edge_app.classification import Crops
from training.evaluation.speed import count_macs
from training.learning import CODE_SCALE
from training.networks import build_network, cost_of
from training.networks.efficientnet_lite import SCALINGS, lite_trunk
from training.networks.mobilenet_v2 import PUBLISHED, inverted_residuals


def _extractor(trunk: Any, *, side: int = 224) -> keras.Model:
    picture = keras.Input((side, side, 3))
    return keras.Model(picture, trunk(picture))


def _classifier(extractor: keras.Model) -> keras.Model:
    x = layers.GlobalAveragePooling2D()(extractor.output)
    return keras.Model(extractor.input, layers.Dense(1000)(x))


def test_each_kind_of_layer_by_hand() -> None:
    picture = keras.Input((10, 12, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(picture)  # 5 x 6 x 8 values of 27 products
    x = layers.DepthwiseConv2D(5, padding="same", use_bias=False)(x)  # 5 x 6 x 8 of 25
    x = layers.BatchNormalization()(x)  # 16 that learn, 16 that are counted
    x = layers.Conv2D(4, 1, groups=2)(x)  # 5 x 6 x 4 of 4
    x = layers.Dense(7)(layers.GlobalAveragePooling2D()(x))  # 7 of 4
    cost = cost_of(keras.Model(picture, x))
    assert cost.macs == 240 * 27 + 240 * 25 + 120 * 4 + 28
    assert cost.trainable == 27 * 8 + 25 * 8 + 16 + (16 + 4) + (28 + 7)
    assert cost.parameters == cost.trainable + 16


def test_a_network_within_a_network_is_counted() -> None:
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(5)])
    x = keras.Input((4,))
    assert cost_of(keras.Model(x, layers.Dense(2)(inner(x)))).macs == 4 * 5 + 5 * 2


@pytest.mark.parametrize(
    ("member", "million_macs", "parameters", "side"),
    [(0, 407, 4_652_008, 224), (1, 631, 5_416_680, 240), (2, 899, 6_092_072, 260)],
)
def test_efficientnet_lite_has_the_published_size(member: int, million_macs: int, parameters: int, side: int) -> None:
    """4.7, 5.4 and 6.1 million parameters, 407, 631 and 899 million multiply-accumulates."""
    s = SCALINGS[member]
    model = _classifier(_extractor(lambda x: lite_trunk(x, width=s.width, depth=s.depth), side=side))
    cost = cost_of(model)
    assert cost.trainable == parameters
    # The table counts 5x5 and stem with the padding of its time; a few per cent.
    assert cost.macs / 1e6 == pytest.approx(million_macs, rel=0.06)


@pytest.mark.parametrize("alpha", [0.35, 1.0])
def test_mobilenet_v2_is_the_librarys(alpha: float) -> None:
    ours = _extractor(lambda x: inverted_residuals(x, stem=32, stem_stride=2, stages=PUBLISHED, alpha=alpha, head=1280))
    theirs = keras.applications.MobileNetV2(input_shape=(224, 224, 3), alpha=alpha, include_top=False, weights=None)
    assert cost_of(ours) == cost_of(theirs)


@pytest.mark.parametrize(
    ("name", "million_macs", "stem", "top", "library"),
    [
        ("mobilenet_v1", 569, 32, 1024 * 1000, keras.applications.MobileNet),
        ("mobilenet_v2", 300, 32, 1280 * 1000, keras.applications.MobileNetV2),
    ],
)
def test_published_multiply_accumulates_at_224_px(
    name: str, million_macs: int, stem: int, top: int, library: Any
) -> None:
    theirs = library(input_shape=(224, 224, 3), include_top=False, weights=None)
    assert (cost_of(theirs).macs + top) / 1e6 == pytest.approx(million_macs, rel=0.03)
    options = {"head": 1280} if name == "mobilenet_v2" else {}
    ours = build_network(name, classes=7, window_px=224, alpha=1.0, **options)
    # One colour instead of three changes the stem; the head has an embedding, classes, size and novelty.
    two_colours = 2 * 112 * 112 * stem * 9
    head = (theirs.output.shape[-1] + 4) * 64 + 64 * (7 + 4 + 1)
    assert cost_of(ours).macs == cost_of(theirs).macs - two_colours + head


def test_mobilenet_v3_has_the_published_parameters() -> None:
    """2.0 million. The 65 million operations of its table are those of an early count; see the test below."""
    picture = keras.Input((224, 224, 3), name="crop")
    library = keras.applications.MobileNetV3Small(
        input_tensor=picture, minimalistic=True, include_top=False, weights=None, include_preprocessing=False
    )
    top = (576 * 1024 + 1024) + (1024 * 1000 + 1000)
    assert (library.count_params() + top) / 1e6 == pytest.approx(2.04, abs=0.03)
    ours = build_network("mobilenet_v3_small", classes=7, window_px=224, alpha=1.0)
    head = (576 + 4 + 1) * 64 + (64 + 1) * (7 + 4 + 1)
    assert ours.count_params() == library.count_params() - 2 * 9 * 16 + head


@pytest.mark.parametrize("name", ["fused_residual", "mobilenet_v2", "mobilenet_v3_small", "multi_modal"])
def test_the_converted_network_multiplies_as_often(name: str) -> None:
    model = build_network(name, classes=7, window_px=40, sized=False)
    rng = np.random.default_rng(0)
    crops = Crops(
        pixels=rng.integers(0, 256, (4, 40, 40, 1)).astype(np.uint8),
        context=rng.random((4, model.input["context"].shape[1])).astype(np.float32),
        um_per_px=np.ones(4, np.float32),
    )
    # The converter writes pooling and the dense layer behind it as one convolution over the map.
    joined = cost_of(join_before_pooling(model)).macs
    assert count_macs(convert_to_int8(model, crops, code_scale=CODE_SCALE).content).total == joined
    assert cost_of(model).macs < joined < 1.06 * cost_of(model).macs
