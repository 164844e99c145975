"""Seconds of a simulated flow cell, from frames to a live histogram."""

import sys
from pathlib import Path

import click

from edge_app.cli.run import drive, print_result
from edge_app.config import load_settings
from edge_app.pipeline import Pipeline, RunRequest

__all__ = ["demo"]


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs/demo"),
    show_default=True,
    help="Folder for the run record.",
)
@click.option("--seconds", type=click.FloatRange(min=1), default=6.0, show_default=True, help="Length of the run.")
@click.option("--concentration", type=float, default=100_000.0, show_default=True, help="Particles per mL.")
@click.option("--seed", type=int, default=1, show_default=True, help="Another seed, other particles.")
def demo(out: Path, seconds: float, concentration: float, seed: int) -> None:
    """Run a simulated flow cell with a live histogram by class and size.

    Frames come at 10 Hz as from a camera; the picture in the terminal is what an MQTT subscriber sees.

    Example: edge-app demo --seconds 30 --concentration 175000
    """
    # A sample rich in sizes that tell classes apart: a few seconds of it fill the histogram.
    sizes = "size_law=lognormal&size_median_um=8"
    source = f"sim:?concentration={concentration:g}&{sizes}&seed={seed}&realtime=1&frames={round(seconds * 10)}"
    request = RunRequest(source=source, out=out)
    pipeline = Pipeline(request, load_settings(None), on_message=lambda line: click.echo(line, err=True))
    result = drive(pipeline, live=True)
    print_result(result)
    # As it was typed: after `make demo` the command is not on the path.
    command = sys.argv[0] if "/" in sys.argv[0] and not sys.argv[0].endswith(".py") else "edge-app"
    click.echo(
        "\nLook at the record:\n"
        f"  {command} report {out} -o report.html\n"
        f"  {command} export {out} --table particles --format csv -o particles.csv\n"
        "Another run, and another terminal to watch it from:\n"
        f'  {command} run "sim:?concentration=175000&realtime=1" --out runs/second\n'
        f"  {command} watch"
    )
