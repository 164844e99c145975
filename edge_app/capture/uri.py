"""Source URIs: ``scheme:PATH?option=value&option=value``."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

from pydantic import BaseModel, ValidationError

from edge_app.errors import UserError

__all__ = ["SourceUri", "parse_path_uri", "split_scheme", "validate_options"]

Options = TypeVar("Options", bound=BaseModel)

_SCHEME = re.compile(r"([a-z][a-z0-9_+.-]*):(.*)", re.DOTALL | re.IGNORECASE)
_OPTIONS = re.compile(r"[a-z_][a-z0-9_]*=[^&]*(&[a-z_][a-z0-9_]*=[^&]*)*", re.IGNORECASE)


@dataclass(frozen=True)
class SourceUri:
    """A path and the options behind it, as text."""

    scheme: str
    path: Path
    options: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.scheme}:{self.path}"

    def opened_as(self, options: BaseModel, **decided: object) -> str:
        """Give the URI back with every option filled in (``decided`` replaces what was left open)."""
        values = {**options.model_dump(), **decided}
        query = "&".join(f"{k}={v}" for k, v in values.items() if v is not None)
        return f"{self}?{query}" if query else str(self)


def split_scheme(uri: str) -> tuple[str | None, str]:
    """Split ``scheme:rest``; the scheme is None where there is none.

    Examples
    --------
    >>> split_scheme("dir:a/b?bits=10"), split_scheme("a/b")
    (('dir', 'a/b?bits=10'), (None, 'a/b'))
    """
    match = _SCHEME.fullmatch(uri)
    return (match[1].lower(), match[2]) if match else (None, uri)


def parse_path_uri(uri: str) -> SourceUri:
    """Split a URI into scheme, path and options.

    ``?`` and ``#`` are allowed in file names: what exists on disk decides where the path ends. The longest literal
    path is tried first, then each ``?`` that options can follow; percent signs are decoded only where the literal
    path does not exist. Values of options are percent-decoded (``+`` stays a plus, patterns need it).

    Raises
    ------
    UserError
        If no path is given.
    """
    scheme, rest = split_scheme(uri)
    if scheme is None or not rest:
        raise UserError(f"{uri}: a source is given as scheme:PATH, for example dir:frames")
    splits = [(rest, "")]
    splits += [(rest[:i], rest[i + 1 :]) for i, c in enumerate(rest) if c == "?" and _OPTIONS.fullmatch(rest[i + 1 :])]
    for path, query in splits:
        for text in (path, unquote(path)):
            if text and Path(text).expanduser().exists():
                return SourceUri(scheme, Path(text).expanduser(), _read_query(query))
    # Nothing exists: the error of the opener should name the path without its options.
    path, query = splits[1] if len(splits) > 1 else splits[0]
    return SourceUri(scheme, Path(path).expanduser(), _read_query(query))


def _read_query(query: str) -> dict[str, str]:
    pairs = (item.partition("=") for item in query.split("&") if item)
    return {key: unquote(value) for key, _, value in pairs}


def validate_options(uri: SourceUri, model: type[Options]) -> Options:
    """Type the options of a URI.

    Raises
    ------
    UserError
        Naming the option, what was found and what is allowed.
    """
    try:
        return model.model_validate(dict(uri.options))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            allowed = ", ".join(model.model_fields) or "none"
            raise UserError(f"{uri}: option {key} is not known, allowed: {allowed}") from error
        raise UserError(f"{uri}: option {key} is {first.get('input')!r}: {first['msg']}") from error
