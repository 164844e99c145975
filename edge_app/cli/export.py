"""Write what a record holds to a file."""

from pathlib import Path

import click

from edge_app.errors import UserError
from edge_app.recording.export import EXPORT_FORMATS, ExportFormat, export_table
from edge_app.recording.record_reader import open_record
from edge_app.recording.tables import TABLE_NAMES, TableName
from edge_app.recording.track_table import parse_rule, read_tracks

__all__ = ["export"]


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--table", type=click.Choice(TABLE_NAMES), default="particles", show_default=True, help="What to write.")
@click.option(
    "--format", "file_format", type=click.Choice(EXPORT_FORMATS), default="csv", show_default=True, help="How."
)
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="File to write.")
@click.option(
    "--track-rule",
    "track_rule",
    multiple=True,
    metavar="KEY=VALUE",
    help="For --table tracks, several times: which images are of one particle, for example along_um=1500.",
)
@click.option("--run-id", help="Which record, where the folder holds several (default: the newest).")
def export(
    run: Path, table: TableName, file_format: ExportFormat, out: Path, track_rule: tuple[str, ...], run_id: str | None
) -> None:
    """Write particles, windows, histogram or tracks of a run to a file.

    RUN is a run's folder or its record. mfi-csv writes the particles with the columns of an MFI's own export. tracks
    joins the images of each particle over frames (NIST-style) and says how many distinct ones there were; the run's
    own counts are not touched.

    Example: edge-app export runs/first --table particles --format csv -o particles.csv
    """
    rule = parse_rule(track_rule)
    if track_rule and table != "tracks":
        raise UserError("--track-rule: is for --table tracks")
    with open_record(run, run_id=run_id) as record:
        export_table(record, table=table, format=file_format, out=out, track_rule=rule)
        if table == "tracks":
            for line in read_tracks(record, rule).lines():
                click.echo(line)
