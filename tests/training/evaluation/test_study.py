import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edge_app.classification.backends import open_backend
from edge_app.classification.bundle import Bundle
from edge_app.classification.classifier import Classifier
from edge_app.errors import UserError
from training.datasets.views import ViewStore
from training.evaluation.comparison import compare, mcnemar
from training.evaluation.page import comparison_page, evaluation_page
from training.evaluation.photographs import SimulatedSource
from training.evaluation.problem import REST, Answers, Problem
from training.evaluation.repeatability import repeatability_figures
from training.evaluation.study import Study, StudyOptions, study
from training.evaluation.true_size import true_size_figures
from training.model_card import evaluation_card
from training.optics import KNOWN

OPTIONS = StudyOptions(resamples=50, mixes=5, repeats=2, timed_calls=2)


@pytest.fixture(scope="module")
def optics(store: ViewStore) -> list[Any]:
    """A stand-in for rendered sweeps: the same views, and the same again."""
    return [("defocus", "um", "note", 0.0, {0.0: store, 30.0: store})]


@pytest.fixture(scope="module")
def found(store: ViewStore, unknown_store: ViewStore, bundle: Bundle, optics: list[Any]) -> Study:
    source = SimulatedSource(store, labels=KNOWN, geometry=bundle.geometry, name="tiny library", optics=optics)
    unknown = SimulatedSource(unknown_store, labels=KNOWN, geometry=bundle.geometry, name="unknown").photographs()
    return study(bundle, source, unknown=unknown, options=OPTIONS)


def test_figures_agree_with_the_classifier_itself(found: Study, source: SimulatedSource, bundle: Bundle) -> None:
    f, taken = found.figures, source.photographs()
    result = Classifier(bundle, open_backend(bundle).backend).classify(taken.crops.crops)
    table = np.array(f["scores"]["confusion"])
    assert table.sum() == f["data"]["pictures"] == len(taken)
    assert np.trace(table) / table.sum() == pytest.approx((result.class_index == taken.crops.label).mean())
    assert f["scores"]["unknown_share"] == pytest.approx((result.class_index == 7).mean(), abs=1e-4)
    assert f["data"]["groups"] == len(np.unique(taken.crops.group))
    assert f["calibration"]["right_share"] == pytest.approx(
        (result.probabilities.argmax(axis=1) == taken.crops.label).mean(), abs=1e-4
    )
    bins = [row["pictures"] for row in f["scores"]["by_size_um"].values()]
    assert sum(bins) == f["scores"]["from_5_um"]["pictures"]
    worst = f["robustness"]["worst_at_severity_2"]
    losses = [
        p["loss"]["value"] for c in f["robustness"]["corruptions"] for p in c["points"] if abs(p["severity"]) == 2
    ]
    assert worst["loss"]["value"] == max(losses)
    same = next(c for c in f["robustness"]["conditions"] if c["name"] == "defocus")
    assert [p["loss"]["value"] for p in same["points"]] == [0, 0]
    assert f["background_only"]["chance"] == pytest.approx(1 / 7, abs=1e-4)
    assert f["int8"]["same_class"] > 0.9
    assert f["rejection"]["curves"][0]["unknown_rejected"] == 0


def test_the_same_data_give_the_same_figures(found: Study, source: SimulatedSource, bundle: Bundle) -> None:
    again = study(bundle, source, options=replace(OPTIONS, sweeps=False)).figures
    for name in ("scores", "calibration", "prevalence", "background_only", "repeatability", "int8", "importance"):
        assert again[name] == found.figures[name]


def test_the_page_needs_nothing_else_and_the_figures_are_plain_json(found: Study) -> None:
    assert json.loads(json.dumps(found.figures, allow_nan=False)) == found.figures
    page = evaluation_page(found).decode()
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)|url\(|@import|<script""", page)
    assert all(f'id="{name}"' in page for name in re.findall(r'href="#([a-z]+)"', page))
    assert page.count("data:image/png") >= 2 * 10
    assert not re.search(r"\b(nan|None)\b", re.sub(r"data:image[^\"]*", "", page))
    assert f"{found.figures['scores']['macro_f1']['value']:.3f}" in page
    assert evaluation_page(found) == evaluation_page(found)


def test_the_model_card_is_written_from_the_figures(found: Study, bundle: Bundle) -> None:
    card = evaluation_card(bundle, found.figures)
    macro = found.figures["scores"]["macro_f1"]
    assert f"Macro-F1 {macro['value']:.3f} ({macro['low']:.3f} to {macro['high']:.3f})" in card
    assert card.count("| silicone_oil |") == 1
    assert bundle.model_sha256[:16] in card


def test_labels_that_are_no_class_are_the_rest_with_every_other_call(bundle: Bundle) -> None:
    problem = Problem(bundle, ("not_oil", "silicone_oil"))
    assert problem.classes == ("silicone_oil", REST)
    p = np.eye(7, dtype=np.float32)[:3]
    np.testing.assert_allclose(problem.folded(p), [[1, 0], [0, 1], [0, 1]])
    assert problem.called(np.array([0, 3, 7])).tolist() == [0, 1, 1]
    assert problem.assumed_prior.sum() == pytest.approx(1)
    np.testing.assert_allclose(problem.confusion.sum(axis=1), 1)
    assert not problem.confusion[:, 2].any()
    whole = Problem(bundle, ("bead", "silicone_oil"))
    assert whole.classes == bundle.classes
    assert whole.called(np.array([7])).tolist() == [7]
    some = Problem(bundle, ("bead", "silicone_oil"), known=("silicone_oil", "bead"))
    assert some.called(np.array([0, 1, bundle.classes.index("bead"), 7])).tolist() == [0, 2, 1, 2]
    with pytest.raises(UserError, match="none of protist, junk is a class"):
        Problem(bundle, ("protist", "junk"))


def test_changed_calls_are_counted_against_the_most_frequent(source: SimulatedSource, bundle: Bundle) -> None:
    problem, taken = Problem(bundle, KNOWN), source.photographs().take(np.arange(4))
    calls = iter([[0, 0, 1, 2], [0, 0, 1, 3], [0, 1, 1, 4]])
    classifier = Classifier(bundle, open_backend(bundle).backend)
    own = problem.answers(taken, classifier.classify(taken.crops.crops))

    def ask(_: Any) -> Answers:
        return replace(own, called=np.array(next(calls)))

    size = np.full(int(taken.row.max()) + 1, np.nan)
    size[taken.row] = [6, 6, 10, 10]
    figures = repeatability_figures([taken] * 3, ask, ecd_um=size, bins=((5, 8), (8, 15)))
    assert figures["changed_share"] == pytest.approx((0 + 1 + 0 + 2) / 12)
    assert figures["particles_with_a_change"] == pytest.approx(2 / 4)
    assert figures["by_size_um"]["5-8"]["changed_share"] == pytest.approx(1 / 6, abs=1e-4)


def test_true_size_states_a_known_bias(source: SimulatedSource, bundle: Bundle) -> None:
    taken, problem = source.photographs(), Problem(bundle, KNOWN)
    answered = Classifier(bundle, open_backend(bundle).backend).classify(taken.crops.crops)
    truth = taken.crops.ecd_um
    spread = np.where(np.arange(len(truth)) % 2, 1.1, 1.0).astype(np.float32)
    read = replace(
        answered, ecd_um=1.04 * truth, ecd_relative_sd=np.full(len(truth), 0.05, np.float32), depth_um=0 * truth
    )
    figures = true_size_figures(problem.answers(taken, read), bins=((5, 8), (8, 15)))
    assert figures is not None
    assert [row["all"]["bias_percent"] for row in figures["by_size_and_depth"]] == [pytest.approx(4, abs=0.01)] * 2
    assert figures["within_stated_sd"] == 1
    wide = true_size_figures(problem.answers(taken, replace(read, ecd_um=spread * truth)), bins=((5, 15),))
    assert wide is not None
    assert wide["by_size_and_depth"][0]["all"]["spread_percent"] == pytest.approx(5, abs=0.1)
    none = replace(answered, ecd_um=None, ecd_relative_sd=None, depth_um=None)
    assert true_size_figures(problem.answers(taken, none), bins=((5, 8),)) is None


def test_mcnemar_is_that_of_a_hand_computed_binomial() -> None:
    a = np.array([True] * 12 + [False] * 3 + [True] * 5)
    b = np.array([False] * 12 + [True] * 3 + [True] * 5)
    result = mcnemar(a, b)
    assert (result.only_first, result.only_second, result.both_right, result.both_wrong) == (12, 3, 5, 0)
    # 2 P(X <= 3), X binomial(15, 1/2)
    assert result.p_value == pytest.approx(2 * (1 + 15 + 105 + 455) / 2**15)
    assert mcnemar(a, a).p_value == 1


def test_a_bundle_against_itself_differs_in_nothing(store: ViewStore, bundle: Bundle) -> None:
    def source_of(geometry: Any) -> SimulatedSource:
        return SimulatedSource(store, labels=KNOWN, geometry=geometry, name="tiny library")

    result = compare(bundle, bundle, source_of, resamples=50)
    f = result.figures
    assert f["macro_f1_gain"] == {"value": 0, "low": 0, "high": 0}
    assert (f["better"], f["mcnemar"]["p_value"], result.panels) == (None, 1.0, ())
    assert "No difference shown" in comparison_page(result).decode()


def test_a_bundle_is_better_than_itself_with_two_classes_mixed_up(store: ViewStore, bundle: Bundle) -> None:
    names = list(bundle.classes)
    i, j = names.index("cellulose"), names.index("air_bubble")
    names[i], names[j] = names[j], names[i]
    wrong = replace(bundle, description=bundle.description.model_copy(update={"classes": tuple(names)}))

    def source_of(geometry: Any) -> SimulatedSource:
        return SimulatedSource(store, labels=KNOWN, geometry=geometry, name="tiny library")

    result = compare(wrong, bundle, source_of, resamples=200)
    f = result.figures
    assert f["better"] == "second"
    assert f["mcnemar"]["p_value"] < 0.01
    assert {p.kind for p in result.panels} == {"only the second is right"}
    page = comparison_page(result).decode()
    assert "B is better" in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)|url\(|@import|<script""", page)
