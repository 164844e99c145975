"""Any network of the registry is cut into stages that hold each weight once."""

import keras
import pytest

from training.fitting.stages import freeze_statistics, stages_of
from training.networks import build_network


@pytest.mark.parametrize("name", ["fused_residual", "mobilenet_v2_real_scale"])
def test_every_weight_is_in_one_stage_and_the_heads_come_first(name: str) -> None:
    model = build_network(name, classes=3, window_px=40)
    stages = stages_of(model)
    layers = [layer for stage in stages for layer in stage]
    assert len({id(layer) for layer in layers}) == len(layers)
    assert sum(len(layer.weights) for layer in layers) == len(model.weights)
    assert {layer.name for layer in stages[0]} >= {"features", "logits"}
    sides = [{layer.output.shape[1] for layer in stage} for stage in stages[1:]]
    assert sides == [{5}, {10}, {20}, {40}]


def test_layers_of_a_model_inside_the_model_count_too() -> None:
    inner_input = keras.Input((16, 16, 1))
    inner = keras.Model(inner_input, keras.layers.Conv2D(4, 3, strides=2, padding="same")(inner_input), name="inner")
    outer_input = keras.Input((16, 16, 1))
    x = keras.layers.BatchNormalization()(inner(outer_input))
    model = keras.Model(outer_input, keras.layers.Dense(2, name="logits")(keras.layers.Flatten()(x)))
    assert [[layer.__class__.__name__ for layer in stage] for stage in stages_of(model)] == [
        ["Dense"],
        ["Conv2D", "BatchNormalization"],
    ]
    freeze_statistics(model)
    assert len(model.trainable_variables) == 4  # kernels and biases of convolution and dense layer
