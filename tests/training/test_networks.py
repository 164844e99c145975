import numpy as np
import pytest

from converters.tflite import convert_to_int8, run_int8
from edge_app.classification import Crops
from edge_app.errors import UserError
from training.learning import CODE_SCALE, network_inputs
from training.networks import NETWORKS, build_network


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_network_has_the_same_inputs_and_outputs(name: str) -> None:
    model = build_network(name, classes=5, window_px=32)
    crops = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 1)).astype(np.uint8)
    out = model.predict(network_inputs(crops, np.zeros((3, 1), np.float32)), verbose=0)
    assert out["logits"].shape == (3, 5)
    assert out["embedding"].shape == (3, 64)
    assert (out["embedding"] >= 0).all()
    assert (out["embedding"] <= 6).all()


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_network_becomes_full_integer(name: str) -> None:
    model = build_network(name, classes=5, window_px=32)
    rng = np.random.default_rng(1)
    crops = Crops(pixels=rng.integers(0, 256, (20, 32, 32, 1)).astype(np.uint8), size=np.zeros((20, 1), np.float32))
    integer = convert_to_int8(model, crops, code_scale=CODE_SCALE)
    logits, embedding = run_int8(integer, crops)
    wanted = model.predict(network_inputs(crops.pixels, crops.size), verbose=0)
    assert abs(wanted["embedding"] - embedding).max() < 0.1 * max(1.0, wanted["embedding"].max())
    assert abs(wanted["logits"] - logits).max() < 0.1 * max(1.0, abs(wanted["logits"]).max())


def test_alpha_sets_the_width() -> None:
    small, large = (build_network("mobilenet_v2", classes=7, window_px=64, alpha=a) for a in (0.35, 1.0))
    assert small.count_params() < large.count_params() / 3


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match="fused_residual, mobilenet_v2_real_scale, mobilenet_v2"):
        build_network("resnet", classes=3, window_px=40)


def test_as_many_classes_as_embeddings_is_refused() -> None:
    with pytest.raises(ValueError, match="64 classes"):
        build_network("fused_residual", classes=64, window_px=32)
