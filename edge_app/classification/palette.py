"""One colour per class, wherever classes are drawn: live view, report, comparison, pictures of the documentation."""

from collections.abc import Mapping, Sequence
from typing import Final

__all__ = ["CLASS_COLOURS", "class_colours"]

CLASS_COLOURS: Final[Mapping[str, str]] = {
    "silicone_oil": "#e69f00",
    "air_bubble": "#56b4e9",
    "protein_aggregate": "#0072b2",
    "protein_mimic": "#009e73",
    "glass": "#cc79a7",
    "cellulose": "#d55e00",
    "bead": "#8b1fd4",
    "rubber": "#783a10",
    "unknown": "#646464",
}
"""Okabe and Ito (2008) for the first six; all nine stay apart with each kind of colour blindness, and stand out from
white paper as well as from a black terminal."""

_SPARE: Final = ("#7b3294", "#8c6d31", "#117733", "#882255", "#332288", "#aa4499")


def class_colours(classes: Sequence[str]) -> dict[str, str]:
    """A colour per class; known ones keep theirs whatever else is drawn, foreign ones take spare ones in order.

    Examples
    --------
    >>> class_colours(("glass", "pollen"))
    {'glass': '#cc79a7', 'pollen': '#7b3294'}
    """
    spare = iter(_SPARE * (1 + len(classes) // len(_SPARE)))
    return {name: CLASS_COLOURS[name] if name in CLASS_COLOURS else next(spare) for name in classes}
