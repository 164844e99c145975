"""Where particles of a class come from, in the words of USP <1787>."""

from collections.abc import Mapping, Sequence
from typing import Final

__all__ = ["ORIGINS", "classes_by_origin"]

ORIGINS: Final[Mapping[str, tuple[str, ...]]] = {
    "inherent": ("protein_aggregate",),
    "intrinsic": ("silicone_oil", "glass", "rubber"),
    "extrinsic": ("cellulose",),
    "reference material": ("protein_mimic", "bead"),
    "air bubbles": ("air_bubble",),
}
"""Origin -> classes. Inherent: of the product; intrinsic: of process, packaging or delivery; extrinsic: foreign. The
last two are none of <1787>'s categories and are kept apart, so that they are counted as none of them."""

UNASSIGNED: Final = "not assigned"


def classes_by_origin(classes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The classes of a run by origin; those of no known origin, ``unknown`` among them, come last.

    Examples
    --------
    >>> classes_by_origin(("glass", "cellulose", "unknown"))
    {'intrinsic': ('glass',), 'extrinsic': ('cellulose',), 'not assigned': ('unknown',)}
    """
    table = {origin: tuple(c for c in classes if c in members) for origin, members in ORIGINS.items()}
    known = {c for members in ORIGINS.values() for c in members}
    table[UNASSIGNED] = tuple(c for c in classes if c not in known)
    return {origin: members for origin, members in table.items() if members}
