import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from edge_app.classification import Bundle
from training.fitting.folded_head import folded_head, folding

KNOWN = ("silicone_oil", "air_bubble", "protein_aggregate")


@given(st.lists(st.sampled_from([*KNOWN, "rest", "junk"]), min_size=2, max_size=5, unique=True))
def test_every_class_of_the_bundle_goes_somewhere_or_nowhere(wanted: list[str]) -> None:
    table = folding(KNOWN, wanted)
    strange = set(wanted) - set(KNOWN)
    for c, name in enumerate(KNOWN):
        assert table[c].sum() == pytest.approx(1 if name in wanted or strange else 0)
        if name in wanted:
            assert table[c, wanted.index(name)] == 1


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 100))
def test_classes_in_another_order_say_the_same(seed: int) -> None:
    """With nothing to fold a linear layer can be exact."""
    rng = np.random.default_rng(seed)
    kernel, bias, x = rng.standard_normal((6, 3)), rng.standard_normal(3), rng.random((80, 6)) * 2
    wanted = ("protein_aggregate", "silicone_oil", "air_bubble")
    new_kernel, new_bias = folded_head(kernel, bias, x, known=KNOWN, wanted=wanted)
    expected = softmax(x @ kernel + bias, axis=1)[:, [2, 0, 1]]
    assert np.abs(softmax(x @ new_kernel + new_bias, axis=1) - expected).max() < 0.02


def test_the_shipped_network_folded_into_oil_and_the_rest_keeps_its_answers() -> None:
    bundle = Bundle.load()
    with np.load(bundle.directory / "reference.npz") as reference:
        x = reference["embeddings"].astype(np.float64)
        kernel, bias = (reference[k].astype(np.float64) for k in ("head_kernel", "head_bias"))
        label = reference["labels"]
    new_kernel, new_bias = folded_head(kernel, bias, x, known=bundle.classes, wanted=("not_oil", "silicone_oil"))
    folded = softmax(x @ new_kernel + new_bias, axis=1)[:, 1]
    oil = softmax(x @ kernel + bias, axis=1)[:, 0]
    assert np.corrcoef(np.log(oil / (1 - oil)), np.log(folded / (1 - folded)))[0, 1] > 0.95
    right = (folded > 0.5) == (label == 0)
    assert (right[label == 0].mean() + right[label != 0].mean()) / 2 > 0.85
