"""Numbers as a reader meets them: one rule for digits, always with the interval beside the value."""

import math

__all__ = [
    "NO_VALUE",
    "age_text",
    "bin_text",
    "class_text",
    "count_text",
    "decimals_for",
    "duration_text",
    "interval_text",
    "per_ml_text",
    "percent_text",
    "size_text",
    "volume_text",
]

_EN_DASH = "\N{EN DASH}"
NO_VALUE = _EN_DASH
"""Stands where there is no number."""


def decimals_for(value: float) -> int:
    """Decimals that show three digits, at most two of them after the point.

    Examples
    --------
    >>> [decimals_for(v) for v in (0.0, 3.2, 45.0, 1234.0)]
    [2, 2, 1, 0]
    """
    return 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2


def _fixed(value: float, decimals: int) -> str:
    return f"{value:,.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def per_ml_text(value: float | None) -> str:
    """A concentration or another estimate with three digits or, from 1000 on, to the unit.

    Examples
    --------
    >>> per_ml_text(12345.6), per_ml_text(7.31), per_ml_text(0.0), per_ml_text(None) == NO_VALUE
    ('12,346', '7.31', '0', True)
    """
    if value is None or not math.isfinite(value):
        return NO_VALUE
    return "0" if value == 0 else _fixed(value, decimals_for(value))


def interval_text(low: float | None, high: float | None) -> str:
    """An interval; both ends with the decimals of the upper one, a lower end above 0 never as 0.

    Examples
    --------
    >>> interval_text(0.0, 17.68)
    '0 – 17.7'
    >>> interval_text(0.55, 147.2)
    '0.55 – 147'
    >>> interval_text(980.2, 1042.0)
    '980 – 1,042'
    >>> interval_text(-3.2, 4.1)
    '−3.20 to 4.10'
    """
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return NO_VALUE
    if math.isinf(high):
        return f"\N{GREATER-THAN OR EQUAL TO} {per_ml_text(low)}"
    digits = decimals_for(high)
    first = "0" if low == 0 else _fixed(low, digits if abs(low) >= 10.0**-digits else decimals_for(low))
    # A dash after a minus sign would read as a second one.
    return f"{first} {'to' if low < 0 else _EN_DASH} {_fixed(high, digits)}"


def count_text(value: int) -> str:
    """A number of things."""
    return f"{value:,d}"


def percent_text(fraction: float | None, *, decimals: int = 1) -> str:
    """A fraction in percent.

    Examples
    --------
    >>> percent_text(0.0123).split(), percent_text(0.00004).split()
    (['1.2', '%'], ['<', '0.1', '%'])
    """
    if fraction is None or not math.isfinite(fraction):
        return NO_VALUE
    if 0 < abs(fraction) * 100 < 0.5 * 10**-decimals:
        return f"<\N{NO-BREAK SPACE}{10**-decimals:.{decimals}f}\N{NO-BREAK SPACE}%"
    return f"{100 * fraction:.{decimals}f}\N{NO-BREAK SPACE}%"


def size_text(size_um: float) -> str:
    """A size or a bin edge without needless zeros, without its unit.

    Examples
    --------
    >>> size_text(2.0), size_text(3.15)
    ('2', '3.15')
    """
    return f"{size_um:g}"


def volume_text(volume_ml: float) -> str:
    """A volume: uL below 0.1 mL.

    Examples
    --------
    >>> volume_text(0.0232), volume_text(0.5)
    ('23.2 µL', '0.500 mL')
    """
    if volume_ml >= 0.1:
        return f"{volume_ml:.3f} mL"
    return f"{volume_ml * 1000:.{decimals_for(volume_ml * 1000)}f} \N{MICRO SIGN}L"


def duration_text(seconds: float) -> str:
    """A span of time: minutes and seconds from 100 s on.

    Examples
    --------
    >>> duration_text(12.34), duration_text(125.0)
    ('12.3 s', '2 min 5 s')
    """
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes:,d} min {rest} s"


def age_text(days: float) -> str:
    """An age: hours below two days, then days; from ten on without decimals.

    Examples
    --------
    >>> age_text(0.01), age_text(0.25), age_text(3.24), age_text(41.7)
    ('less than an hour', '6 hours', '3.2 days', '42 days')
    """
    if days < 2.0:
        hours = round(24 * days)
        return "less than an hour" if hours < 1 else "1 hour" if hours == 1 else f"{hours} hours"
    return f"{days:.0f} days" if days >= 10 else f"{days:.1f} days"


def bin_text(low_um: float, high_um: float) -> str:
    """A size bin; the last one of a grid has no upper end.

    Examples
    --------
    >>> bin_text(10.0, 12.5)
    '10 – 12.5 µm'
    """
    if math.isinf(high_um):
        return f"\N{GREATER-THAN OR EQUAL TO} {size_text(low_um)} \N{MICRO SIGN}m"
    return f"{size_text(low_um)} \N{EN DASH} {size_text(high_um)} \N{MICRO SIGN}m"


def class_text(name: str) -> str:
    """A class as a reader writes it.

    Examples
    --------
    >>> class_text("protein_aggregate")
    'protein aggregate'
    """
    return name.replace("_", " ")
