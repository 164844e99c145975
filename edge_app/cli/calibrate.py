"""Calibrate with bead standards: a wizard on a terminal, or one command for a script."""

import json
import sys
from pathlib import Path

import click

from edge_app.cli.bead_input import open_bead_run
from edge_app.config import Settings, load_settings
from edge_app.errors import UserError
from edge_app.measurement.bead_run import BeadRun
from edge_app.measurement.calibration import SizeRule
from edge_app.measurement.certificate import (
    STANDARD_SIZES_UM,
    BeadStandard,
    CalibrationSettings,
    Certificate,
    parse_beads,
    read_plan,
    refusal_of,
)
from edge_app.measurement.certificate import (
    calibrate as make_certificate,
)
from edge_app.measurement.certificate_text import certificate_markdown
from edge_app.messaging.outbox import default_state_dir
from edge_app.recording.atomic_file import atomic_file
from edge_app.recording.audit import current_user

__all__ = ["calibrate"]


@click.command()
@click.option(
    "--beads",
    multiple=True,
    metavar="NOMINAL:CERTIFIED:U:SOURCE[#LOT]",
    help="A bead lot: nominal and certified diameter, its expanded uncertainty (k = 2), um; source URI or run record.",
)
@click.option("--plan", type=click.Path(path_type=Path), help="Bead lots as a TOML file, a [[beads]] table each.")
@click.option("--out", type=click.Path(path_type=Path), help="File for the certificate (JSON); .md is put beside it.")
@click.option("--folder", type=click.Path(path_type=Path), help="Calibrations folder; default: in the state folder.")
@click.option("--config", type=click.Path(path_type=Path), help="Settings file (TOML): segmentation, scale, depth.")
@click.option("--frames", type=click.IntRange(min=1), help="At most this many frames of each source.")
@click.option("--um-per-px", type=float, help="Scale, instead of what the source or the settings say.")
@click.option("--depth-um", type=float, help="Inner depth of the cell.")
@click.option(
    "--size-rule",
    type=click.Choice(["half_max", "mask", "learned"]),
    help="What sizes are read by (learned: by the network of the settings); default: flow_cell.size_rule of the "
    "settings, else half_max.",
)
@click.option("--valid-days", type=click.IntRange(1, 3650), default=90, show_default=True)
@click.option("--who", help="Name in the certificate; default: the user.")
@click.option("--instrument", default="", help="Instrument in the certificate.")
@click.option("--wizard", is_flag=True, help="Go step by step; default on a terminal without --beads and --plan.")
@click.option("--json", "as_json", is_flag=True, help="Print the certificate as JSON.")
def calibrate(
    beads: tuple[str, ...],
    plan: Path | None,
    out: Path | None,
    folder: Path | None,
    config: Path | None,
    frames: int | None,
    um_per_px: float | None,
    depth_um: float | None,
    size_rule: SizeRule | None,
    valid_days: int,
    who: str | None,
    instrument: str,
    wizard: bool,
    as_json: bool,
) -> None:
    """Calibrate with bead standards; write a certificate that runs can name.

    Without --beads or --plan a wizard says what to do next. Exit code 0: calibrated, all checks passed; 1: calibrated,
    a check failed; 2: refused, with the reason.

    \b
    Examples:
      edge-app calibrate
      edge-app calibrate --beads 5:4.99:0.04:runs/b5#A1 --beads 10:9.98:0.05:runs/b10#B7 \\
          --beads 25:25.1:0.2:runs/b25#C2 --out calibration.json
      edge-app run SOURCE --config settings.toml      # with flow_cell.calibration_file = "calibration.json"
    """
    settings = load_settings(config, {"flow_cell.um_per_px": um_per_px, "flow_cell.depth_um": depth_um})
    rule = size_rule or settings.flow_cell.size_rule or CalibrationSettings().size_rule
    options = CalibrationSettings(size_rule=rule, valid_days=valid_days)
    standards = [parse_beads(text) for text in beads]
    name = who or settings.run.operator
    if plan is not None:
        found = read_plan(plan)
        standards += found.beads
        name, instrument = name or found.who, instrument or found.instrument
    name = name or current_user()
    if wizard or (not standards and sys.stdin.isatty()):
        lots, name, instrument = _wizard(settings, options, frames=frames, who=name, instrument=instrument)
    elif standards:
        lots = [(s, _read(s, settings, frames, rule)) for s in standards]
    else:
        raise UserError("calibrate needs --beads or --plan (or a terminal, for the wizard)")
    certificate = make_certificate(lots, settings=options, who=name, instrument=instrument)
    written = _write(certificate, out=out, folder=folder or default_state_dir() / "calibrations")
    if as_json:
        click.echo(json.dumps(certificate.tree()))
    else:
        click.echo(certificate_markdown(certificate))
        click.echo(f'Use it: [flow_cell] calibration_file = "{written}"')
    if not certificate.passed:
        raise click.exceptions.Exit(1)


def _read(standard: BeadStandard, settings: Settings, frames: int | None, rule: SizeRule) -> BeadRun:
    click.echo(f"{standard.name}: reading {standard.source}", err=True)
    return open_bead_run(standard.source, settings=settings, frames=frames, size_rule=rule)


def _write(certificate: Certificate, *, out: Path | None, folder: Path) -> Path:
    """Keep the certificate in the calibrations folder, and where it was asked for; returns the latter."""
    text = certificate_markdown(certificate).encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: calibrations folder cannot be made ({error.strerror})") from error
    kept = folder / f"{certificate.id}.json"
    for path in (kept, *(() if out is None else (out,))):
        with atomic_file(path) as file:
            file.write(certificate.json_bytes())
        with atomic_file(path.with_suffix(".md")) as file:
            file.write(text)
    return (out or kept).resolve()


def _wizard(
    settings: Settings, options: CalibrationSettings, *, frames: int | None, who: str, instrument: str
) -> tuple[list[tuple[BeadStandard, BeadRun]], str, str]:
    """Lead through the lots, one after the other; a lot that is refused is tried again."""
    from rich.console import Console
    from rich.panel import Panel

    console = Console(stderr=True)
    console.print(
        Panel(
            "You need polystyrene beads of three sizes or more, best 5, 10, 15, 25 and 50 um (2 um if you report it),\n"
            "their certificates, and filtered water. Small beads first. Nothing is written before the\n"
            "end; Ctrl-C stops.",
            title="Calibration",
        )
    )
    who = click.prompt("Your name", default=who, err=True)
    instrument = click.prompt("Instrument", default=instrument or "-", err=True)
    lots: list[tuple[BeadStandard, BeadRun]] = []
    while True:
        done = {s.nominal_um for s, _ in lots}
        left = [s for s in STANDARD_SIZES_UM[1:] if s not in done]
        console.rule(f"lot {len(lots) + 1}")
        if len(lots) >= options.min_lots and not click.confirm("Another bead size?", default=bool(left), err=True):
            return lots, who, "" if instrument == "-" else instrument
        console.print(
            "[bold]1.[/] Flush the cell with filtered water.  [bold]2.[/] Swirl the bottle, sonicate 30 s, let bubbles "
            "rise.\n[bold]3.[/] Load the beads and start the flow."
        )
        nominal = click.prompt("Nominal size, um", type=float, default=left[0] if left else None, err=True)
        certified = click.prompt("Certified mean diameter, um", type=float, err=True)
        uncertainty = click.prompt("Its expanded uncertainty (k = 2), um", type=float, err=True)
        lot = click.prompt("Lot number", default="-", err=True)
        source = click.prompt("Frames from (source URI, or run record)", err=True)
        standard = parse_beads(f"{nominal}:{certified}:{uncertainty}:{source}" + ("" if lot == "-" else f"#{lot}"))
        try:
            with console.status("reading and fitting"):
                run = open_bead_run(standard.source, settings=settings, frames=frames, size_rule=options.size_rule)
                reason = refusal_of(standard, run, options)
        except UserError as error:
            reason = str(error)
        if reason is None:
            lots.append((standard, run))
            console.print(f"[green]{standard.name}: good[/], {len(run.particles)} particles in {run.frames} frames")
        else:
            console.print(f"[red]{reason}[/]\nNot taken: put it right and run this size again, or take another one.")
