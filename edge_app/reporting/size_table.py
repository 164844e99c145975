"""Cumulative concentrations by size, for all particles, by origin and by class, each with its interval."""

from collections.abc import Sequence
from dataclasses import dataclass

from edge_app.errors import UserError
from edge_app.measurement.concentration import CountSeries, Interval, interval_per_ml
from edge_app.measurement.histogram import REPORTING_EDGES_UM
from edge_app.measurement.window import Window
from edge_app.reporting.number_text import class_text
from edge_app.reporting.origin import classes_by_origin

__all__ = ["SizeCell", "SizeRow", "SizeTable", "count_series", "size_table"]


@dataclass(frozen=True, kw_only=True)
class SizeCell:
    """One number of the table.

    Attributes
    ----------
    per_ml, per_container
        None where nothing was analysed, or the size lies below the reporting limit; the second also where no container
        volume is known.
    reported
        False: the size lies below the reporting limit.
    """

    per_ml: Interval | None
    per_container: Interval | None
    reported: bool


@dataclass(frozen=True, kw_only=True)
class SizeRow:
    """A row: all particles, an origin or a class.

    Attributes
    ----------
    kind
        ``all``, ``origin`` or ``class``.
    name
        As a reader writes it.
    class_name
        Key of the class, empty for the others.
    members
        Classes that are counted together, as a reader writes them.
    cells
        One per size.
    """

    kind: str
    name: str
    class_name: str
    members: tuple[str, ...]
    cells: tuple[SizeCell, ...]


@dataclass(frozen=True, kw_only=True)
class SizeTable:
    """The table; ``sizes_um`` are its columns, ``methods`` say how its intervals were made."""

    sizes_um: tuple[float, ...]
    rows: tuple[SizeRow, ...]
    methods: tuple[str, ...]

    def of_kind(self, kind: str) -> list[SizeRow]:
        """Rows of one kind."""
        return [row for row in self.rows if row.kind == kind]


def count_series(windows: Sequence[Window]) -> CountSeries | None:
    """Counts of the windows, None where no volume was analysed."""
    try:
        return CountSeries.of(windows)
    except UserError:
        return None


def size_table(
    series: CountSeries | None,
    *,
    classes: Sequence[str],
    reporting_limit_um: float,
    container_ml: float | None = None,
    sizes_um: Sequence[float] = REPORTING_EDGES_UM,
) -> SizeTable:
    """Fill the table.

    Parameters
    ----------
    series
        None: nothing was analysed, and no number stands anywhere.
    classes
        Of the run, ``unknown`` included.
    reporting_limit_um
        Sizes below it are not reported.
    container_ml
        Nominal content of a container; None: no numbers per container.
    """

    def cell(size_um: float, members: str | tuple[str, ...]) -> SizeCell:
        reported = size_um >= reporting_limit_um
        if series is None or not reported:
            return SizeCell(per_ml=None, per_container=None, reported=reported)
        found = interval_per_ml(series, size_um, class_name=members)
        per_container = None if container_ml is None else found.scaled(container_ml, unit="per container")
        return SizeCell(per_ml=found, per_container=per_container, reported=True)

    def row(kind: str, name: str, members: str | tuple[str, ...]) -> SizeRow:
        together = (members,) if isinstance(members, str) else members
        return SizeRow(
            kind=kind,
            name=class_text(name),
            class_name=name if kind == "class" else "",
            members=tuple(class_text(m) for m in together),
            cells=tuple(cell(s, members) for s in sizes_um),
        )

    rows = [row("all", "all particles", "all")]
    rows += [row("origin", origin, members) for origin, members in classes_by_origin(classes).items()]
    rows += [row("class", name, name) for name in classes]
    methods = sorted({c.per_ml.method_name for r in rows for c in r.cells if c.per_ml is not None})
    return SizeTable(sizes_um=tuple(sizes_um), rows=tuple(rows), methods=tuple(methods))
