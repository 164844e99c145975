"""Capture, segment, classify, count, record and publish."""

import json
import signal
import sys
from pathlib import Path
from typing import Any

import click

from edge_app.config import load_settings
from edge_app.measurement.window import Window
from edge_app.pipeline import Pipeline, RunRequest

__all__ = ["run"]


@click.command()
@click.argument("source")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Folder for the run record."
)
@click.option("--config", type=click.Path(path_type=Path), help="Settings file (TOML).")
@click.option("--frames", type=click.IntRange(min=0), help="At most this many frames.")
@click.option("--mqtt", help='Broker: mqtt://host:port, "embedded" (default) or "off".')
@click.option("--bundle", type=click.Path(path_type=Path), help="Model bundle instead of the shipped one.")
@click.option("--um-per-px", type=float, help="Scale, instead of what the source or the settings say.")
@click.option("--backend", help="Interpreter: auto, litert, tflite_runtime, edgetpu.")
@click.option("--sample", help="Sample id, kept in the record.")
@click.option("--operator", help="Who runs it, kept in the record.")
@click.option("--instrument-thresholds", is_flag=True, help="Segment by the export's own thresholds and background.")
@click.option("--live", is_flag=True, help="Show histograms in the terminal while it runs (as an MQTT subscriber).")
@click.option("--json", "as_json", is_flag=True, help="Last line of stdout is one JSON object.")
def run(
    source: str,
    out: Path,
    config: Path | None,
    frames: int | None,
    mqtt: str | None,
    bundle: Path | None,
    um_per_px: float | None,
    backend: str | None,
    sample: str | None,
    operator: str | None,
    instrument_thresholds: bool,
    live: bool,
    as_json: bool,
) -> None:
    """Capture, segment, classify and count; publish histograms; keep a run record.

    SOURCE is a URI: sim:, dir:PATH, watch:PATH, flowcam:PATH, mfi:PATH or video:PATH.

    \b
    Examples:
      edge-app run "sim:?concentration=175000&seed=1" --frames 100 --out runs/first --live
      edge-app run flowcam:exports/run1 --out runs/run1 --mqtt off --json
    """
    settings = load_settings(
        config,
        {
            "mqtt.url": mqtt,
            "classification.bundle": bundle,
            "classification.backend": backend,
            "flow_cell.um_per_px": um_per_px,
            "run.sample": sample,
            "run.operator": operator,
        },
    )
    request = RunRequest(source=source, out=out, frames=frames, instrument_thresholds=instrument_thresholds)
    result = drive(Pipeline(request, settings, on_message=lambda line: click.echo(line, err=True)), live=live)
    if as_json:
        click.echo(json.dumps(result))
    else:
        print_result(result)


def drive(pipeline: Pipeline, *, live: bool) -> dict[str, Any]:
    """Run a pipeline to its end; the first interrupt closes the run in order, with a progress bar on a terminal."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: pipeline.stop())
    if live:
        from edge_app.cli.live import run_with_view

        return run_with_view(pipeline)
    if not sys.stderr.isatty():
        return pipeline.run()
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("frames", total=pipeline.info.frames_total)

        def show(total: Window) -> None:
            done = total.frames + total.frames_rejected
            bar.update(task, completed=done, description=f"{total.particles} particles, frames")

        pipeline.on_window = show
        return pipeline.run()


def print_result(result: dict[str, Any]) -> None:
    """The run's numbers for a person, with the intervals that its report has."""
    from rich.console import Console
    from rich.table import Table

    from edge_app.measurement.histogram import REPORTING_EDGES_UM
    from edge_app.recording.record_reader import open_record
    from edge_app.reporting.number_text import interval_text, per_ml_text
    from edge_app.reporting.run_facts import all_sizes

    console = Console()
    lost = f"{result['frames_lost']} lost" if result["losses_known"] else "losses not known"
    console.print(
        f"[bold]{result['run_id']}[/]  {result['particles']:,} particles in {result['volume_ml'] * 1000:.1f} uL",
        soft_wrap=True,
    )
    console.print(
        f"{result['frames']:,} frames ({result['frames_rejected']} rejected, {lost}) in {result['seconds']:.1f} s: "
        f"{result['particles_per_min']:,.0f} particles/min",
        soft_wrap=True,
    )
    with open_record(Path(result["record"])) as record:
        _, cells = all_sizes(record)
    table = Table(box=None, pad_edge=False)
    table.add_column("size", no_wrap=True)
    table.add_column("per mL", justify="right", no_wrap=True)
    table.add_column("95 % interval", no_wrap=True)
    for size_um, cell in zip(REPORTING_EDGES_UM, cells, strict=True):
        found = cell.per_ml
        if found is None:
            table.add_row(f">= {size_um:g} um", "-", "" if cell.reported else "below reporting limit")
        else:
            table.add_row(f">= {size_um:g} um", per_ml_text(found.value), interval_text(found.low, found.high))
    classes = Table(box=None, pad_edge=False)
    classes.add_column("class")
    classes.add_column("particles", justify="right")
    for name, n in result["counts"].items():
        classes.add_row(name, f"{n:,}")
    side_by_side = Table.grid(padding=(0, 6))
    side_by_side.add_row(table, classes)
    console.print(side_by_side)
    if result["rejected"]:
        console.print("left out: " + ", ".join(f"{n:,} {reason}" for reason, n in result["rejected"].items()))
    for doubt in result["doubts"]:
        console.print(f"[yellow]{doubt}[/]", soft_wrap=True)
    console.print(f"record: {result['record']}", soft_wrap=True)
