"""``python -m training fit`` and ``simulate-fit``."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from edge_app.classification.bundle import SHIPPED, Bundle
from edge_app.errors import UserError
from training.datasets.commands import data_options
from training.datasets.pictures import LabelledPictures
from training.fitting.results_folder import refuse_other_folder

__all__ = ["crossvalidate_command", "fit_command", "grid_command", "simulate_fit_command"]


def teaching_options(*, optimizer: str = "adamw") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Options of every command that teaches on labelled pictures, `FitOptions` but for what a grid varies."""

    def declare(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(_teaching_options(optimizer)):
            command = option(command)
        return command

    return declare


def _teaching_options(optimizer: str) -> tuple[Callable[[Callable[..., Any]], Callable[..., Any]], ...]:
    return (
        click.option("--init", default=None, help="Bundle to start from, or none. Default: the shipped bundle."),
        click.option("--network", default="fused_residual", show_default=True, help="With --init none."),
        click.option("--epochs", default=20, show_default=True, type=int),
        click.option("--optimizer", default=optimizer, show_default=True, metavar="adamw|sgd"),
        click.option(
            "--balance",
            default="sqrt",
            show_default=True,
            metavar="none|sqrt|inverse|effective",
            help="How rare classes count more.",
        ),
        click.option("--weigh-loss", is_flag=True, help="Weigh the loss for --balance instead of drawing more often."),
        click.option("--label-smoothing", default=0.08, show_default=True, type=float),
        click.option(
            "--robust",
            "robust_q",
            default=0.0,
            show_default=True,
            type=float,
            metavar="Q",
            help="Above 0, 0.7 say: a loss for labels that are partly wrong (generalised cross-entropy).",
        ),
        click.option(
            "--patience", default=6, show_default=True, type=int, help="Epochs without progress; 0: never end early."
        ),
        click.option("--validation-share", default=0.2, show_default=True, type=float, help="Of each class; 0: none."),
        click.option("--all-at-once", is_flag=True, help="Teach all stages from the first epoch at the same rate."),
        click.option(
            "--precision", default="auto", show_default=True, metavar="auto|float32|mixed_bfloat16|mixed_float16"
        ),
        click.option("--seed", default=1, show_default=True, type=int),
    )


def fit_options(given: dict[str, Any], *, init: Bundle | None) -> Any:
    """`FitOptions` of what the command line says, checked; takes its part out of ``given``."""
    from dataclasses import fields

    from training.fitting.options import FitOptions

    stages: dict[str, Any] = {"stages": ()} if given.pop("all_at_once") else {}
    names = {f.name for f in fields(FitOptions)} & set(given)
    options = FitOptions(**stages, **{name: given.pop(name) for name in sorted(names)})
    options.check(init=init)
    return options


def start_of(init: str | None) -> Bundle | None:
    """Bundle to start from."""
    return None if init == "none" else Bundle.load(init)


def read_data(where: dict[str, Any], init: Bundle | None) -> LabelledPictures:
    """Labelled pictures of ``--data`` and what belongs to it."""
    from edge_app.classification.crops import CropGeometry
    from training.datasets.sources import open_dataset

    default = CropGeometry().um_per_px if init is None else init.geometry.um_per_px
    return open_dataset(where.pop("data"), default_um_per_px=default, **where)


@click.command("fit", epilog="Example: python -m training fit --data pictures --groups groups.csv --out my-bundle")
@data_options
@click.option("--split", type=click.Path(path_type=Path), help="CSV: group,side. Default: drawn by --seed.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Bundle folder to write.")
@teaching_options()
@click.option("--batch", default=64, show_default=True, type=int)
@click.option("--learning-rate", type=float, help="Default: 0.001 from a bundle, 0.002 from nothing.")
@click.option(
    "--work", type=click.Path(path_type=Path), help="Folder for state, log and curves. Default: .OUT-work beside OUT."
)
@click.option("--restart", is_flag=True, help="Forget a training that was stopped before its end.")
@click.option("--tensorboard", type=click.Path(path_type=Path), help="Folder for TensorBoard events.")
@click.option(
    "--workers-config",
    metavar="JSON|FILE",
    help="Several machines: TF_CONFIG of this worker; the same command on each.",
)
def fit_command(
    init: str | None,
    split: Path | None,
    out: Path,
    work: Path | None,
    restart: bool,
    tensorboard: Path | None,
    workers_config: str | None,
    precision: Any,
    **given: Any,
) -> None:
    """Train on your own labelled pictures; the result is a bundle for `classify` and `run`.

    A training that was stopped goes on where it was when the same command is given again.
    """
    from training.fitting.repeatable import make_repeatable

    make_repeatable()
    from training.fit import check_targets, fit_pictures
    from training.fitting.machines import Machines
    from training.fitting.teaching import Logs, remove_work

    start = start_of(init)
    options = fit_options(given, init=start)
    work = out.parent / f".{out.name}-work" if work is None else work
    check_targets(out, work)
    machines = Machines.find(workers_config=workers_config, precision=precision)
    source = str(given["data"])
    pictures = read_data(given, start)
    if restart and machines.chief:
        remove_work(work)
    fit_pictures(
        pictures,
        out,
        init=start,
        options=options,
        split=split,
        source="simulator" if source.startswith("sim:") else "labelled pictures",
        machines=machines,
        logs=Logs(work=work, tensorboard=tensorboard, report=click.echo),
    )


def _numbers(text: str, kind: Callable[[str], Any], option: str) -> list[Any]:
    """Numbers separated by commas."""
    try:
        found = [kind(part) for part in text.split(",") if part.strip()]
    except ValueError:
        found = []
    if not found or len(set(found)) != len(found):
        raise UserError(f"{option} is {text}, needed are different numbers separated by commas")
    return found


@click.command(
    "grid", epilog="Example: python -m training grid --data pictures --groups groups.csv --out grid --epochs 10"
)
@data_options
@click.option("--split", type=click.Path(path_type=Path), help="CSV: group,side, as for fit.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for grid.json, grid.csv, grid.png.")
@teaching_options(optimizer="sgd")
@click.option("--learning-rates", default="1e-1,1e-2,1e-3,1e-4,1e-5", show_default=True)
@click.option("--batches", default="16,32,48,64", show_default=True)
@click.option("--restart", is_flag=True, help="Forget cells that are there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def grid_command(
    init: str | None,
    split: Path | None,
    out: Path,
    learning_rates: str,
    batches: str,
    precision: Any,
    restart: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Learning rate against batch: a training in each cell, scored on a validation set, drawn as a heat map.

    The groups that `fit` with the same seed measures with are not touched. Cells that are there are kept.
    """
    from training.fitting.repeatable import make_repeatable

    make_repeatable()
    from training.fitting.machines import Machines
    from training.grid import search_grid

    start = start_of(init)
    options = fit_options(given, init=start)
    refuse_other_folder(out)
    rates = _numbers(learning_rates, float, "--learning-rates")
    sizes = _numbers(batches, int, "--batches")
    machines = Machines.find(precision=precision)
    result = search_grid(
        read_data(given, start),
        out,
        init=start,
        options=options,
        learning_rates=rates,
        batches=sizes,
        split=split,
        machines=machines,
        restart=restart,
        report=partial(click.echo, err=as_json),
    )
    if as_json:
        click.echo(json.dumps(result, indent=1))


@click.command(
    "crossvalidate",
    epilog="Example: python -m training crossvalidate --data pictures --groups groups.csv --out crossvalidation",
)
@data_options
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for tables, JSON and pictures.")
@click.option("--folds", default=5, show_default=True, type=int)
@teaching_options()
@click.option("--batch", default=64, show_default=True, type=int)
@click.option("--learning-rate", type=float, help="Default: 0.001 from a bundle, 0.002 from nothing.")
@click.option("--pages", is_flag=True, help="Make a bundle of each fold too, and the page of evaluate on its pictures.")
@click.option("--restart", is_flag=True, help="Forget folds that are there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def crossvalidate_command(
    init: str | None, out: Path, folds: int, pages: bool, precision: Any, restart: bool, as_json: bool, **given: Any
) -> None:
    """Fit once per fold of groups, each time without it, and score its pictures. Folds that are there are kept."""
    from training.fitting.repeatable import make_repeatable

    make_repeatable()
    from training.crossvalidate import cross_validate, print_folds
    from training.fitting.machines import Machines

    start = start_of(init)
    options = fit_options(given, init=start)
    refuse_other_folder(out)
    machines = Machines.find(precision=precision)
    result = cross_validate(
        read_data(given, start),
        out,
        init=start,
        options=options,
        folds=folds,
        pages=pages,
        machines=machines,
        restart=restart,
        report=partial(click.echo, err=as_json),
    )
    if as_json:
        click.echo(json.dumps(result, indent=1))
    else:
        print_folds(result)


@click.command("simulate-fit", epilog="Example: python -m training simulate-fit --out bundle --work work/simulate")
@click.option("--out", default=SHIPPED, show_default="the shipped bundle", type=click.Path(path_type=Path))
@click.option("--work", default=Path("work/simulate"), show_default=True, type=click.Path(path_type=Path))
@click.option("--share", default=1.0, show_default=True, type=click.FloatRange(0.001, 1), help="Share of the views.")
@click.option("--epochs", default=None, type=click.IntRange(1), help="Default: as shipped.")
@click.option("--samples", default=None, type=click.IntRange(128), help="Crops per epoch. Default: as shipped.")
@click.option("--init", default=None, help="Bundle of the same classes to go on from. Default: from nothing.")
@click.option("--learning-rate", default=None, type=click.FloatRange(1e-7, 1), help="The highest. Default: as shipped.")
@click.option("--seed", default=7, show_default=True, type=int)
@click.option("--bundle-version", default="1", show_default=True, help="Goes into the bundle.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1), help="Processes that render.")
@click.option("--restart", is_flag=True, help="Forget a training that was stopped before its end.")
@click.option("--tensorboard", type=click.Path(path_type=Path), help="Folder for TensorBoard events.")
def simulate_fit_command(
    out: Path,
    work: Path,
    share: float,
    epochs: int | None,
    samples: int | None,
    init: str | None,
    learning_rate: float | None,
    seed: int,
    bundle_version: str,
    workers: int,
    restart: bool,
    tensorboard: Path | None,
) -> None:
    """Make a bundle as the shipped one from the optics simulator, with fixed seeds; with --init, teach one further.

    Views that are rendered and epochs that are made are found again after a stop.
    """
    from training.fitting.repeatable import make_repeatable

    make_repeatable()
    from edge_app.classification.crops import CropGeometry
    from training.simulated import SimulatedFit, forget_state, simulate_fit

    if restart:
        forget_state(work)
    start = None if init is None else Bundle.load(init)
    options = SimulatedFit(
        init=start,
        geometry=CropGeometry() if start is None else start.geometry,
        share=share,
        workers=workers,
        seed=seed,
        version=bundle_version,
    ).with_schedule(epochs=epochs, samples=samples, rate=learning_rate)
    simulate_fit(out, work=work, options=options, report=click.echo, tensorboard=tensorboard)
