"""From the options of a command to what a bundle is measured on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge_app.classification.crops import CropGeometry
from edge_app.errors import UserError
from training.datasets.pictures import LabelledPictures
from training.datasets.sources import open_dataset
from training.datasets.views import ViewStore
from training.evaluation.optics_sweeps import OpticsSweeps, render_optics_sweeps
from training.evaluation.photographs import FolderSource, Photographs, SimulatedSource, strangers
from training.optics import KNOWN
from training.simulated import LIBRARIES, render_library

__all__ = ["MeasuredData", "open_data", "read_strangers"]

_TITLES: Final = {"test": "simulated views, unseen seeds", "heldout": "simulated views, unseen seeds and unseen optics"}
#: Particles of each class that are rendered anew for defocus and medium index.
_SWEPT_PER_CLASS: Final = 24


@dataclass(frozen=True, kw_only=True)
class MeasuredData:
    """Labelled pictures, or simulated views with unknown families and rendered sweeps."""

    name: str
    pictures: LabelledPictures | None = None
    views: ViewStore | None = None
    unknown_views: ViewStore | None = None
    work: Path | None = None
    ranges: str = ""
    swept_per_class: int = _SWEPT_PER_CLASS

    def source(self, geometry: CropGeometry, *, optics: OpticsSweeps | None = None) -> SimulatedSource | FolderSource:
        """Photographs for a bundle's geometry."""
        if self.pictures is not None:
            return FolderSource(self.pictures, geometry=geometry, name=self.name)
        assert self.views is not None
        return SimulatedSource(self.views, labels=KNOWN, geometry=geometry, name=self.name, optics=optics or ())

    def unknown(self, geometry: CropGeometry) -> Photographs | None:
        """Views of families outside the classes."""
        if self.unknown_views is None:
            return None
        source = SimulatedSource(self.unknown_views, labels=KNOWN, geometry=geometry, name="unknown", seed=23)
        return source.photographs()

    def optics_sweeps(self, report: Callable[[str], None]) -> OpticsSweeps:
        """Defocus and medium index, rendered where missing; none for pictures."""
        if self.work is None:
            return []
        return render_optics_sweeps(
            self.work / "sweeps",
            families=KNOWN,
            ranges=self.ranges,
            per_family=self.swept_per_class,
            progress=lambda done, total: (
                None if done % 20 else report(f"defocus and medium: {done} of {total} particles")
            ),
        )


def open_data(where: Mapping[str, Any], *, um_per_px: float, report: Callable[[str], None]) -> MeasuredData:
    """Read or render what the options of `evaluate` and `compare` name.

    Parameters
    ----------
    where : mapping
        ``data``, ``groups``, ``group_by``, ``group_regex``, ``um_per_px`` or ``simulated``, ``work``, ``share``,
        ``workers``.
    um_per_px : float
        Scale of pictures that do not state theirs.
    report : callable
        Takes a line of progress.

    Raises
    ------
    UserError
        Neither or both kinds of data are named, or the data cannot be read.
    """
    library = where["simulated"]
    if (where["data"] is None) == (library is None):
        raise UserError(
            "give --data DIR with --groups CSV, or --simulated test|heldout" + (", not both" if library else "")
        )
    if library is None:
        pictures = open_dataset(
            where["data"],
            groups=where["groups"],
            group_by=where["group_by"],
            group_regex=where["group_regex"],
            um_per_px=where["um_per_px"],
            default_um_per_px=um_per_px,
        )
        return MeasuredData(name=str(where["data"]), pictures=pictures)
    share, workers, work = where["share"], where["workers"], where["work"]
    stores = []
    for name in (library, "unknown"):
        stores.append(render_library(name, work, share=share, workers=workers))
        report(f"library {name}: {len(stores[-1])} views")
    return MeasuredData(
        name=_TITLES[library],
        views=stores[0],
        unknown_views=stores[1],
        work=work,
        ranges=LIBRARIES[library].ranges,
        swept_per_class=max(1, round(_SWEPT_PER_CLASS * min(1.0, 4 * share))),
    )


def read_strangers(directory: Path, *, geometry: CropGeometry, um_per_px: float) -> Photographs:
    """Pictures of particles that are none of the classes, from a folder.

    Raises
    ------
    UserError
        There is no readable picture in it.
    """
    from edge_app.capture.crops import iterate_crops
    from edge_app.capture.problems import Problems

    problems = Problems()
    pictures = [crop.image for crop in iterate_crops(directory, problems=problems)]
    if problems.counts:
        raise UserError(problems.messages[0].splitlines()[0])
    if not pictures:
        raise UserError(f"{directory}: no picture in it")
    return strangers(pictures, geometry=geometry, um_per_px=um_per_px)
