"""The frames of an earlier run once more: a new record, linked, and both side by side."""

import json
from pathlib import Path
from typing import Any

import click

from edge_app.cli.run import drive
from edge_app.reanalysis import Reanalysis, ReanalysisRequest
from edge_app.reanalysis import reanalyse as analyse_again
from edge_app.recording.atomic_file import atomic_file
from edge_app.recording.difference import ALL, Difference, change_text
from edge_app.recording.difference_page import difference_page

__all__ = ["reanalyse"]

FILE = click.Path(path_type=Path)


@click.command()
@click.argument("run", type=FILE)
@click.option("--out", type=FILE, required=True, help="Folder for the new record and the difference.")
@click.option("--reason", required=True, help="Why; kept in both records.")
@click.option("--config", type=FILE, help="Settings file (TOML): its keys replace the run's, all others stay.")
@click.option("--bundle", type=FILE, help="Model bundle instead of the run's.")
@click.option("--calibration", type=FILE, help="Calibration (JSON) instead of the run's.")
@click.option("--source", help="URI of the frames, if they were moved since.")
@click.option(
    "--allow-different-frames", is_flag=True, help="Go on if the frames are not those of the run; the record says so."
)
@click.option("--json", "as_json", is_flag=True, help="Last line of stdout is one JSON object.")
def reanalyse(
    run: Path,
    out: Path,
    reason: str,
    config: Path | None,
    bundle: Path | None,
    calibration: Path | None,
    source: str | None,
    allow_different_frames: bool,
    as_json: bool,
) -> None:
    """Analyse the frames of a run again; never overwrites anything.

    RUN is a run's folder or its record. Makes a new record that names RUN as its parent, and RUN_ID-difference.json
    and .html beside it. Nothing is published.

    Example: edge-app reanalyse runs/first --calibration beads.json --reason "bead calibration of 21 November" --out
    runs/again
    """
    request = ReanalysisRequest(
        parent=run,
        out=out,
        reason=reason,
        config=config,
        bundle=bundle,
        calibration=calibration,
        source=source,
        allow_different_frames=allow_different_frames,
    )
    made = analyse_again(
        request,
        drive=lambda pipeline: drive(pipeline, live=False),
        on_message=lambda line: click.echo(line, err=True),
    )
    data, page = (made.record.with_name(f"{made.record.stem}-difference.{kind}") for kind in ("json", "html"))
    with atomic_file(data) as file:
        file.write(json.dumps(made.difference.as_json(), indent=1).encode() + b"\n")
    with atomic_file(page) as file:
        file.write(difference_page(made.difference).encode())
    if as_json:
        click.echo(json.dumps(as_object(made, data, page)))
    else:
        print_difference(made.difference)
        click.echo(f"record: {made.record}\ndifference: {page}")


def as_object(made: Reanalysis, data: Path, page: Path) -> dict[str, Any]:
    """What ``--json`` prints."""
    return {
        **made.result,
        "parent": made.difference.parent.run_id,
        "difference": made.difference.as_json(),
        "difference_json": str(data),
        "difference_html": str(page),
    }


def print_difference(difference: Difference) -> None:
    """Both records side by side for a person."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    d, console = difference, Console()
    console.print(f"[bold]{d.child.run_id}[/]  reanalysis of {d.parent.run_id}: {escape(d.reason)}")
    if not d.frames_agree:
        console.print("[yellow]the frames are not shown to be the same[/]")
    if d.same_numbers:
        console.print("every number is the same")

    def table(*columns: str) -> Table:
        made = Table(box=None, pad_edge=False)
        for i, name in enumerate(columns):
            made.add_column(name, justify="right" if i else "left", no_wrap=True)
        return made

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:,.0f}"

    sizes = table("per mL", "parent", "child", "change")
    for s in d.sizes:
        before, after = d.parent.per_ml[ALL][s], d.child.per_ml[ALL][s]
        sizes.add_row(f">= {s} um", number(before), number(after), change_text(before, after))
    classes = table("particles", "parent", "child", "change", "per mL >= 10 um: parent", "child")
    for name in d.classes:
        if name != ALL:
            before, after = d.parent.counts.get(name, 0), d.child.counts.get(name, 0)
            large = [number(r.per_ml.get(name, {}).get("10")) for r in (d.parent, d.child)]
            classes.add_row(name, number(before), number(after), change_text(before, after), *large)
    console.print(sizes)
    console.print(classes)
    reasons = dict.fromkeys([*d.parent.rejected, *d.child.rejected])
    if reasons:
        pairs = (f"{d.parent.rejected.get(r, 0):,} -> {d.child.rejected.get(r, 0):,} {r}" for r in reasons)
        console.print("left out: " + ", ".join(pairs))
    m = d.particles
    moved = sum(m.reclassified.values())
    console.print(
        f"particles: {m.same_box:,} with the same box ({m.resized:,} resized, {moved:,} of another class),"
        f" {m.only_parent:,} in the parent alone, {m.only_child:,} in the child alone"
    )
    for change in (*d.steps, *d.settings):
        values = (escape(v) if v else "-" for v in (change.parent, change.child))
        console.print(f"changed: [bold]{change.name}[/]  {' [bold]->[/] '.join(values)}", soft_wrap=True)
