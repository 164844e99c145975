from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field

from edge_app.capture.uri import parse_path_uri, validate_options
from edge_app.errors import UserError


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    rate_hz: float = Field(default=10.0, gt=0)
    bits: int | None = None


@pytest.mark.parametrize("name", ["plain", "with space", "what?", "a#1", "100%25", "k?rate_hz=3", "ü µ", "a&b=c"])
def test_any_name_that_exists_is_a_path(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    parsed = parse_path_uri(f"dir:{tmp_path / name}")
    assert (parsed.path, dict(parsed.options)) == (tmp_path / name, {})
    parsed = parse_path_uri(f"dir:{tmp_path / name}?rate_hz=5&bits=10")
    assert (parsed.path, dict(parsed.options)) == (tmp_path / name, {"rate_hz": "5", "bits": "10"})


def test_percent_signs_are_decoded_only_where_the_literal_path_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    assert parse_path_uri(f"dir:{tmp_path}/a%20b").path == tmp_path / "a b"
    (tmp_path / "a%20b").mkdir()
    assert parse_path_uri(f"dir:{tmp_path}/a%20b").path == tmp_path / "a%20b"


def test_pattern_keeps_question_mark_and_plus(tmp_path: Path) -> None:
    parsed = parse_path_uri(rf"mfi:{tmp_path}?pattern=img_(?:x)?([0-9]+)&bits=10")
    assert dict(parsed.options) == {"pattern": "img_(?:x)?([0-9]+)", "bits": "10"}


def test_missing_path_is_named_without_its_options(tmp_path: Path) -> None:
    assert str(parse_path_uri(f"dir:{tmp_path}/none?bits=10")) == f"dir:{tmp_path}/none"


@pytest.mark.parametrize("uri", ["dir:", "nothing"])
def test_uri_without_path(uri: str) -> None:
    with pytest.raises(UserError, match="scheme:PATH"):
        parse_path_uri(uri)


def test_options_are_typed(tmp_path: Path) -> None:
    options = validate_options(parse_path_uri(f"dir:{tmp_path}?rate_hz=2.5"), Options)
    assert options == Options(rate_hz=2.5)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("rate=3", "option rate is not known, allowed: rate_hz, bits"),
        ("rate_hz=fast", "'fast'"),
        ("rate_hz=-1", "'-1'"),
    ],
)
def test_bad_option_is_named(tmp_path: Path, query: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        validate_options(parse_path_uri(f"dir:{tmp_path}?{query}"), Options)
    assert "\n" not in str(caught.value)
