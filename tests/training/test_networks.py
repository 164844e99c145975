import numpy as np
import pytest

from converters.tflite import convert_to_int8, run_int8
from edge_app.classification import Crops
from edge_app.errors import UserError
from training.learning import CODE_SCALE, network_inputs
from training.networks import NETWORKS, build_network


def _crops(count: int) -> Crops:
    rng = np.random.default_rng(1)
    return Crops(
        pixels=rng.integers(0, 256, (count, 32, 32, 1)).astype(np.uint8),
        context=rng.random((count, 4)).astype(np.float32),
        um_per_px=np.full(count, 1.33, np.float32),
    )


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_network_has_the_same_inputs_and_outputs(name: str) -> None:
    model = build_network(name, classes=5, window_px=32)
    crops = _crops(3)
    out = model.predict(network_inputs(crops), verbose=0)
    assert out["logits"].shape == (3, 5)
    assert out["embedding"].shape == (3, 64)
    assert out["size"].shape == (3, 4)
    assert (out["embedding"] >= 0).all()
    assert (out["embedding"] <= 6).all()


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_network_becomes_full_integer(name: str) -> None:
    model = build_network(name, classes=5, window_px=32)
    crops = _crops(20)
    integer = convert_to_int8(model, crops, code_scale=CODE_SCALE)
    logits, embedding = run_int8(integer, crops)
    wanted = model.predict(network_inputs(crops), verbose=0)
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
