"""Write what a record holds to a file."""

from pathlib import Path

import click

from edge_app.recording.export import EXPORT_FORMATS, ExportFormat, export_table
from edge_app.recording.record_reader import open_record
from edge_app.recording.tables import TABLE_NAMES, TableName

__all__ = ["export"]


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--table", type=click.Choice(TABLE_NAMES), default="particles", show_default=True, help="What to write.")
@click.option(
    "--format", "file_format", type=click.Choice(EXPORT_FORMATS), default="csv", show_default=True, help="How."
)
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="File to write.")
@click.option("--run-id", help="Which record, where the folder holds several (default: the newest).")
def export(run: Path, table: TableName, file_format: ExportFormat, out: Path, run_id: str | None) -> None:
    """Write particles, windows or histogram of a run to a file.

    RUN is a run's folder or its record. mfi-csv writes the particles with the columns of an MFI's own export.

    Example: edge-app export runs/first --table particles --format csv -o particles.csv
    """
    with open_record(run, run_id=run_id) as record:
        export_table(record, table=table, format=file_format, out=out)
