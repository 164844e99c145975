"""The fixed command line of `fit`, from folders to a bundle that classifies."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from edge_app.classification import Bundle, Classifier, open_backend
from edge_app.classification.tight_crops import crops_of_pictures
from training.__main__ import main


def discs_and_bars(directory: Path, per_class: int = 36) -> tuple[Path, Path]:
    """Two kinds that anyone can tell apart, in six runs of different brightness."""
    rng = np.random.default_rng(0)
    lines = ["file,group"]
    for name in ("bar", "silicone_oil"):
        (directory / "data" / name).mkdir(parents=True)
        for i in range(per_class):
            run = i % 6
            side = int(rng.integers(10, 22))
            y, x = np.mgrid[0:side, 0:side] - (side - 1) / 2
            if name == "bar":
                angle = rng.uniform(0, np.pi)
                dark = np.exp(-(((x * np.cos(angle) + y * np.sin(angle)) / 1.6) ** 2))
            else:
                dark = np.exp(-(((np.hypot(x, y) - 0.32 * side) / 1.6) ** 2))
            picture = (190 + 8 * run) * (1 - 0.5 * dark + 0.008 * rng.standard_normal(dark.shape))
            cv2.imwrite(str(directory / "data" / name / f"{i}.png"), np.clip(np.rint(picture), 0, 255).astype(np.uint8))
            lines.append(f"{name}/{i}.png,run{run}")
    (directory / "groups.csv").write_text("\n".join(lines) + "\n")
    return directory / "data", directory / "groups.csv"


def test_fit_makes_a_bundle_that_classifies_other_runs(tmp_path: Path) -> None:
    data, groups = discs_and_bars(tmp_path)
    out = tmp_path / "bundle"
    command = ["fit", "--data", str(data), "--groups", str(groups), "--out", str(out), "--epochs", "4"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    last = json.loads(done.output.strip().splitlines()[-1])
    assert last["macro_f1"] >= 0.9
    bundle = Bundle.load(out)
    assert bundle.classes == ("bar", "silicone_oil")
    record = bundle.description.training
    assert not set(record["groups_trained"]) & set(record["groups_measured"])
    assert record["start"].startswith(Bundle.load().description.name)
    assert "bar" in (out / "MODEL_CARD.md").read_text()
    pictures = [cv2.imread(str(p), cv2.IMREAD_GRAYSCALE) for p in sorted((data / "bar").glob("*.png"))]
    classifier = Classifier(bundle, open_backend(bundle).backend)
    result = classifier.classify(crops_of_pictures(pictures, geometry=bundle.geometry, um_per_px=1.33))
    assert (result.class_index == 0).mean() >= 0.9
    measured = CliRunner().invoke(
        main, ["evaluate", "--data", str(data), "--groups", str(groups), "--bundle", str(out)]
    )
    assert measured.exit_code == 0, measured.output
    assert json.loads(measured.output)["macro_f1"] >= 0.9


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--epochs", "0"], "--epochs is 0"),
        (["--init", "nowhere"], "not a model bundle"),
        (["--data", "nowhere"], "no such folder"),
        (["--groups", "nowhere.csv"], "cannot be read"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, change: list[str], said: str) -> None:
    data, groups = discs_and_bars(tmp_path, per_class=6)
    command = ["fit", "--data", str(data), "--groups", str(groups), "--out", str(tmp_path / "b"), *change]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2
    lines = [line for line in done.output.splitlines() if line]
    assert len(lines) == 1
    assert said in lines[0]
    assert not (tmp_path / "b").exists()


def test_a_folder_that_is_no_bundle_is_not_overwritten(tmp_path: Path) -> None:
    data, groups = discs_and_bars(tmp_path, per_class=12)
    out = tmp_path / "precious"
    out.mkdir()
    (out / "thesis.txt").write_text("keep me")
    command = ["fit", "--data", str(data), "--groups", str(groups), "--out", str(out), "--epochs", "1"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2
    assert "not empty and not a bundle" in done.output
    assert (out / "thesis.txt").read_text() == "keep me"
