"""Heads fitted to the rounded embedding: the shift that rounding brings is gone, nothing else changes."""

from dataclasses import replace

import numpy as np
import pytest

from converters import IntegerModel, convert_to_int8, run_int8
from edge_app.classification.bundle import Bundle
from edge_app.classification.head import Head
from training.datasets.labelled import LabelledCrops
from training.fitting.start import network_from_bundle
from training.integer_heads import FITTED_FROM, Answers, fit_heads, shift_of_size
from training.learning import CODE_SCALE, predict


def droplets(n: int, seed: int) -> LabelledCrops:
    """Blurred dark discs of 3 to 14 px, place in the field known."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:40, :40] - 19.5
    radius, edge = rng.uniform(3, 14, n), rng.uniform(0.7, 2.0, n)
    level = 160 - rng.uniform(20, 110, n)[:, None, None] / (
        1 + np.exp((np.hypot(x, y)[None] - radius[:, None, None]) / edge[:, None, None])
    )
    pixels = np.rint(level + 1.5 * rng.standard_normal(level.shape)).astype(np.uint8)[..., None]
    context = np.zeros((n, 4), np.float32)
    context[:, 1:] = np.column_stack([rng.uniform(0, 0.7, n), rng.uniform(0, 0.5, n), np.ones(n)])
    nothing = np.full(n, np.nan, np.float32)
    return LabelledCrops(
        pixels=pixels, context=context, label=np.zeros(n, np.int64), group=np.arange(n), box_px=nothing,
        ecd_um=nothing, field_radius=nothing, depth_um=nothing, um_per_px=np.full(n, 1.33, np.float32),
    )  # fmt: skip


@pytest.fixture(scope="module")
def model() -> object:
    bundle = Bundle.load()
    return network_from_bundle(bundle, bundle.classes)


@pytest.fixture(scope="module")
def integer(model: object) -> IntegerModel:
    plain = convert_to_int8(model, droplets(200, seed=1).crops, code_scale=CODE_SCALE)
    # A size head whose rounding shifts every size, as one of 64 numbers that are each rounded the same way does.
    head = plain.size_head
    assert head is not None
    return replace(plain, size_head=Head(kernel=head.kernel, bias=head.bias - np.float32([0.05, 0, 0, 0])))


def test_sizes_are_read_as_the_float_network_reads_them(model: object, integer: IntegerModel) -> None:
    fitted = fit_heads(integer, Answers.of(integer, model, droplets(600, seed=2)))
    others = droplets(300, seed=3)
    before, after = (shift_of_size(one, Answers.of(one, model, others)) for one in (integer, fitted))
    assert before is not None
    assert after is not None
    assert before < -0.03
    assert abs(after) < 0.01
    _, embedding = run_int8(integer, others.crops)
    wanted = predict(model, others)["size"][:, 0]

    def scatter(one: IntegerModel) -> float:
        assert one.size_head is not None
        return float(np.std(embedding @ one.size_head.kernel[:, 0] + one.size_head.bias[0] - wanted))

    assert scatter(fitted) <= scatter(integer)


def test_nothing_else_changes(model: object, integer: IntegerModel) -> None:
    fitted = fit_heads(integer, Answers.of(integer, model, droplets(450, seed=2)))
    assert fitted.content == integer.content
    assert fitted.head is integer.head
    assert fitted.novelty_head is not None
    assert fitted.novelty_head.kernel.shape == (64, 1)


def test_few_crops_leave_the_heads_alone(model: object, integer: IntegerModel) -> None:
    assert fit_heads(integer, Answers.of(integer, model, droplets(FITTED_FROM - 1, seed=2))) is integer
    without = replace(integer, size_head=None, novelty_head=None)
    assert fit_heads(without, Answers.of(without, model, droplets(FITTED_FROM, seed=2))) is without
    assert shift_of_size(without, Answers.of(without, model, droplets(5, seed=2))) is None
