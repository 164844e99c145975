"""``python -m training`` (also ``edge-train``): from labelled pictures or the simulator to a bundle and its figures."""

from __future__ import annotations

from pathlib import Path

import click

from edge_app.cli.one_line_errors import OneLineErrors
from training.datasets.commands import data_command
from training.evaluation.commands import compare_command, evaluate_command
from training.fitting.commands import crossvalidate_command, fit_command, grid_command, simulate_fit_command

__all__ = ["main"]


@click.group(cls=OneLineErrors, help="Train, measure and rebuild the particle classifier.")
def main() -> None:
    """Declare the commands."""


main.add_command(data_command)
main.add_command(fit_command)
main.add_command(grid_command)
main.add_command(crossvalidate_command)
main.add_command(simulate_fit_command)
main.add_command(evaluate_command)
main.add_command(compare_command)


@main.command(epilog="Example: python -m training sprites --out sprites.npz")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Library file to write.")
@click.option("--optics", default="nominal", show_default=True, type=click.Choice(["nominal", "held-out"]))
@click.option("--per-family", default=300, show_default=True, type=click.IntRange(1), help="Particles per family.")
@click.option("--seed", default=7_000_000, show_default=True, type=int)
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1))
def sprites(out: Path, optics: str, per_family: int, seed: int, workers: int) -> None:
    """Render the sprite library that the simulated flow cell composes its frames from."""
    from training.optics.build_sprites import build_library
    from training.optics.scene import RANGES

    library = build_library(seed=seed, ranges=RANGES[optics], per_family=per_family, workers=workers)
    library.save(out)
    click.echo(f"{out}: {len(library)} sprites, {out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
