"""A measured number as a person reads it in a line of text: four digits, never an exponent of ten for a large one."""

__all__ = ["four_digits"]


def four_digits(value: float) -> str:
    """Four digits; from 1000 on to the unit, with separators.

    Examples
    --------
    >>> [four_digits(v) for v in (87008.3, 999.96, 8.64, 0.0052, 0.0, -12.5)]
    ['87,008', '1,000', '8.64', '0.0052', '0', '-12.5']
    """
    return f"{value:,.0f}" if abs(value) >= 999.95 else f"{value:.4g}"
