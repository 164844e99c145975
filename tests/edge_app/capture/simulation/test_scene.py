"""Reading a scene: every wrong input is one line that says what is allowed."""

from pathlib import Path

import pytest

from edge_app.capture.simulation.scene import DEFAULT_MIX, FlowCellScene, read_scene
from edge_app.errors import UserError


def test_default_scene_is_the_documented_one() -> None:
    scene = read_scene("sim:")
    assert (scene.concentration_per_ml, scene.width_px, scene.height_px, scene.rate_hz) == (60_000, 1280, 1024, 10)
    assert scene.mix == pytest.approx(dict(DEFAULT_MIX))
    assert (scene.stuck_count, scene.depth_um, scene.realtime) == (2, 100, False)


def test_short_and_full_names_mean_the_same() -> None:
    short = read_scene(
        "sim:?concentration=175000&mix=glass:1,bead:3&seed=4&frames=9&width=640&height=512&rate_hz=20&noise=0.02&lose=0.1"
    )
    full = read_scene(
        "sim:?concentration_per_ml=175000&mix=glass:0.25,bead:0.75&seed=4&frames=9&width_px=640&height_px=512&rate_hz=20"
        "&noise_fraction=0.02&lose_fraction=0.1"
    )
    assert short == full
    assert short.mix == {"glass": 0.25, "bead": 0.75}


def test_uri_with_defaults_filled_in_reads_back_as_the_same_scene() -> None:
    scene = read_scene("sim:?mix=glass:1,bead:2&realtime=1&sprites=a%26b%25.npz&seed=12")
    again = read_scene(scene.uri())
    assert again.model_copy(update={"mix": scene.mix}) == scene
    assert again.mix == pytest.approx(scene.mix, abs=1e-6)
    assert again.sprites == Path("a&b%.npz")


def test_toml_scene_with_query_on_top(tmp_path: Path) -> None:
    path = tmp_path / "scene.toml"
    text = 'concentration = 5000\nseed = 3\nsprites = "own.npz"\n[mix]\nglass = 1\nbead = 1\n'
    path.write_text(text, encoding="utf-8")
    scene = read_scene(f"sim:{path}?seed=9")
    assert (scene.concentration_per_ml, scene.seed, scene.mix) == (5000, 9, {"glass": 0.5, "bead": 0.5})
    assert scene.sprites == tmp_path / "own.npz"


def test_mean_speed_follows_from_flow_rate_and_cross_section() -> None:
    # 200 uL/min through 0.1 x 2.5 mm: 3.333 mm^3/s over 0.25 mm^2.
    assert FlowCellScene().mean_speed_um_per_s == pytest.approx(13_333.3, rel=1e-4)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("concentratoin=5", ["unknown key 'concentratoin'", "concentration", "realtime"]),
        ("concentration=-5", ["concentration", "-5", "greater than or equal to 0"]),
        ("concentration=nan", ["concentration", "finite"]),
        ("concentration=many", ["concentration", "'many'", "number"]),
        ("seed=1&seed=2", ["seed is given twice"]),
        ("width=640&width_px=320", ["width_px is given twice"]),
        ("seed", ["'seed' is not key=value"]),
        ("mix=glass:x", ["mix", "'glass:x' is not family:share"]),
        ("mix=glass:-1", ["mix", "0 or more"]),
        ("mix=glass:1,glass:2", ["named once"]),
        ("size_min_um=20&size_max_um=10", ["size_max_um is 10", "above size_min_um (20)"]),
        ("size_law=flat", ["size_law", "'flat'", "powerlaw"]),
        ("lose=1", ["lose", "less than 1"]),
        ("frames=2.5", ["frames", "2.5"]),
    ],
)
def test_wrong_query_is_one_clear_line(query: str, words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        read_scene(f"sim:?{query}")
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert word in text


def test_wrong_toml_names_the_file(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    with pytest.raises(UserError, match=r"none\.toml: scene cannot be read"):
        read_scene(f"sim:{missing}")
    broken = tmp_path / "broken.toml"
    broken.write_text("seed = = 3", encoding="utf-8")
    with pytest.raises(UserError, match=r"broken\.toml: not a TOML scene"):
        read_scene(f"sim:{broken}")
    unknown = tmp_path / "unknown.toml"
    unknown.write_text("sead = 3", encoding="utf-8")
    with pytest.raises(UserError, match=r"unknown\.toml: unknown key 'sead'; allowed: concentration"):
        read_scene(f"sim:{unknown}")
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[mix]\nglass = 'much'", encoding="utf-8")
    with pytest.raises(UserError, match=r"mix\.glass"):
        read_scene(f"sim:{wrong}")


def test_every_parameter_is_in_the_docs_with_its_default_and_meaning() -> None:
    text = (Path(__file__).parents[4] / "docs" / "simulation.md").read_text(encoding="utf-8")
    for name, info in FlowCellScene.model_fields.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}`"))
        assert str(info.description) in row
        if isinstance(info.default, float):
            assert f"| {info.default:g} |" in row
