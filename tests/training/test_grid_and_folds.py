"""`grid` and `crossvalidate` through their commands, and the figures against scikit-learn."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from training.__main__ import main
from training.crossvalidate import draw_confusion, print_folds, summarise_folds
from training.datasets.pictures import LabelledPictures
from training.grid import draw_heat_map


def stripes_and_spots(directory: Path, per_class: int = 30) -> tuple[Path, Path]:
    """Two kinds in six runs."""
    rng = np.random.default_rng(1)
    lines = ["file,group"]
    y, x = np.mgrid[0:14, 0:14] - 6.5
    for name, shape in (("spot", np.exp(-(x**2 + y**2) / 9)), ("stripe", np.exp(-(x**2) / 4))):
        (directory / "data" / name).mkdir(parents=True)
        for i in range(per_class):
            picture = 200 * (1 - 0.5 * np.rot90(shape, i) + 0.01 * rng.standard_normal(shape.shape))
            cv2.imwrite(str(directory / "data" / name / f"{i}.png"), np.clip(picture, 0, 255).astype(np.uint8))
            lines.append(f"{name}/{i}.png,run{i % 6}")
    (directory / "groups.csv").write_text("\n".join(lines) + "\n")
    return directory / "data", directory / "groups.csv"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_grid_is_scored_drawn_and_not_made_twice(tmp_path: Path) -> None:
    data, groups = stripes_and_spots(tmp_path)
    out = tmp_path / "grid"
    command = ["grid", "--data", str(data), "--groups", str(groups), "--out", str(out), "--epochs", "1", "--json"]
    command += ["--learning-rates", "1e-2,1e30", "--batches", "32"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    result = json.loads((out / "grid.json").read_text())
    assert [cell["macro_f1"] is None for cell in result["cells"]] == [False, True]
    assert result["best"]["learning_rate"] == 1e-2
    assert json.loads(done.stdout) == result
    with (out / "grid.csv").open(newline="") as file:
        assert [row["learning_rate"] for row in csv.DictReader(file)] == ["0.01", "1e+30"]
    assert cv2.imread(str(out / "grid.png")).shape[1] > 300
    made = {path: path.stat().st_mtime_ns for path in out.glob("piece-*.json")}
    assert len(made) == 2
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("piece-*.json")} == made
    other = CliRunner().invoke(main, [*command, "--seed", "2"])
    assert other.exit_code == 2
    assert "results of another plan (seed 1, not 2)" in other.output


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_picture_is_called_by_a_network_that_did_not_see_its_run(tmp_path: Path) -> None:
    data, groups = stripes_and_spots(tmp_path)
    out = tmp_path / "folds"
    command = ["crossvalidate", "--data", str(data), "--groups", str(groups), "--out", str(out), "--folds", "2"]
    done = CliRunner().invoke(main, [*command, "--epochs", "3", "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    runs = [set(row["groups"]) for row in result["per_fold"]]
    assert not runs[0] & runs[1]
    assert sum(row["pictures"] for row in result["per_fold"]) == 60
    with (out / "calls.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    truth, called = [row["class"] for row in rows], [row["called"] for row in rows]
    assert confusion_matrix(truth, called, labels=["spot", "stripe"]).tolist() == result["confusion"]
    assert result["pooled"]["macro_f1"]["value"] > 0.8
    assert (out / "fold-1" / "curves.png").exists()


def test_figures_of_folds_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    n = 90
    label = rng.integers(0, 3, n)
    group = np.array([f"run{k}" for k in rng.integers(0, 9, n)])
    fold = np.array([int(name[3:]) % 3 for name in group])
    probabilities = rng.dirichlet((1, 1, 1), n)
    probabilities[np.arange(n), label] += 0.7
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    pictures = LabelledPictures(
        pictures=[np.zeros((5, 5), np.uint8)] * n,
        files=[f"{i}.png" for i in range(n)],
        label=label,
        group=group,
        level=np.ones(n, np.float32),
        classes=("a", "b", "c"),
        um_per_px=1.0,
    )
    found = summarise_folds(pictures, fold, probabilities)
    called = probabilities.argmax(axis=1)
    precision, recall, f1, support = precision_recall_fscore_support(label, called)
    for c, row in enumerate(found["per_class"]):
        assert row["pictures"] == support[c]
        for name, expected in (("precision", precision), ("recall", recall), ("f1", f1)):
            assert row[name]["value"] == pytest.approx(expected[c], abs=1e-4)
            assert row[name]["low"] <= row[name]["value"] <= row[name]["high"]
    assert found["pooled"]["macro_f1"]["value"] == pytest.approx(f1.mean(), abs=1e-4)
    assert found["confusion"] == confusion_matrix(label, called).tolist()
    assert found["few_groups"]
    for k, row in enumerate(found["per_fold"]):
        rows = fold == k
        expected = precision_recall_fscore_support(label[rows], called[rows], average="macro")[2]
        assert row["macro_f1"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("score", [0.9, None])
def test_pictures_are_drawn_for_any_table(tmp_path: Path, score: float | None) -> None:
    cells = [
        {"learning_rate": 0.1, "batch": 16, "macro_f1": score, "validation_loss": 0.5, "epoch": 1},
        {"learning_rate": 0.01, "batch": 16, "macro_f1": 0.9, "validation_loss": 0.4, "epoch": 2},
    ]
    for content in (
        draw_heat_map(cells, [0.1, 0.01], [16], title="grid"),
        draw_confusion(np.array([[3, 0], [0, 0]]), ("a", "b"), title="folds"),
    ):
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape[0] > 150
        assert picture.std() > 10


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    data, groups = stripes_and_spots(tmp_path, per_class=6)
    command = ["grid", "--data", str(data), "--groups", str(groups), "--out", str(tmp_path / "grid")]
    for change, said in (
        (["--learning-rates", "fast"], "--learning-rates is fast, needed are different numbers"),
        (["--batches", "16,16"], "--batches is 16,16, needed are different numbers"),
        (["--batches", "0"], "--batch is 0, must be at least 1"),
    ):
        done = CliRunner().invoke(main, [*command, *change])
        assert done.exit_code == 2
        assert said in done.output
        assert len(done.output.splitlines()) == 1
    done = CliRunner().invoke(main, ["crossvalidate", *command[1:], "--folds", "1"])
    assert done.exit_code == 2
    assert "--folds is 1, must be at least 2" in done.output


def test_folds_are_told_in_whole_lines() -> None:
    figure = {"value": 0.9, "low": 0.8, "high": 1.0}
    lines: list[str] = []
    print_folds(
        {
            "per_class": [{"class": "a" * 40, "pictures": 7, "precision": figure, "recall": figure, "f1": figure}],
            "per_fold": [{"macro_f1": 0.5}],
            "pooled": {"macro_f1": figure, "balanced_accuracy": figure},
            "few_groups": True,
            "groups": 3,
        },
        report=lines.append,
    )
    assert lines[1].split() == ["a" * 40, "7", *["0.900", "(0.80", "to", "1.00)"] * 3]
    assert lines[-1].startswith("3 groups only")
