"""Errors that a user can mend: one clear line, exit code 2, never a traceback."""

__all__ = ["UserError"]


class UserError(Exception):
    """Something the user gave cannot be used.

    The message is one line that names the file or key, what was found and what is allowed. Commands
    print it to stderr and end with exit code 2.

    Examples
    --------
    >>> raise UserError("settings.toml: flow.rate_ul_per_min is -3, must be above 0")
    Traceback (most recent call last):
        ...
    edge_app.errors.UserError: settings.toml: flow.rate_ul_per_min is -3, must be above 0
    """
