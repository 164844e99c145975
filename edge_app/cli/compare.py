"""Compare two runs."""

import json
from pathlib import Path

import click

from edge_app.cli.record_choice import chosen_record
from edge_app.recording.atomic_file import atomic_file
from edge_app.reporting.comparison import RunComparison, compare_runs, comparison_tree, descriptor_text
from edge_app.reporting.comparison_page import comparison_page
from edge_app.reporting.number_text import class_text, interval_text, per_ml_text
from edge_app.reporting.pdf import write_pdf

__all__ = ["compare"]


@click.command()
@click.argument("run_a", type=click.Path(path_type=Path))
@click.argument("run_b", type=click.Path(path_type=Path))
@click.option("--html", type=click.Path(path_type=Path), help="Write the comparison as one HTML file.")
@click.option("--pdf", type=click.Path(path_type=Path), help="Write it as PDF (needs Chromium).")
@click.option("--class", "class_name", default="all", show_default=True, help="Compare this class alone.")
@click.option("--from-um", type=float, help="Smallest size compared (default: the larger reporting limit).")
@click.option("--permutations", type=click.IntRange(99, 99_999), default=999, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the permutations.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def compare(
    run_a: Path,
    run_b: Path,
    html: Path | None,
    pdf: Path | None,
    class_name: str,
    from_um: float | None,
    permutations: int,
    seed: int,
    as_json: bool,
) -> None:
    """Compare two lots, two instruments, or a lot with itself a year later.

    RUN_A and RUN_B are runs' folders or records. Size, shape and contrast are compared by their effect, with a p-value
    beside it; concentrations and composition with intervals of their difference. What was not the same for both (the
    calibration, the model, the settings) is said first.

    \b
    Examples:
      edge-app compare runs/lot_1 runs/lot_2 --html comparison.html --pdf comparison.pdf
      edge-app compare runs/lot_1 runs/lot_2 --class protein_aggregate --from-um 10 --json
    """
    found = compare_runs(
        chosen_record(run_a), chosen_record(run_b), class_name=class_name, from_um=from_um, permutations=permutations,
        seed=seed,
    )  # fmt: skip
    files = []
    if html is not None or pdf is not None:
        page = comparison_page(found)
        if html is not None:
            with atomic_file(html) as file:
                file.write(page)
            files.append(html)
        if pdf is not None:
            write_pdf(page, pdf)
            files.append(pdf)
    if as_json:
        click.echo(json.dumps({**comparison_tree(found), "files": [str(f) for f in files]}))
        return
    _show(found)
    for path in files:
        click.echo(str(path))


def _show(found: RunComparison) -> None:
    """The comparison on a terminal: what is unlike, the conclusion, the numbers behind it."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    for flag in found.unlike:
        console.print(f"[bold {'red' if flag.severity == 'error' else 'yellow'}]{flag.title}:[/] {escape(flag.text)}")
    for sentence in found.conclusion:
        console.print(f"- {escape(sentence)}")
    console.print()
    table = Table(box=None, pad_edge=False)
    for column in ("descriptor", "effect", "", "first", "second", "KS", "chance", "p"):
        table.add_column(column, justify="left" if column in ("descriptor", "") else "right")
    for d in found.populations.descriptors:
        table.add_row(
            descriptor_text(d.name), f"{d.effect:+.2f}", d.effect_name, f"{d.median_first:.3g}",
            f"{d.median_second:.3g}", f"{d.ks:.3f}", f"{d.ks_chance:.3f}", f"{d.p_adjusted:.3f}",
        )  # fmt: skip
    console.print(table)
    console.print()
    table = Table(box=None, pad_edge=False)
    for column in ("per mL", "first", "second", "difference", "interval"):
        table.add_column(column, justify="left" if column == "per mL" else "right")
    for s in found.sizes:
        values = (per_ml_text(v.value) for v in (s.first, s.second, s.rest))
        table.add_row(f">= {s.size_um:g} um", *values, interval_text(s.rest.low, s.rest.high))
    for c in found.classes:
        shares = (f"{100 * v[0]:.1f} %" for v in (c.first, c.second))
        rest, low, high = (f"{100 * v:+.1f}" for v in c.rest)
        table.add_row(class_text(c.class_name), *shares, rest, f"{low} to {high}")
    console.print(table)
