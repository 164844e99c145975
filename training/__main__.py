"""``python -m training`` (also ``edge-train``): fit, simulate-fit, evaluate, sprites."""

from __future__ import annotations

from pathlib import Path

import click

from edge_app.classification.bundle import SHIPPED, Bundle
from edge_app.cli.one_line_errors import OneLineErrors
from training.datasets.commands import data_command
from training.evaluation.commands import compare_command, evaluate_command

__all__ = ["main"]


@click.group(cls=OneLineErrors, help="Train, measure and rebuild the particle classifier.")
def main() -> None:
    """Declare the commands."""


main.add_command(data_command)
main.add_command(evaluate_command)
main.add_command(compare_command)


@main.command(epilog="Example: python -m training fit --data pictures --groups groups.csv --out my-bundle")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Folder with one folder per class.")
@click.option("--groups", required=True, type=click.Path(path_type=Path), help="CSV: file,group. Splits are by group.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Bundle folder to write.")
@click.option("--init", default=None, help="Bundle to start from, or none. Default: the shipped bundle.")
@click.option("--epochs", default=20, show_default=True, type=int)
@click.option("--um-per-px", default=None, type=float, help="Scale of the pictures. Default: that of the start.")
@click.option("--seed", default=1, show_default=True, type=int)
def fit(data: Path, groups: Path, out: Path, init: str | None, epochs: int, um_per_px: float | None, seed: int) -> None:
    """Train on your own labelled pictures; the result is a bundle for `classify` and `run`."""
    from training.fit import fit_folders

    start = None if init == "none" else Bundle.load(init)
    fit_folders(data, groups, out, init=start, epochs=epochs, um_per_px=um_per_px, seed=seed, report=click.echo)


@main.command("simulate-fit", epilog="Example: python -m training simulate-fit --out bundle --work work/simulate")
@click.option("--out", default=SHIPPED, show_default="the shipped bundle", type=click.Path(path_type=Path))
@click.option("--work", default=Path("work/simulate"), show_default=True, type=click.Path(path_type=Path))
@click.option("--share", default=1.0, show_default=True, type=click.FloatRange(0.001, 1), help="Share of the views.")
@click.option("--epochs", default=None, type=click.IntRange(1), help="Default: as shipped.")
@click.option("--samples", default=None, type=click.IntRange(128), help="Crops per epoch. Default: as shipped.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1))
def simulate_fit_command(
    out: Path, work: Path, share: float, epochs: int | None, samples: int | None, workers: int
) -> None:
    """Rebuild the shipped bundle from the optics simulator, with fixed seeds."""
    from training.simulated import SimulatedFit, simulate_fit

    options = SimulatedFit(share=share, workers=workers).with_schedule(epochs=epochs, samples=samples)
    simulate_fit(out, work=work, options=options, report=click.echo)


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
