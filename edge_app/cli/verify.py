"""Verify a run record's audit chain, or the system between calibrations."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

import click

from edge_app.cli.bead_input import open_bead_run
from edge_app.cli.record_choice import chosen_record
from edge_app.config import Settings, load_settings
from edge_app.errors import UserError
from edge_app.measurement.calibration import Calibration, load_calibration
from edge_app.measurement.certificate import Check
from edge_app.measurement.control_chart import ControlChart, charts_of, charts_svg, charts_text
from edge_app.measurement.four_digits import four_digits
from edge_app.measurement.suitability import (
    Suitability,
    check_beads,
    check_blank,
    check_calibration,
    read_limits,
)
from edge_app.measurement.verification_history import HISTORY_FILE, Entry, append_history, read_history, state_at
from edge_app.messaging.outbox import default_state_dir
from edge_app.recording.atomic_file import atomic_file
from edge_app.recording.audit import current_user, utc_now, verify_record
from edge_app.recording.signature import check_signature
from edge_app.reporting.number_text import age_text

__all__ = ["verify"]

SHOWN: Final = 20
"""So many verifications are listed on a terminal, the latest ones."""


@click.command()
@click.argument("run", type=click.Path(path_type=Path), required=False)
@click.option("--run-id", help="Which record, where the folder holds several (default: the newest).")
@click.option("--head", help="Hash of the last audit entry as it was kept elsewhere (printed, published with the run).")
@click.option(
    "--report", type=click.Path(path_type=Path), help="A signed report of RUN: are it and its signatures as signed?"
)
@click.option(
    "--trusted-key", type=click.Path(path_type=Path), help="Public key (PEM) that must have signed the report."
)
@click.option("--blank", help="Particle-free water: source URI or run record.")
@click.option("--beads", help="Bead standard: source URI or run record.")
@click.option("--limits", type=click.Path(path_type=Path), help="Limits (TOML): tables blank, beads, optics.")
@click.option("--calibration", type=click.Path(path_type=Path), help="Certificate; default: the one of the settings.")
@click.option("--config", type=click.Path(path_type=Path), help="Settings file (TOML).")
@click.option("--frames", type=click.IntRange(min=1), help="At most this many frames of each source.")
@click.option(
    "--history",
    metavar="[FILE]",
    is_flag=False,
    flag_value="",
    help="History of verifications (default: in the state folder); without --blank and --beads it is shown.",
)
@click.option("--chart", type=click.Path(path_type=Path), help="Write the control charts to this file (SVG).")
@click.option("--who", help="Name in the history; default: the user.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def verify(
    run: Path | None,
    run_id: str | None,
    head: str | None,
    report: Path | None,
    trusted_key: Path | None,
    blank: str | None,
    beads: str | None,
    limits: Path | None,
    calibration: Path | None,
    config: Path | None,
    frames: int | None,
    history: str | None,
    chart: Path | None,
    who: str | None,
    as_json: bool,
) -> None:
    """Verify a run record, a signed report, or the system between calibrations.

    RUN (folder or record): every row is checked against the audit chain; OK, or the first broken record. With --report:
    that, and whether the report is the one that was signed. With --blank
    and --beads: system suitability, pass or fail for each check, kept in a history with control charts. With --history
    alone: that history.
    Exit code 0: OK, or all checks passed; 1: broken, or a check failed (with --history: in the last verification);
    2: could not be verified.

    \b
    Examples:
      edge-app verify runs/first
      edge-app verify runs/first --report first.html
      edge-app verify --blank dir:water --beads dir:beads10 --limits lot_44021.toml --calibration calibration.json
      edge-app verify --history
    """
    place = Path(history) if history else default_state_dir() / HISTORY_FILE
    measured = blank is not None or beads is not None
    if (run is not None) + (measured or history is not None) != 1:
        raise UserError("verify takes either a RUN, or --blank and/or --beads, or --history")
    if report is not None and run is None:
        raise UserError("--report goes with the RUN that it reports on")
    if trusted_key is not None and report is None:
        raise UserError("--trusted-key goes with --report")
    if run is None and not measured:
        good = _show_history(place, chart=chart, as_json=as_json)
    elif run is not None:
        record = chosen_record(run, run_id)
        if report is not None:
            good = _verify_report(record, report, trusted_key=trusted_key, as_json=as_json)
        else:
            good = _verify_run(record, head=head, as_json=as_json)
    else:
        settings = load_settings(config)
        file = calibration or settings.flow_cell.calibration_file
        if file is None:
            raise UserError("verify needs --calibration FILE, or flow_cell.calibration_file in the settings")
        suitability = _suitability(
            settings, load_calibration(file), blank=blank, beads=beads, limits=limits, frames=frames, who=who
        )
        read_history(place)
        append_history(place, suitability)
        _show(suitability, place, chart=chart, as_json=as_json)
        good = suitability.passed
    if not good:
        raise click.exceptions.Exit(1)


def _verify_run(path: Path, *, head: str | None, as_json: bool) -> bool:
    verdict = verify_record(path, expected_head=head)
    if as_json:
        click.echo(json.dumps({"record": str(path), **vars(verdict)}))
    elif verdict.ok:
        state = "" if verdict.finished else "; the record is not closed: the run goes on, or its end is missing"
        click.echo(f"OK  {path.name}: {verdict.entries} audit entries, {verdict.windows} windows{state}")
        click.echo(f"head {verdict.head}")
    else:
        click.echo(f"BROKEN  {path.name}: {verdict.first_broken}")
    return verdict.ok


def _verify_report(record: Path, report: Path, *, trusted_key: Path | None, as_json: bool) -> bool:
    verdict = check_signature(record, report, trusted_key=trusted_key)
    if as_json:
        tree = {
            "record": str(record), "report": str(report), "ok": verdict.ok, "problem": verdict.problem,
            "signatures": [s.as_json() for s in verdict.signatures], "notes": list(verdict.notes),
        }  # fmt: skip
        click.echo(json.dumps(tree))
        return verdict.ok
    if verdict.ok:
        for s in verdict.signatures:
            click.echo(f"SIGNED  {report.name}: {s.name}, {s.meaning}, {s.time}")
    else:
        click.echo(f"NOT AS SIGNED  {verdict.problem}")
    for note in verdict.notes:
        click.echo(f"note: {note}")
    return verdict.ok


def _suitability(
    settings: Settings,
    calibration: Calibration,
    *,
    blank: str | None,
    beads: str | None,
    limits: Path | None,
    frames: int | None,
    who: str | None,
) -> Suitability:
    wanted, now = read_limits(limits), datetime.now(timezone.utc)
    checks: list[Check] = [check_calibration(calibration, now=now)]
    if blank is not None:
        read = open_bead_run(blank, settings=settings, frames=frames, calibration=calibration)
        checks += check_blank(read, calibration, wanted.blank)
    if beads is not None:
        read = open_bead_run(beads, settings=settings, frames=frames, calibration=calibration)
        checks += check_beads(read, calibration, wanted)
    return Suitability(
        time=utc_now(),
        who=who or settings.run.operator or current_user(),
        calibration_id=calibration.id,
        calibration_state=calibration.state(now),
        lot=wanted.beads.lot if beads is not None else "",
        checks=tuple(checks),
    )


def _show(suitability: Suitability, history: Path, *, chart: Path | None, as_json: bool) -> None:
    charts = _charts(read_history(history), chart)
    if as_json:
        signals = {c.name: c.signal for c in charts if c.signal}
        click.echo(json.dumps({**suitability.tree(), "history": str(history), "signals": signals}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("check", "found", "allowed", "result"):
        table.add_column(column)
    words = {True: "[green]pass[/]", False: "[red]FAIL[/]", None: "-"}
    for check in suitability.checks:
        found = "-" if check.value is None else f"{four_digits(check.value)} {check.unit}".strip()
        table.add_row(check.name, found, check.limit, words[check.passed])
    console = Console()
    console.print(table)
    console.print(
        f"[bold]{'suitable' if suitability.passed else 'NOT suitable'}[/] by calibration {suitability.calibration_id}"
    )
    click.echo(f"\nOver time ({history}):\n{charts_text(charts)}")


def _charts(history: Sequence[Entry], file: Path | None) -> list[ControlChart]:
    charts = charts_of(history)
    if file is not None:
        with atomic_file(file) as out:
            out.write(charts_svg(charts).encode())
    return charts


def _show_history(path: Path, *, chart: Path | None, as_json: bool) -> bool:
    """All verifications with their control charts; whether the last one was passed."""
    history = read_history(path)
    if not history:
        raise UserError(f"{path}: no verification yet; edge-app verify --blank ... --beads ... makes one")
    charts, state = _charts(history, chart), state_at(history, datetime.now(timezone.utc))
    last, age_days = history[-1], state.age_days or 0.0
    if as_json:
        found = {
            "history": str(path), "last": last["time"], "passed": last["passed"], "age_days": round(age_days, 3),
            "verifications": history, "charts": [asdict(c) for c in charts],
        }  # fmt: skip
        click.echo(json.dumps(found))
        return bool(last["passed"])
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("time (UTC)", "result", "calibration", "lot", "who", "failed"):
        table.add_column(column, overflow="fold")
    for entry in history[-SHOWN:]:
        failed = ", ".join(c["name"] for c in entry["checks"] if c["passed"] is False)
        words = "[green]pass[/]" if entry["passed"] else "[red]FAIL[/]"
        time = str(entry["time"]).replace("T", " ")[:16]
        table.add_row(time, words, entry["calibration_id"], entry["lot"] or "-", entry["who"], failed or "-")
    console = Console()
    console.print(table)
    left = len(history) - SHOWN
    if left > 0:
        console.print(f"and {left} earlier")
    result = "[green]passed[/]" if last["passed"] else "[red]FAILED[/]"
    console.print(f"[bold]last verification {result}[/], {age_text(age_days)} ago")
    click.echo(f"\nOver time ({path}):\n{charts_text(charts)}")
    return bool(last["passed"])
