from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from converters.tflite import convert_to_int8, run_int8
from edge_app.classification import Crops
from edge_app.classification.bundle import SHIPPED, Bundle
from edge_app.errors import UserError
from training.learning import CODE_SCALE, network_inputs
from training.networks import NETWORKS, build_network, context_of, rebuild_network

#: Narrow or short members of the heavy families: the same code in a tenth of the time.
SMALL: dict[str, dict[str, Any]] = {
    "efficientnet_lite0": {"alpha": 0.25, "depth": 0.4},
    "efficientnet_lite1": {"alpha": 0.25, "depth": 0.4},
    "efficientnet_lite2": {"alpha": 0.25, "depth": 0.4},
    "vgg16": {"weights": None, "enlarge": 1},
    "resnet50": {"weights": None, "enlarge": 1},
}


#: More than ten seconds to convert.
HEAVY = {"efficientnet_lite1", "efficientnet_lite2", "resnet50", "vgg16"}


def _build(name: str, *, classes: int = 5) -> Any:
    keras.utils.set_random_seed(3)
    return build_network(name, classes=classes, window_px=32, **SMALL.get(name, {}))


def _crops(count: int, columns: int) -> Crops:
    rng = np.random.default_rng(1)
    return Crops(
        pixels=rng.integers(0, 256, (count, 32, 32, 1)).astype(np.uint8),
        context=rng.random((count, columns)).astype(np.float32),
        um_per_px=np.full(count, 1.33, np.float32),
    )


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in HEAVY else []) for n in sorted(NETWORKS)]
)
def test_every_network_keeps_the_contract_and_becomes_full_integer(name: str) -> None:
    model = _build(name)
    crops = _crops(20, len(context_of(name)))
    wanted = model.predict(network_inputs(crops), verbose=0)
    shapes = {"logits": (20, 5), "embedding": (20, 64), "size": (20, 4), "novelty": (20, 1)}
    assert {k: v.shape for k, v in wanted.items()} == shapes
    assert wanted["embedding"].min() >= 0
    assert wanted["embedding"].max() <= 6
    integer = convert_to_int8(model, crops, code_scale=CODE_SCALE)
    logits, embedding = run_int8(integer, crops)
    # Fifty layers of random weights carry rounding further than taught ones.
    allowed = 0.2 if name == "resnet50" else 0.1
    assert abs(wanted["embedding"] - embedding).max() < allowed * max(1.0, wanted["embedding"].max())
    assert abs(wanted["logits"] - logits).max() < allowed * max(1.0, abs(wanted["logits"]).max())


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_only_rectified_linear_units_and_what_integers_do_well(name: str) -> None:
    model = _build(name)
    kinds = {type(layer).__name__ for layer in model.layers}
    assert not kinds & {"Multiply", "Activation"} or name == "resnet50"  # its Activation layers are all relu
    for layer in model.layers:
        function = getattr(layer, "activation", None)
        assert function is None or function.__name__ in {"linear", "relu"}


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"vgg16", "resnet50"}))
def test_the_size_head_can_be_left_out(name: str) -> None:
    model = build_network(name, classes=3, window_px=32, sized=False, **SMALL.get(name, {}))
    assert set(model.output) == {"logits", "embedding"}


def test_the_weights_of_the_shipped_bundle_fit_the_default_network() -> None:
    """Its layers and their order are a format: bundles hold weights for them."""
    bundle = Bundle.load(SHIPPED)
    training = bundle.description.training
    model = rebuild_network(
        str(training["network"]),
        classes=len(bundle.classes),
        window_px=bundle.geometry.window_px,
        **training.get("network_options", {}),
    )
    model.load_weights(bundle.directory / "float.weights.h5")
    kernel, bias = model.get_layer("logits").get_weights()
    assert np.array_equal(kernel, bundle.head.kernel)
    assert np.array_equal(bias, bundle.head.bias)


@pytest.mark.parametrize(
    ("name", "window_px"), [("mobilenet_v1", 64), ("mobilenet_v2", 64), ("mobilenet_v3_small", 96)]
)
def test_alpha_sets_the_width(name: str, window_px: int) -> None:
    small, large = (build_network(name, classes=7, window_px=window_px, alpha=a) for a in (0.35, 1.0))
    assert small.count_params() < large.count_params() / 3


def test_an_enlarged_window_keeps_more_places() -> None:
    plain, twice = (build_network("mobilenet_v1", classes=7, window_px=40, enlarge=k) for k in (1, 2))
    assert plain.get_layer("conv_pw_13_relu").output.shape[1:3] == (1, 1)
    assert twice.get_layer("conv_pw_13_relu").output.shape[1:3] == (2, 2)
    assert plain.count_params() == twice.count_params()


def test_the_shape_network_sees_no_more_of_the_picture_than_its_mean() -> None:
    model = _build("usr_shape")
    given = network_inputs(_crops(6, len(context_of("usr_shape"))))
    shuffled = np.random.default_rng(0).permutation(given["crop"].reshape(6, -1), axis=1).reshape(given["crop"].shape)
    first, second = (model.predict({**given, "crop": c}, verbose=0)["logits"] for c in (given["crop"], shuffled))
    assert first == pytest.approx(second, abs=1e-4)


def test_the_numbers_beside_the_picture_reach_the_multi_modal_network() -> None:
    model = _build("multi_modal")
    given = network_inputs(_crops(6, len(context_of("multi_modal"))))
    usual = model.predict(given, verbose=0)["logits"]
    for column in range(given["context"].shape[1]):
        other = given["context"].copy()
        other[:, column] += 1
        assert abs(model.predict({**given, "context": other}, verbose=0)["logits"] - usual).max() > 1e-5


@pytest.mark.parametrize("name", ["vgg16", "resnet50"])
def test_weights_that_are_not_there_are_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"network {name}: weights .*no such file") as caught:
        build_network(name, classes=3, window_px=32, weights=str(tmp_path / "none.h5"))
    assert "\n" not in str(caught.value)
    (tmp_path / "other.weights.h5").write_bytes(b"no weights")
    with pytest.raises(UserError, match="do not fit it") as caught:
        build_network(name, classes=3, window_px=32, weights=str(tmp_path / "other.weights.h5"))
    assert "\n" not in str(caught.value)


def test_weights_that_can_not_be_fetched_are_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise Exception("URL fetch failure on https://example.org: None -- [Errno -2] Name or service not known")

    # A machine with a line would fetch 58 MB: the library's own call is cut off where it leaves the machine.
    monkeypatch.setattr("keras.src.applications.vgg16.file_utils.get_file", unreachable)
    with pytest.raises(UserError, match=r"neither in .* nor can they be fetched .*vgg16_weights") as caught:
        build_network("vgg16", classes=3, window_px=32)
    assert "\n" not in str(caught.value)


def test_pretrained_weights_are_taken_and_all_but_the_last_block_is_frozen(tmp_path: Path) -> None:
    file = tmp_path / "vgg16.weights.h5"
    source = keras.applications.VGG16(include_top=False, weights=None, input_shape=(64, 64, 3))
    source.save_weights(file)
    model = build_network("vgg16", classes=3, window_px=32, weights=str(file))
    for name in ("block1_conv1", "block5_conv3"):
        assert np.array_equal(model.get_layer(name).get_weights()[0], source.get_layer(name).get_weights()[0])
    learning = {w.path.split("/")[0] for w in model.trainable_variables}
    assert {n for n in learning if n.startswith("block")} == {f"block5_conv{k}" for k in (1, 2, 3)}
    assert {"features", "logits", "size"} <= learning
    again = rebuild_network("vgg16", classes=3, window_px=32, weights="imagenet")
    assert [w.shape for w in again.weights] == [w.shape for w in model.weights]


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match="fused_residual, mobilenet_v2_real_scale, mobilenet_v2"):
        build_network("resnet", classes=3, window_px=40)
    with pytest.raises(UserError, match="not known"):
        context_of("resnet")


def test_as_many_classes_as_embeddings_is_refused() -> None:
    with pytest.raises(ValueError, match="64 classes"):
        build_network("fused_residual", classes=64, window_px=32)
