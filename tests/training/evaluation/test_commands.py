import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from training.__main__ import main


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_folders_give_a_summary_a_page_figures_and_a_card(folders: tuple[Path, Path], tmp_path: Path) -> None:
    data, groups = folders
    code, out, err = run("evaluate", "--data", data, "--groups", groups, "--out", tmp_path / "report")
    assert code == 0, err
    summary = json.loads(out)
    assert set(summary["per_class"]) == {"not_oil", "silicone_oil"}
    assert set(summary["by_group"]) == {"run0", "run1", "run2"}
    figures = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert figures["classes"] == ["silicone_oil", "the rest"]
    assert figures["scores"]["macro_f1"]["value"] == pytest.approx(summary["macro_f1"], abs=1e-4)
    assert figures["data"]["few_groups"]
    assert {row["group"]: row["right"] for row in figures["scores"]["by_group"]} == {
        g: row["right"] for g, row in summary["by_group"].items()
    }
    page = (tmp_path / "report" / "evaluation.html").read_text()
    assert "Few groups" in page
    assert "not_oil" in page
    assert "Macro-F1" in (tmp_path / "report" / "MODEL_CARD.md").read_text()


def test_without_a_folder_for_the_report_only_the_summary_is_printed(folders: tuple[Path, Path]) -> None:
    code, out, err = run("evaluate", "--data", folders[0], "--groups", folders[1])
    assert code == 0, err
    assert json.loads(out)["pictures"] > 30


def test_two_bundles_are_compared(folders: tuple[Path, Path], tmp_path: Path) -> None:
    where = ("--data", folders[0], "--groups", folders[1])
    code, out, err = run("compare", "shipped", "shipped", *where, "--out", tmp_path)
    assert code == 0, err
    assert json.loads(out)["better"] is None
    assert (tmp_path / "comparison.html").stat().st_size > 10_000


def test_strangers_are_read_from_a_folder(tmp_path: Path) -> None:
    from edge_app.classification.crops import CropGeometry
    from edge_app.errors import UserError
    from training.evaluation.measured_data import read_strangers

    with pytest.raises(UserError, match="no picture in it"):
        read_strangers(tmp_path, geometry=CropGeometry(), um_per_px=1.33)
    picture = np.full((20, 24), 210, np.uint8)
    picture[6:14, 6:14] = 40
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    found = read_strangers(tmp_path, geometry=CropGeometry(), um_per_px=1.33)
    assert len(found) == 1
    assert found.crops.label.tolist() == [-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give --data DIR with --groups CSV, or --simulated"),
        (("--data", "x", "--simulated", "test", "--out", "{tmp}"), "not both"),
        (("--simulated", "test", "--share", "0.001", "--work", "{tmp}"), "--simulated needs --out"),
        (("--data", "{tmp}/none", "--groups", "{tmp}/none.csv"), "no such folder"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    code, _, err = run("evaluate", *(a.replace("{tmp}", str(tmp_path)) for a in arguments))
    assert code == 2
    assert words in err.strip().splitlines()[-1]
    assert len(err.strip().splitlines()) == 1
