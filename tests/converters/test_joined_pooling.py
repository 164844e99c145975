import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from converters.joined_pooling import join_before_pooling, layers_joined
from converters.tflite import convert_to_int8, run_int8
from edge_app.classification import Crops
from training.learning import CODE_SCALE, network_inputs
from training.networks import build_network, context_of

WINDOW = 40


def crops_of(n: int, columns: int) -> Crops:
    rng = np.random.default_rng(3)
    y, x = np.mgrid[0:WINDOW, 0:WINDOW] - (WINDOW - 1) / 2
    r = np.hypot(x, y) / rng.uniform(2, 14, (n, 1, 1))
    ratio = 1 - rng.uniform(0.1, 0.9, (n, 1, 1)) * np.exp(-(((r - rng.uniform(0, 1, (n, 1, 1))) / 0.35) ** 2))
    return Crops(
        pixels=np.clip(np.rint(160 * ratio), 0, 255).astype(np.uint8)[..., None],
        context=rng.uniform(0, 1, (n, columns)).astype(np.float32),
        um_per_px=np.full(n, 1.33, np.float32),
    )


def taught_like(name: str, **options: object) -> keras.Model:
    """Random weights, biases and running means: a fresh network has zeros where a mistake would hide."""
    keras.utils.set_random_seed(5)
    model = build_network(name, classes=7, window_px=WINDOW, **options)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if layer.name in ("features", "logits"):
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel, rng.normal(0, 0.3, bias.shape)])
    return model


@pytest.mark.parametrize(
    ("name", "options"),
    [("fused_residual", {}), ("multi_modal", {}), ("mobilenet_v1", {"alpha": 0.25, "enlarge": 2})],
)
def test_it_computes_the_same_without_pooling(name: str, options: dict[str, object]) -> None:
    model = taught_like(name, **options)
    inputs = network_inputs(crops_of(16, len(context_of(name))))
    wanted = model(inputs, training=False)
    joined = join_before_pooling(model)
    found = joined(inputs, training=False)
    for output in ("embedding", "logits"):
        np.testing.assert_allclose(found[output], wanted[output], rtol=1e-4, atol=1e-4)
    assert not any(isinstance(layer, keras.layers.GlobalAveragePooling2D) for layer in joined.layers)
    assert layers_joined(model)[1] == {"features"}


def test_a_map_as_large_as_the_picture_stays_pooled() -> None:
    model = taught_like("usr_shape")
    assert layers_joined(model) == (frozenset(), frozenset())
    inputs = network_inputs(crops_of(8, len(context_of("usr_shape"))))
    for name, value in join_before_pooling(model)(inputs, training=False).items():
        np.testing.assert_array_equal(value, model(inputs, training=False)[name])


def test_the_integers_pool_nothing_and_ask_for_no_shape() -> None:
    model = taught_like("fused_residual")
    integer = convert_to_int8(model, crops_of(64, 4), code_scale=CODE_SCALE)
    operators = {op["op_name"] for op in Interpreter(model_content=integer.content)._get_ops_details()}
    # A reshape to a shape that is known only at run time would bring SHAPE, STRIDED_SLICE and PACK.
    assert operators == {"CONV_2D", "ADD", "FULLY_CONNECTED", "RESHAPE", "CONCATENATION"}


def test_the_integers_are_nearer_to_the_float_network_and_interpreters_to_each_other() -> None:
    model, crops = taught_like("fused_residual"), crops_of(128, 4)
    wanted = np.asarray(model(network_inputs(crops), training=False)["embedding"])
    lost, apart = [], []
    for join in (True, False):
        integer = convert_to_int8(model, crops, code_scale=CODE_SCALE, join=join)
        found, built_in = (run_int8(integer, crops, built_in=kernels)[1] for kernels in (False, True))
        lost.append(np.abs(found - wanted).mean())
        apart.append(np.abs(found - built_in).mean())
    assert lost[0] < 0.7 * lost[1]
    assert apart[0] < 0.7 * apart[1]
