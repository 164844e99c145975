import json
import shutil
from pathlib import Path

import pytest

from edge_app.classification.bundle import SHIPPED, Bundle, sha256_of
from edge_app.errors import UserError


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    shutil.copytree(SHIPPED, folder)
    return folder


def edit(folder: Path, **changes: object) -> None:
    card = folder / "bundle.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), **changes}))


def test_the_shipped_bundle_has_the_promised_classes_and_true_hashes() -> None:
    bundle = Bundle.load()
    assert bundle.classes == (
        "silicone_oil",
        "air_bubble",
        "protein_aggregate",
        "protein_mimic",
        "glass",
        "cellulose",
        "bead",
    )
    for name, digest in bundle.description.files.items():
        assert sha256_of(SHIPPED / name) == digest
    assert {"model.tflite", "MODEL_CARD.md", "reference.npz", "float.weights.h5"} <= set(bundle.description.files)
    assert bundle.model_sha256 == sha256_of(SHIPPED / "model.tflite")
    assert bundle.prototypes is not None
    assert bundle.prototypes.shape[0] == len(bundle.classes)
    assert bundle.model_sha256[:12] in bundle.identity
    # Where the last layers are.
    assert bundle.description.files["reference.npz"][:12] in bundle.identity


def test_the_shipped_bundle_is_small() -> None:
    assert sum(p.stat().st_size for p in SHIPPED.iterdir()) < 2_300_000


@pytest.mark.parametrize("name", ["model.tflite", "reference.npz", "MODEL_CARD.md", "float.weights.h5"])
def test_one_changed_byte_is_refused(copy: Path, name: str) -> None:
    path = copy / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: SHA-256 .* refused"):
        Bundle.load(copy)


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / "reference.npz").unlink()
    with pytest.raises(UserError, match=r"reference\.npz: named in bundle\.json"):
        Bundle.load(copy)


def test_a_folder_without_a_description_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a model bundle"):
        Bundle.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"temperature": 0}, "temperature"),
        ({"classes": ["a", "a"], "log_prior": [0, 0]}, "classes must differ"),
        ({"classes": ["a", "unknown"], "log_prior": [0, 0]}, "unknown"),
        ({"log_prior": [0]}, "log_prior has 1"),
        ({"files": {}}, "model.tflite"),
        ({"quantisation": {}}, "quantisation lacks"),
        ({"surprise": 1}, "surprise"),
        ({"schema": "mfi.bundle/9"}, "schema"),
    ],
)
def test_a_wrong_description_is_told_in_one_line(copy: Path, changes: dict[str, object], said: str) -> None:
    edit(copy, **changes)
    with pytest.raises(UserError) as caught:
        Bundle.load(copy)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_broken_json_is_told_in_one_line(copy: Path) -> None:
    (copy / "bundle.json").write_text("{")
    with pytest.raises(UserError, match="not a valid bundle description"):
        Bundle.load(copy)


def test_a_file_name_may_not_leave_the_folder(copy: Path) -> None:
    files = json.loads((copy / "bundle.json").read_text())["files"]
    edit(copy, files={**files, "../elsewhere": "0" * 64})
    with pytest.raises(UserError, match="leads out of the bundle"):
        Bundle.load(copy)
