"""The fixed command line of `fit`, from folders to a bundle that classifies."""

import inspect
import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from edge_app.classification import Bundle, Classifier, open_backend
from edge_app.classification.tight_crops import crops_of_pictures
from training.__main__ import main
from training.fitting.state import TeachingState


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
    sides = [set(record[f"groups_{side}"]) for side in ("trained", "validated", "measured")]
    assert all(sides)
    assert len(set.union(*sides)) == sum(len(side) for side in sides) == 6
    assert len(record["history"]["validation_macro_f1"]) == record["epochs_made"] + 1
    assert (tmp_path / ".bundle-work" / "curves.png").stat().st_size > 10_000
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


def command_line(data: Path, groups: Path, out: Path, *more: str) -> list[str]:
    return ["fit", "--data", str(data), "--groups", str(groups), "--out", str(out), *more]


def lines_of(output: str) -> list[str]:
    return [line for line in output.splitlines() if line]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--epochs", "0"], "--epochs is 0, must be at least 1"),
        (["--batch", "0"], "--batch is 0, must be at least 1"),
        (["--learning-rate", "-1"], "--learning-rate is -1, must be above 0"),
        (["--learning-rate", "nan"], "--learning-rate is nan, must be above 0"),
        (["--label-smoothing", "0.9"], "--label-smoothing is 0.9, must be 0 to 0.5"),
        (["--robust", "2"], "--robust is 2, must be 0 to 1"),
        (["--balance", "fair"], "--balance is fair, allowed are none, sqrt, inverse, effective"),
        (["--optimizer", "adam"], "--optimizer is adam, allowed are adamw, sgd"),
        (["--init", "none", "--network", "nonsense"], "--network is nonsense, allowed are fused_residual"),
        (["--network", "mobilenet_v2"], "--network is mobilenet_v2, but"),
        (["--precision", "half"], "--precision is half, allowed are auto"),
        (["--workers-config", "nowhere.json"], "nowhere.json: cannot be read"),
        (["--init", "nowhere"], "not a model bundle"),
        (["--data", "nowhere"], "no such folder"),
        (["--groups", "nowhere.csv"], "cannot be read"),
        (["--split", "nowhere.csv"], "nowhere.csv: cannot be read"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, change: list[str], said: str) -> None:
    data, groups = discs_and_bars(tmp_path, per_class=6)
    done = CliRunner().invoke(main, command_line(data, groups, tmp_path / "b", *change))
    assert done.exit_code == 2
    lines = lines_of(done.output)
    assert len(lines) == 1
    assert said in lines[0]
    assert not (tmp_path / "b").exists()


def only_bars(data: Path, groups: Path) -> str:
    shutil.rmtree(data / "silicone_oil")
    return "at least 2 are needed"


def empty_class(data: Path, groups: Path) -> str:
    for path in (data / "bar").iterdir():
        path.unlink()
    return "bar: no picture in this class folder"


def picture_in_two_groups(data: Path, groups: Path) -> str:
    groups.write_text(groups.read_text() + "bar/0.png,run5\n")
    return "bar/0.png is in group run0 and in group run5"


def unreadable_picture(data: Path, groups: Path) -> str:
    (data / "bar" / "0.png").write_bytes(b"no picture")
    return "bar/0.png"


def class_in_one_group(data: Path, groups: Path) -> str:
    rows = [line.split(",")[0] + ",run0" if line.startswith("bar/") else line for line in groups.read_text().split()]
    groups.write_text("\n".join(rows) + "\n")
    return "class bar: all its pictures are in 1 group, at least 2 are needed to split by group"


def state_of_another_training(data: Path, groups: Path) -> str:
    work = data.parent / ".b-work"
    work.mkdir()
    (work / "state.npz").write_bytes(b"nonsense")
    return "not the state of a training"


def work_is_a_file(data: Path, groups: Path) -> str:
    (data.parent / ".b-work").write_text("a file")
    return ".b-work: is a file, needed is a folder"


@pytest.mark.parametrize(
    "spoil",
    [only_bars, empty_class, picture_in_two_groups, unreadable_picture, class_in_one_group, work_is_a_file],
)
def test_bad_data_is_one_line_and_exit_code_2(tmp_path: Path, spoil: Callable[[Path, Path], str]) -> None:
    data, groups = discs_and_bars(tmp_path, per_class=6)
    said = spoil(data, groups)
    done = CliRunner().invoke(main, command_line(data, groups, tmp_path / "b"))
    assert done.exit_code == 2
    lines = lines_of(done.output)
    assert len(lines) == 1
    assert said in lines[0]
    assert not (tmp_path / "b").exists()


def test_a_group_on_two_sides_of_a_given_split_is_refused(tmp_path: Path) -> None:
    data, groups = discs_and_bars(tmp_path, per_class=6)
    split = tmp_path / "split.csv"
    files = [f"{name}/{i}.png" for name in ("bar", "silicone_oil") for i in range(6)]
    rows = [f"{file},{'test' if file == 'bar/0.png' else 'train'}" for file in files]
    split.write_text("\n".join(["file,side", *rows]) + "\n")
    done = CliRunner().invoke(main, command_line(data, groups, tmp_path / "b", "--split", str(split)))
    assert done.exit_code == 2
    assert "group run0 stands on two sides" in done.output
    assert len(lines_of(done.output)) == 1


@pytest.mark.parametrize("command", ["fit", "grid", "crossvalidate"])
def test_a_folder_that_holds_something_else_is_not_overwritten(tmp_path: Path, command: str) -> None:
    data, groups = discs_and_bars(tmp_path, per_class=12)
    out = tmp_path / "precious"
    out.mkdir()
    (out / "thesis.txt").write_text("keep me")
    done = CliRunner().invoke(main, [command, *command_line(data, groups, out, "--epochs", "1")[1:]])
    assert done.exit_code == 2
    assert "not empty" in done.output
    assert (out / "thesis.txt").read_text() == "keep me"


def test_what_keeps_a_training_from_its_end_is_one_line_too(tmp_path: Path) -> None:
    data, groups = discs_and_bars(tmp_path, per_class=12)
    state_of_another_training(data, groups)
    command = command_line(data, groups, tmp_path / "b", "--epochs", "1")
    runner = CliRunner(mix_stderr=False) if "mix_stderr" in inspect.signature(CliRunner).parameters else CliRunner()
    done = runner.invoke(main, command)
    assert done.exit_code == 2
    assert lines_of(done.stderr) == [
        f"{tmp_path / '.b-work' / 'state.npz'}: {lines_of(done.stderr)[0].split(': ', 1)[1]}"
    ]
    assert "not the state of a training" in done.stderr
    command += ["--restart", "--optimizer", "sgd", "--learning-rate", "1e30"]
    done = runner.invoke(main, command)
    assert done.exit_code == 2
    assert lines_of(done.stderr) == ["the loss is not a number in epoch 1; try a lower learning rate"]
    assert not (tmp_path / "b").exists()


def run_fit(command: list[str], **options: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "training", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_killed_in_the_middle_and_started_again_it_ends_with_the_same_bundle(tmp_path: Path) -> None:
    data, groups = discs_and_bars(tmp_path)
    unbroken, killed = tmp_path / "unbroken" / "bundle", tmp_path / "killed" / "bundle"
    whole = run_fit(command_line(data, groups, unbroken, "--epochs", "6"))
    broken = run_fit(command_line(data, groups, killed, "--epochs", "6"))
    state = killed.parent / ".bundle-work" / "state.npz"
    while broken.poll() is None and not (state.exists() and _epochs_done(state) >= 2):
        time.sleep(0.005)
    broken.send_signal(signal.SIGKILL)
    broken.communicate()
    assert broken.returncode == -signal.SIGKILL
    assert 2 <= _epochs_done(state) < 6
    assert not killed.exists()
    errors = whole.communicate()[1]
    assert whole.returncode == 0, errors
    again = run_fit(command_line(data, groups, killed, "--epochs", "6"))
    said_again, errors = again.communicate()
    assert again.returncode == 0, errors
    assert "going on after step" in said_again
    first, second = Bundle.load(unbroken), Bundle.load(killed)
    assert first.model_sha256 == second.model_sha256
    assert first.description.metrics == second.description.metrics
    assert first.description.training == second.description.training
    assert first.description.temperature == second.description.temperature
    log, log_again = ((p.parent / ".bundle-work" / "log.csv").read_text().splitlines() for p in (unbroken, killed))
    assert [line.rsplit(",", 1)[0] for line in log] == [line.rsplit(",", 1)[0] for line in log_again]
    assert not state.exists()  # nothing is left to go on with


def _epochs_done(state: Path) -> int:
    found = TeachingState.load(state)
    return 0 if found is None else found.epoch


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_disk_that_fills_up_while_writing_is_one_line(tmp_path: Path) -> None:
    data, groups = discs_and_bars(tmp_path)

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    process = run_fit(
        command_line(data, groups, tmp_path / "b", "--epochs", "2", "--init", "none"), preexec_fn=small_files
    )
    _, errors = process.communicate()
    assert process.returncode == 2
    assert len(lines_of(errors)) == 1
    assert "the disk is full or the file is over the limit on its size" in errors
    assert not (tmp_path / "b").exists()
    assert not list((tmp_path / ".b-work").glob("*.part"))


def test_the_start_is_not_made_worse_and_too_few_groups_are_said(tmp_path: Path) -> None:
    data, groups = discs_and_bars(tmp_path, per_class=6)  # one picture per run and class
    out = tmp_path / "bundle"
    done = CliRunner().invoke(main, command_line(data, groups, out, "--epochs", "2"))
    assert done.exit_code == 0, done.output
    assert "no validation set, so no early end" in done.output
    record = Bundle.load(out).description.training
    assert record["groups_validated"] == []
    assert record["kept_epoch"] == record["epochs_made"] == 2
    assert len(record["history"]["loss"]) == 2
