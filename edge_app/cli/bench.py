"""How many particles per minute this machine manages."""

import json
from pathlib import Path
from typing import Any

import click

from edge_app.config import load_settings
from edge_app.speed import LINE_RATE_PER_MIN, SpeedRequest, measure_speed

__all__ = ["bench"]

DEFAULTS = SpeedRequest()


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Last line of stdout is one JSON object.")
@click.option("--config", type=click.Path(path_type=Path), help="Settings file (TOML).")
@click.option("--bundle", type=click.Path(path_type=Path), help="Model bundle instead of the shipped one.")
@click.option("--backend", help="Interpreter: auto, litert, tflite_runtime, edgetpu.")
@click.option("--threads", type=click.IntRange(1, 64), help="Threads of one call of the interpreter.")
@click.option("--concentration", type=float, default=DEFAULTS.concentration_per_ml, show_default=True, help="Per mL.")
@click.option("--frames", type=click.IntRange(20), default=DEFAULTS.frames, show_default=True, help="Per repeat.")
@click.option("--repeats", type=click.IntRange(1), default=DEFAULTS.repeats, show_default=True)
def bench(
    as_json: bool,
    config: Path | None,
    bundle: Path | None,
    backend: str | None,
    threads: int | None,
    concentration: float,
    frames: int,
    repeats: int,
) -> None:
    """Measure how many particles per minute this machine manages.

    Simulated frames (1280 x 1024, 175,000 particles per mL) are composed first and shown from memory, so that only the
    loop is timed: background, masks, measures, classes, histograms, windows. Medians over the repeats.

    \b
    Examples:
      edge-app bench
      edge-app bench --json --backend litert
    """
    settings = load_settings(
        config,
        {
            # A broker of the lab must not see a measurement's windows.
            "mqtt.url": "embedded",
            "classification.bundle": bundle,
            "classification.backend": backend,
            "classification.threads": threads,
        },
    )
    request = SpeedRequest(concentration_per_ml=concentration, frames=frames, repeats=repeats)
    result = measure_speed(request, settings, tell=lambda line: click.echo(f"{line} ...", err=True))
    if as_json:
        click.echo(json.dumps(result))
    else:
        _print(result)


def _print(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column("what")
    table.add_column("value", justify="right")
    table.add_row(
        "[bold]loop, frames in memory to closed windows[/]",
        f"[bold]{result['loop_particles_per_min']:,} particles/min[/]",
    )
    table.add_row(f"  of line rate ({LINE_RATE_PER_MIN:,}/min)", f"{result['line_rate_multiple']:g} x")
    table.add_row("  frames", f"{result['loop_frames_per_s']:g} /s")
    table.add_row("  share of what its parts allow", f"{result['loop_share_of_parts']:.0%}")
    table.add_row("segmentation and measures alone", f"{result['segmentation_frames_per_s']:g} frames/s")
    table.add_row("classifier alone", f"{result['classifier_particles_per_min']:,} particles/min")
    table.add_row("whole run with record and messages", f"{result['run_particles_per_min']:,} particles/min")
    table.add_row(
        "frame in to particles counted, at line rate", f"p50 {result['p50_ms']:g}, p99 {result['p99_ms']:g} ms"
    )
    for stage, spent in result["stage_ms"].items():
        table.add_row(f"  {stage}, joined", f"{spent:g} ms/frame")
    table.add_row("memory", f"{result['rss_mb']:g} MB")
    table.add_row("back end", f"{result['backend']}, {result['threads']} thread(s), {result['cores']} cores")
    Console().print(table)
