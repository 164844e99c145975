"""The arrows between the rooms go one way."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("capture", "segmentation", "measurement", "classification", "recording", "reporting", "messaging")
# Contracts that sit in one room and are plain data, open to the rooms before it.
JOINTS = {"edge_app/pipeline.py", "edge_app/config.py"}


def imports_of(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_before_it(room: str) -> None:
    later = ROOMS[ROOMS.index(room) + 1 :]
    wrong = {
        f"{path.relative_to(ROOT)} -> {name}"
        for path in modules(f"edge_app/{room}")
        for name in imports_of(path)
        if name.startswith(tuple(f"edge_app.{r}" for r in later) + ("edge_app.pipeline", "edge_app.cli"))
    }
    assert not wrong


def test_the_device_side_imports_neither_training_nor_tensorflow() -> None:
    wrong = {
        f"{path.relative_to(ROOT)} -> {name}"
        for path in modules("edge_app")
        for name in imports_of(path)
        if name.split(".")[0] in {"training", "converters", "tensorflow", "keras", "scipy", "sklearn", "skimage"}
    }
    assert not wrong


def test_no_room_is_named_for_nothing() -> None:
    names = {p.stem for folder in ("edge_app", "training", "converters") for p in modules(folder)}
    assert not names & {"utils", "util", "helpers", "common", "misc"}
