"""``python -m training evaluate`` and ``python -m training compare``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from edge_app.errors import UserError

__all__ = ["compare_command", "evaluate_command"]


def _data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What to measure on: labelled pictures or simulated views."""
    for option in reversed(
        (
            click.option("--data", help="Folder with one folder per class, flowcam:PATH with labels, or sim:held-out."),
            click.option(
                "--groups", type=click.Path(path_type=Path), help="CSV: file,group. Intervals are over groups."
            ),
            click.option("--group-by", metavar="folder[:N]", help="Group: the folder N levels below the class folder."),
            click.option("--group-regex", metavar="PATTERN", help="Group: what the brackets match in the file's path."),
            click.option("--um-per-px", type=float, help="Scale of the pictures. Default: that of the bundle."),
            click.option(
                "--simulated",
                type=click.Choice(["test", "heldout"]),
                help="Simulated views instead: unseen seeds, or unseen optics too.",
            ),
            click.option(
                "--work",
                default=Path("work/simulate"),
                show_default=True,
                type=click.Path(path_type=Path),
                help="Where simulated views are kept; what is missing is rendered.",
            ),
            click.option(
                "--share", default=1.0, show_default=True, type=click.FloatRange(0.001, 1), help="Share of the views."
            ),
            click.option(
                "--workers", default=1, show_default=True, type=click.IntRange(1), help="Processes that render."
            ),
        )
    ):
        command = option(command)
    return command


@click.command(
    "evaluate",
    epilog="Example: python -m training evaluate --data pictures --groups groups.csv --bundle my-bundle --out report",
)
@_data_options
@click.option("--bundle", default=None, type=click.Path(path_type=Path), help="Default: the shipped bundle.")
@click.option(
    "--unknown", type=click.Path(path_type=Path), help="Folder of pictures of particles that are none of the classes."
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for evaluation.html, evaluation.json, MODEL_CARD.md."
)
def evaluate_command(bundle: Path | None, unknown: Path | None, out: Path | None, **where: Any) -> None:
    """Measure a bundle on labelled pictures or simulated views; prints JSON, writes a report.

    A folder named for no class of the bundle is the rest.
    """
    from edge_app.classification.bundle import Bundle
    from training.evaluation.measured_data import open_data
    from training.evaluation.output import write_evaluation
    from training.evaluation.summary import pictures_summary, study_summary

    if where["simulated"] is not None and out is None:
        raise UserError("--simulated needs --out: the folder for the report")
    if where["simulated"] is not None and unknown is not None:
        raise UserError("--unknown is given with --simulated, which has unknown particles of its own; leave it out")
    chosen = Bundle.load(bundle)
    data = open_data(where, um_per_px=chosen.geometry.um_per_px, report=_progress)
    if data.pictures is not None:
        summary = pictures_summary(data.pictures, chosen)
        if out is not None:
            write_evaluation(out, chosen, data, unknown=unknown, report=_progress)
    else:
        assert out is not None
        summary = study_summary(write_evaluation(out, chosen, data, unknown=None, report=_progress))
    click.echo(json.dumps(summary, indent=1))


@click.command(
    "compare", epilog="Example: python -m training compare bundle-a bundle-b --simulated heldout --out comparison"
)
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@_data_options
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder for comparison.html and comparison.json."
)
def compare_command(first: Path, second: Path, out: Path, **where: Any) -> None:
    """Set two bundles side by side on the same pictures, with a paired test; prints JSON, writes a report.

    FIRST and SECOND are bundle folders; "shipped" is the one that is installed.
    """
    from edge_app.classification.bundle import Bundle
    from training.evaluation.measured_data import open_data
    from training.evaluation.output import write_comparison

    bundles = [Bundle.load(None if str(path) == "shipped" else path) for path in (first, second)]
    data = open_data(where, um_per_px=bundles[0].geometry.um_per_px, report=_progress)
    figures = write_comparison(out, bundles[0], bundles[1], data, report=_progress)
    keys = ("macro_f1_gain", "better", "mcnemar")
    scores = [{"name": b["name"], "version": b["version"], "macro_f1": b["macro_f1"]} for b in figures["bundles"]]
    click.echo(json.dumps({"bundles": scores, **{k: figures[k] for k in keys}}, indent=1))


def _progress(line: str) -> None:
    click.echo(line, err=True)
