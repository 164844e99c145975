"""Families, truth, scenes and bulk generation."""

import dataclasses

import numpy as np
import pytest

from training.optics import (
    FAMILIES,
    HELD_OUT,
    KNOWN,
    NOMINAL,
    STRANGERS,
    TRAINING,
    UNKNOWN_ONLY,
    OpticsScene,
    SizePrior,
    draw_field,
    draw_scene,
    generate_views,
    make_particle,
    render_views,
)
from training.optics.build_sprites import build_library, encode

SMALL = SizePrior(low_um=3.0, middle_um=12.0, high_um=15.0, tail=0.05)


def test_known_and_unknown_families_are_apart_and_complete() -> None:
    sets = [set(KNOWN), set(STRANGERS), set(UNKNOWN_ONLY)]
    assert set.union(*sets) == set(FAMILIES)
    assert sum(len(s) for s in sets) == len(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("ecd_um", [2.0, 9.0, 45.0])
def test_every_family_renders_at_its_size(family: str, ecd_um: float) -> None:
    rng = np.random.default_rng(4)
    particle = make_particle(family, rng, ecd_um=ecd_um, medium_n=1.337)
    (view,) = render_views(particle, OpticsScene(), rng, z_um=(15.0,))
    assert view.ecd_um == pytest.approx(ecd_um, rel=0.3 if ecd_um < 5 else 0.12)
    assert view.max_feret_um >= view.ecd_um
    picture = view.intensity.astype(float)
    assert np.isfinite(picture).all()
    edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    assert np.abs(edge - 1).max() < 0.05
    if ecd_um > 5:
        area = 2 * np.sqrt(view.true_mask.sum() / np.pi) * view.scene.um_per_px
        assert area == pytest.approx(view.ecd_um, rel=0.12, abs=0.7)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["silicone_oil", "protein_aggregate", "cellulose"])
def test_hundred_um_renders(family: str) -> None:
    rng = np.random.default_rng(2)
    (view,) = render_views(make_particle(family, rng, ecd_um=100.0, medium_n=1.337), OpticsScene(), rng, z_um=(0.0,))
    assert view.ecd_um == pytest.approx(100.0, rel=0.1)


def test_unknown_family_is_named_in_the_error() -> None:
    with pytest.raises(KeyError, match="silicone_oil"):
        make_particle("sand", np.random.default_rng(0), ecd_um=5.0, medium_n=1.337)


def same(a, b) -> bool:
    return (
        np.array_equal(a.intensity, b.intensity)
        and np.array_equal(a.true_mask, b.true_mask)
        and (a.ecd_um, a.z_um, a.field_x, a.field_y, a.family) == (b.ecd_um, b.z_um, b.field_x, b.field_y, b.family)
        and a.scene == b.scene
    )


def test_views_depend_on_the_seed_and_not_on_the_workers() -> None:
    kwargs = {"n_volumes": 11, "seed": 17, "views_per_volume": 2, "sizes": SMALL}
    one = list(generate_views(tuple(FAMILIES), workers=1, **kwargs))
    two = list(generate_views(tuple(FAMILIES), workers=2, **kwargs))
    assert len(one) == len(two) == 22
    assert all(same(a, b) for a, b in zip(one, two, strict=True))
    other = list(generate_views(tuple(FAMILIES), workers=1, **(kwargs | {"seed": 18})))
    assert not any(same(a, b) for a, b in zip(one, other, strict=True))


def test_sizes_do_not_tell_the_family() -> None:
    """The prior is drawn before anything that knows the family."""
    kwargs = {"n_volumes": 12, "seed": 3, "views_per_volume": 1, "sizes": SMALL}
    oil = [v.ecd_um for v in generate_views(["silicone_oil"], **kwargs)]
    bubble = [v.ecd_um for v in generate_views(["air_bubble"], **kwargs)]
    mimic = [v.ecd_um for v in generate_views(["protein_mimic"], **kwargs)]
    np.testing.assert_allclose(oil, bubble, rtol=0.1)
    np.testing.assert_allclose(mimic, bubble, rtol=0.2)


def test_held_out_optics_lie_outside_training() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        scene = draw_scene(rng, ranges=HELD_OUT)
        assert not 0.085 < scene.na < 0.130
        assert not 1.29 <= scene.um_per_px <= 1.37
        assert abs(scene.focus_offset_um) >= 28.0
        trained = draw_scene(rng, ranges=TRAINING)
        assert 0.085 <= trained.na <= 0.130
        assert abs(trained.focus_offset_um) <= 28.0
        assert trained.condenser_na <= 0.75 * trained.na
    assert draw_scene(rng, ranges=NOMINAL) == draw_scene(rng, ranges=NOMINAL)


def test_field_positions_stay_in_the_frame() -> None:
    rng = np.random.default_rng(0)
    places = np.array([draw_field(rng) for _ in range(500)])
    assert np.hypot(*places.T).max() <= 1.0
    assert np.abs(places[:, 0]).max() > 0.75


def test_views_share_one_focus_offset_per_scene() -> None:
    rng = np.random.default_rng(0)
    scene = dataclasses.replace(OpticsScene(), focus_offset_um=20.0)
    particle = make_particle("bead", rng, ecd_um=5.0, medium_n=1.337)
    z = [v.z_um for v in render_views(particle, scene, rng, n_views=40)]
    assert -30 <= min(z) < -10
    assert 50 < max(z) <= 70


def test_sprite_has_no_visible_edge_and_keeps_its_middle() -> None:
    rng = np.random.default_rng(0)
    particle = make_particle("protein_mimic", rng, ecd_um=12.0, medium_n=1.337)
    (view,) = render_views(particle, OpticsScene(), z_um=(30.0,), fields=[(0.5, 0.0)])
    patch, mask = encode(view)
    assert patch.shape == mask.shape
    assert mask.sum() == view.true_mask.sum()
    for edge in (patch[0], patch[-1], patch[:, 0], patch[:, -1]):
        assert (edge == 160).all()
    assert patch[mask].min() == pytest.approx(160 * float(view.intensity[view.true_mask].min()), abs=0.6)


def test_library_is_the_same_for_any_number_of_workers(tmp_path) -> None:
    kwargs = {"seed": 7_100_000, "per_family": 3, "families": ("silicone_oil", "bead")}
    for name, workers in (("a", 1), ("b", 2)):
        build_library(workers=workers, **kwargs).save(tmp_path / f"{name}.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_library_refuses_a_seed_of_training() -> None:
    with pytest.raises(ValueError, match="7,000,000"):
        build_library(seed=5, per_family=1)
