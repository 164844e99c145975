"""Write, check or show the settings."""

import json
from pathlib import Path

import click

from edge_app.config import Settings, load_settings, settings_as_toml, without_secrets
from edge_app.errors import UserError

__all__ = ["config"]


@click.group()
def config() -> None:
    """Write, check or show the settings.

    Example: edge-app config init settings.toml
    """


@config.command()
@click.argument("file", type=click.Path(path_type=Path), default=Path("edge-app.toml"))
def init(file: Path) -> None:
    """Write a settings file with every key, its meaning and its default."""
    try:
        with file.open("x", encoding="utf-8") as out:
            out.write(settings_as_toml(Settings()))
    except FileExistsError as error:
        raise UserError(f"{file}: is there already and is not overwritten") from error
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error.strerror})") from error
    click.echo(f"{file} written: every key with its default")


@config.command()
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Read a settings file and say whether it can be used."""
    load_settings(file)
    click.echo(f"{file}: fine")


@config.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--json", "as_json", is_flag=True, help="JSON with every value.")
@click.option("--schema", is_flag=True, help="JSON Schema of the settings.")
def show(file: Path | None, as_json: bool, schema: bool) -> None:
    """Show the settings in force: defaults, or those of a file."""
    settings = without_secrets(load_settings(file))
    if schema:
        click.echo(json.dumps(Settings.model_json_schema(), indent=2))
    elif as_json:
        click.echo(settings.model_dump_json(indent=2))
    else:
        click.echo(settings_as_toml(settings), nl=False)
