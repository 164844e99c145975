"""``python -m training data``: what a data set holds, before anything is trained on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

__all__ = ["data_command", "data_options"]


def data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of every command that reads labelled pictures: keywords of `open_dataset`, and the split.

    The command takes ``data``, ``groups``, ``group_by``, ``group_regex``, ``um_per_px``.
    """
    for option in reversed(
        (
            click.option(
                "--data",
                required=True,
                help="Folder with one folder per class, flowcam:PATH with labels, or sim:training?particles=200.",
            ),
            click.option(
                "--groups",
                type=click.Path(path_type=Path),
                help="CSV: file,group. Splits are by group, never by picture.",
            ),
            click.option("--group-by", metavar="folder[:N]", help="Group: the folder N levels below the class folder."),
            click.option("--group-regex", metavar="PATTERN", help="Group: what the brackets match in the file's path."),
            click.option(
                "--um-per-px",
                type=float,
                help="Scale of the pictures. Default: that of the export, else that of the bundle.",
            ),
        )
    ):
        command = option(command)
    return command


@click.command(
    "data",
    epilog="Example: python -m training data --data pictures --groups groups.csv --sheet pictures.png",
)
@data_options
@click.option(
    "--split", type=click.Path(path_type=Path), help="CSV: group,side or file,side to check against the data."
)
@click.option("--sheet", type=click.Path(path_type=Path), help="Write a picture with examples of every class.")
@click.option("--refuse-duplicates", is_flag=True, help="End with exit code 2 if copies are in different groups.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def data_command(
    data: str,
    groups: Path | None,
    group_by: str | None,
    group_regex: str | None,
    um_per_px: float | None,
    split: Path | None,
    sheet: Path | None,
    refuse_duplicates: bool,
    as_json: bool,
) -> None:
    """Count a data set per class, group and size, find copies, and draw it."""
    from rich.console import Console

    from edge_app.errors import UserError
    from training.datasets.contact_sheet import draw_contact_sheet
    from training.datasets.sources import open_dataset
    from training.datasets.splits import duplicates_of, split_pictures, warn_of_duplicates
    from training.datasets.summary import print_summary, summarise

    pictures = open_dataset(data, groups=groups, group_by=group_by, group_regex=group_regex, um_per_px=um_per_px)
    duplicates = duplicates_of(pictures)
    summary = summarise(pictures, duplicates, source=data)
    across = duplicates.across_groups()
    if refuse_duplicates and across:
        raise UserError(f"{len(across)} pair(s) of copies across groups, refused: {duplicates.describe(across[0])}")
    lines: list[str] = []
    found = summary.as_json()
    if split is not None:
        train, test = split_pictures(pictures, split=split)
        lines = [f"split: {int(train.sum())} pictures to train, {int(test.sum())} to measure, no group on both sides"]
        lines += warn_of_duplicates(duplicates, train, test)
        found["split"] = {"train": int(train.sum()), "test": int(test.sum())} | duplicates.record(train)
    if sheet is not None:
        draw_contact_sheet(pictures, sheet, duplicates=duplicates)
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    print_summary(summary, Console())
    for line in lines:
        click.echo(line)
    if sheet is not None:
        click.echo(f"{sheet}: contact sheet")
