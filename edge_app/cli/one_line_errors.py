"""A command group in which a user's mistake is one line."""

import sys
from typing import Any

import click

from edge_app.errors import UserError

__all__ = ["OneLineErrors"]


class OneLineErrors(click.Group):
    """Prints a `UserError` as one line and ends with exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command of the group."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(str(error), err=True)
            sys.exit(2)
