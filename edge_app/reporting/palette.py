"""Colours that stay apart for colour-blind readers and in grey print."""

from collections.abc import Mapping, Sequence
from typing import Final

__all__ = ["class_colours"]

_OF_CLASS: Final[Mapping[str, str]] = {
    "silicone_oil": "#e69f00",
    "air_bubble": "#56b4e9",
    "protein_aggregate": "#0072b2",
    "protein_mimic": "#009e73",
    "glass": "#cc79a7",
    "cellulose": "#d55e00",
    "bead": "#3d4754",
    "unknown": "#a3a8ae",
}
_SPARE: Final = ("#7b3294", "#8c6d31", "#117733", "#882255", "#332288", "#aa4499")


def class_colours(classes: Sequence[str]) -> dict[str, str]:
    """A colour per class; known ones keep theirs in every report (Okabe and Ito, 2008).

    Examples
    --------
    >>> class_colours(("glass", "rubber"))
    {'glass': '#cc79a7', 'rubber': '#7b3294'}
    """
    spare = iter(_SPARE * (1 + len(classes) // len(_SPARE)))
    return {name: _OF_CLASS[name] if name in _OF_CLASS else next(spare) for name in classes}
