"""``python -m converters`` (also ``edge-convert``): a bundle's float network to int8 again."""

from __future__ import annotations

from pathlib import Path

import click

from edge_app.classification.bundle import Bundle
from edge_app.cli.one_line_errors import OneLineErrors

__all__ = ["main"]


@click.group(cls=OneLineErrors, help="Convert trained networks for devices.")
def main() -> None:
    """Declare the commands."""


@main.command(epilog="Example: python -m converters tflite --bundle my-bundle --pictures crops -o model.tflite")
@click.option("--bundle", default=None, type=click.Path(path_type=Path), help="Bundle with float weights.")
@click.option("--pictures", required=True, type=click.Path(path_type=Path), help="Representative particle pictures.")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="TFLite file to write.")
@click.option("--um-per-px", default=None, type=float, help="Scale of the pictures. Default: that of the bundle.")
def tflite(bundle: Path | None, pictures: Path, out: Path, um_per_px: float | None) -> None:
    """Quantise a bundle's float network to full-integer int8 and check it against the float one."""
    from converters.requantise import requantise

    click.echo(requantise(Bundle.load(bundle), pictures, out, um_per_px=um_per_px))


if __name__ == "__main__":
    main()
