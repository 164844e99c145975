"""Make the report of a run."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from edge_app.cli.key_passphrase import key_passphrase
from edge_app.cli.record_choice import chosen_record
from edge_app.errors import UserError
from edge_app.measurement.limits import load_limits
from edge_app.measurement.verification_history import read_history
from edge_app.recording.atomic_file import atomic_file
from edge_app.recording.audit import utc_now
from edge_app.recording.signature import check_signable, check_signature, sign_report
from edge_app.reporting.pdf import write_pdf
from edge_app.reporting.report import ReportSignature, build_report

__all__ = ["report"]


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="HTML file (default: RUN_ID.html here).")
@click.option("--pdf", type=click.Path(path_type=Path), help="Write it as PDF too (needs Chromium).")
@click.option("--limits", multiple=True, help="Compare with these limits, e.g. usp-788; may be given several times.")
@click.option(
    "--limits-file", type=click.Path(path_type=Path), help="Limits of your own (TOML) instead of the shipped."
)
@click.option("--container-ml", type=float, help="Nominal content of a container, mL.")
@click.option("--discard-first", is_flag=True, help="Leave the first of several runs (aliquots) out of the mean.")
@click.option("--blank", type=click.Path(path_type=Path), help="Run of a blank: a table with it taken off.")
@click.option(
    "--history", type=click.Path(path_type=Path), help="Verifications (edge-app verify) instead of those in the record."
)
@click.option("--pictures/--no-pictures", default=True, show_default=True, help="Show particle pictures.")
@click.option("--sign", "signer", metavar="NAME", help="Sign the report electronically.")
@click.option("--meaning", help="What the signature means, e.g. review or approval.")
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    help="Ed25519 private key (PEM) to sign with; its passphrase is asked for, or EDGE_APP_KEY_PASSPHRASE.",
)
@click.option(
    "--countersign",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Sign this signed report of RUN as it is, beside the signatures that it has; no report is made.",
)
@click.option("--json", "as_json", is_flag=True, help="Last line of stdout is one JSON object.")
def report(
    runs: tuple[Path, ...],
    out: Path | None,
    pdf: Path | None,
    limits: tuple[str, ...],
    limits_file: Path | None,
    container_ml: float | None,
    discard_first: bool,
    blank: Path | None,
    history: Path | None,
    pictures: bool,
    signer: str | None,
    meaning: str | None,
    key: Path | None,
    countersign: Path | None,
    as_json: bool,
) -> None:
    """Make the report of a run, or of several aliquots of one sample.

    RUN is a run's folder or its record. The report is one HTML file that opens anywhere, loads nothing and prints to
    A4.

    \b
    Examples:
      edge-app report runs/first -o first.html --pdf first.pdf --limits usp-788 --container-ml 1
      edge-app report runs/first -o first.html --sign "A. Analyst" --meaning review
      edge-app report runs/first --countersign first.html --sign "B. Officer" --meaning approval
      edge-app report runs/a1 runs/a2 runs/a3 runs/a4 --discard-first --limits usp-787 --container-ml 2
    """
    if (signer is None) != (meaning is None):
        raise UserError("--sign and --meaning go together: who signs, and what for")
    if key is not None and signer is None:
        raise UserError("--key: a signature needs --sign and --meaning too")
    if countersign is not None and (signer is None or out is not None or pdf is not None):
        raise UserError("--countersign goes with --sign and --meaning, and makes no file: leave -o and --pdf out")
    records = [chosen_record(path) for path in runs]
    passphrase = None if key is None else key_passphrase(key)
    if signer is not None and meaning is not None:
        # Refused before a page says that it is signed.
        for record in records:
            check_signable(record, name=signer, meaning=meaning, key=key, passphrase=passphrase)
    if countersign is not None and signer is not None and meaning is not None:
        _countersign(records, countersign, name=signer, meaning=meaning, key=key, passphrase=passphrase)
        sha256 = hashlib.sha256(countersign.read_bytes()).hexdigest()
        result = {"files": [str(countersign)], "sha256": sha256, "signed": True, "warnings": []}
        click.echo(json.dumps(result) if as_json else f"{countersign}\nSHA-256 {sha256}")
        return
    warnings: list[str] = []
    html = build_report(
        records,
        limits=limits,
        container_ml=container_ml,
        discard_first=discard_first,
        pictures=pictures,
        blank=blank,
        history=None if history is None else _history(history),
        limit_table=None if limits_file is None else load_limits(limits_file),
        signature=None
        if signer is None or meaning is None
        else ReportSignature(name=signer, meaning=meaning, time=utc_now()),
        on_error_flag=lambda flag: warnings.append(f"{flag.title}: {flag.text}"),
    )
    for warning in warnings:
        click.echo(warning, err=True)
    out = out or Path(f"{records[0].stem}.html")
    with atomic_file(out) as file:
        file.write(html)
    written = [out]
    if pdf is not None:
        write_pdf(html, pdf)
        written.append(pdf)
    if signer is not None and meaning is not None:
        for path in written:
            for record in records:
                sign_report(record, path, name=signer, meaning=meaning, key=key, passphrase=passphrase)
    made = {
        "files": [str(p) for p in written],
        "sha256": hashlib.sha256(html).hexdigest(),
        "signed": signer is not None,
        "warnings": warnings,
    }
    if as_json:
        click.echo(json.dumps(made))
    else:
        for path in written:
            click.echo(f"{path}")
        click.echo(f"SHA-256 {made['sha256']}")


def _countersign(
    records: Sequence[Path], report: Path, *, name: str, meaning: str, key: Path | None, passphrase: bytes | None
) -> None:
    """Add a signature to a report in each of its records, where all of those that it has are good."""
    for record in records:
        verdict = check_signature(record, report)
        if not verdict.ok:
            raise UserError(f"{report}: is not countersigned: {verdict.problem}")
    for record in records:
        sign_report(record, report, name=name, meaning=meaning, key=key, passphrase=passphrase)


def _history(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise UserError(f"--history: {path} is no file")
    return read_history(path)
