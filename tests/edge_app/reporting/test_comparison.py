"""Two runs side by side."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import recorded_runs as runs
from click.testing import CliRunner
from scipy import stats

from edge_app.cli.compare import compare
from edge_app.errors import UserError
from edge_app.measurement.concentration import difference, interval_per_ml
from edge_app.reporting.budgets import size_result
from edge_app.reporting.comparison import _wilson, compare_runs, comparison_tree
from edge_app.reporting.comparison_page import comparison_page
from edge_app.reporting.run_facts import read_run


def lot(folder: Path, *, seed: int, size: float = 1.0, silicone: float = 0.4, windows: int = 12, **options) -> Path:
    """A run whose particles are ``size`` times as large, with a share of silicone oil; nothing else differs."""
    rng = np.random.default_rng(seed)
    run_id = f"20261121t07{seed:02d}00z-{seed:04d}"
    with runs.create(folder, run_id=run_id, **options) as record:
        for seq in range(windows):
            content = runs.window_content(rng, seq, per_frame=25, run_id=run_id)
            n = len(content.particles)
            ecd = (size * 2.0 * (1.0 + rng.exponential(1.0, n))).astype(np.float32)
            particles = dataclasses.replace(content.particles, ecd_um=ecd)
            index = np.where(rng.random(n) < silicone, 0, rng.integers(1, 4, n)).astype(np.int16)
            window = runs.window_of(run_id, seq, particles, index, frames=3)
            record.commit_window(window, particles, class_index=index, confidence=content.confidence)
        record.finish({})
    return record.path


@pytest.fixture(scope="module")
def lots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("lots")
    other = {**runs.IDENTITY, "calibration_sha256": "12" * 32, "model_sha256": "34" * 32, "steps": ["threshold:0.05"]}
    scale = runs.CALIBRATION.model_copy(update={"id": "nominal-1.4um-100um"})
    return {
        "one": lot(folder / "one", seed=1),
        "same": lot(folder / "same", seed=2),
        "larger": lot(folder / "larger", seed=3, size=1.6),
        "oily": lot(folder / "oily", seed=4, silicone=0.6),
        "foreign": lot(
            folder / "foreign", seed=5, identity=other, calibration=scale.model_dump(),
            info={"uri": "dir:x", "kind": "dir"},
        ),
    }  # fmt: skip


def test_two_runs_of_one_population_are_not_shown_to_differ(lots: dict[str, Path]) -> None:
    found = compare_runs(lots["one"], lots["same"], permutations=199)
    assert not found.populations.shown
    assert all(d.effect_name == "negligible" for d in found.populations.descriptors)
    text = " ".join(found.conclusion)
    assert "no difference is shown" in text
    assert "does not prove the runs alike" in text
    assert found.unlike[0].title == "Not calibrated"


def test_larger_particles_are_found_with_their_effect_first(lots: dict[str, Path]) -> None:
    found = compare_runs(lots["one"], lots["larger"], permutations=199)
    assert found.populations.largest.name == "ecd_um"
    assert found.populations.largest.effect < -0.2
    assert found.populations.shown
    sentence = found.conclusion[0]
    assert sentence.index("effect") < sentence.index("p < ")
    assert any("not that it matters" in s for s in found.conclusion)
    # Shapes were not touched.
    assert {d.name for d in found.populations.descriptors if abs(d.effect) > 0.147} == {"ecd_um"}
    ten = next(s for s in found.sizes if s.size_um == 10.0)
    assert ten.shown
    assert ten.rest.high < 0


def test_another_composition_is_found_by_class(lots: dict[str, Path]) -> None:
    found = compare_runs(lots["one"], lots["oily"], permutations=99)
    oil = next(c for c in found.classes if c.class_name == "silicone_oil")
    assert oil.shown
    assert oil.rest[1] <= 0.4 - 0.6 <= oil.rest[2]
    assert "differs most in silicone oil" in found.conclusion[2]
    for share in found.classes:
        for (p, low, high), count in zip((share.first, share.second), share.counts, strict=True):
            assert low <= p <= high
            assert count >= 0


@pytest.mark.parametrize(("count", "total"), [(0, 40), (7, 40), (40, 40), (123, 4000)])
def test_shares_have_the_score_interval(count: int, total: int) -> None:
    oracle = stats.binomtest(count, total).proportion_ci(method="wilson")
    assert _wilson(count, total, 1.0) == pytest.approx((count / total, oracle.low, oracle.high), abs=1e-9)


def test_one_calibration_cancels_two_do_not(lots: dict[str, Path]) -> None:
    same = compare_runs(lots["one"], lots["same"], permutations=99)
    a, b, c = (read_run(lots[k]) for k in ("one", "same", "foreign"))
    ten = next(s for s in same.sizes if s.size_um == 10.0)
    assert ten.rest == difference(interval_per_ml(a.series, 10.0), interval_per_ml(b.series, 10.0))
    other = compare_runs(lots["one"], lots["foreign"], permutations=99)
    ten = next(s for s in other.sizes if s.size_um == 10.0)
    assert ten.rest == difference(size_result(a, 10.0).combined, size_result(c, 10.0).combined)
    assert ten.rest.high - ten.rest.low > interval_per_ml(a.series, 10.0).high - interval_per_ml(a.series, 10.0).low


def test_what_was_not_the_same_is_said_first(lots: dict[str, Path]) -> None:
    found = compare_runs(lots["one"], lots["foreign"], permutations=99)
    titles = [f.title for f in found.unlike]
    assert titles[:4] == ["Two calibrations", "Two models", "Two pipelines", "Two instruments"]
    page = comparison_page(found).decode()
    assert page.index("Two calibrations") < page.index("Conclusion</h2>")
    assert "volume and size scale (k = 2)" in page
    alike = compare_runs(lots["one"], lots["same"], permutations=99)
    assert not any(t.title.startswith("Two") for t in alike.unlike)


def test_a_class_and_a_size_can_be_chosen(lots: dict[str, Path]) -> None:
    found = compare_runs(lots["one"], lots["larger"], class_name="glass", from_um=4.0, permutations=99)
    assert found.edges_um[0] == 4.0
    assert found.populations.first < compare_runs(lots["one"], lots["larger"], permutations=99).populations.first
    assert "called glass" in found.conclusion[0]
    with pytest.raises(UserError, match="no class 'gold'"):
        compare_runs(lots["one"], lots["same"], class_name="gold")
    with pytest.raises(UserError, match=r"smallest size is 4\.2 um, allowed are"):
        compare_runs(lots["one"], lots["same"], from_um=4.2)


def test_a_run_is_not_compared_with_itself_nor_with_nothing(lots: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="compared with itself"):
        compare_runs(lots["one"], lots["one"])
    with runs.create(tmp_path, run_id="20261121t074500z-0009") as record:
        record.finish({})
    with pytest.raises(UserError, match="0009: nothing was analysed"):
        compare_runs(lots["one"], record.path)


def test_the_page_is_whole_and_the_same_each_time(lots: dict[str, Path]) -> None:
    found = compare_runs(lots["one"], lots["oily"], permutations=99)
    page = comparison_page(found).decode()
    assert page.encode() == comparison_page(compare_runs(lots["one"], lots["oily"], permutations=99))
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)
    assert len(ids) == len(set(ids))
    assert not re.search(r'(?:src|href)="(?!#|data:)', page)
    for sentence in found.conclusion:
        assert sentence.replace("'", "&#39;") in page


def test_the_command(lots: dict[str, Path], tmp_path: Path) -> None:
    runner = CliRunner()
    a, b = str(lots["one"]), str(lots["larger"])
    shown = runner.invoke(compare, [a, b, "--permutations", "99", "--html", str(tmp_path / "c.html")])
    assert shown.exit_code == 0, shown.output
    assert "The largest difference between the particles" in " ".join(shown.output.split())
    assert (tmp_path / "c.html").read_text().startswith("<!doctype html>")
    body = json.loads(runner.invoke(compare, [a, b, "--permutations", "99", "--json"]).stdout)
    assert body == {**comparison_tree(compare_runs(lots["one"], lots["larger"], permutations=99)), "files": []}
    assert body["schema"] == "mfi.comparison/1"
    assert [r["verification"] for r in body["runs"]] == ["missing", "missing"]
