"""The passphrase of a key file: from the environment, or asked for on a terminal."""

import os
import sys
from pathlib import Path
from typing import Final

import click

from edge_app.errors import UserError

__all__ = ["VARIABLE", "key_passphrase"]

VARIABLE: Final = "EDGE_APP_KEY_PASSPHRASE"


def key_passphrase(key: Path) -> bytes | None:
    """The passphrase of a protected key file; None for one that is not protected.

    Raises
    ------
    UserError
        If the file cannot be read, or is protected and there is nobody to ask.
    """
    try:
        protected = b"ENCRYPTED" in key.read_bytes()
    except OSError as error:
        raise UserError(f"{key}: key cannot be read ({error.strerror})") from error
    if not protected:
        return None
    if given := os.environ.get(VARIABLE):
        return given.encode()
    if not sys.stdin.isatty():
        raise UserError(f"{key}: the key has a passphrase: give it as {VARIABLE}, or on a terminal")
    return str(click.prompt(f"Passphrase of {key.name}", hide_input=True, err=True)).encode()
