"""Tables of a run record as files: CSV, JSON, Parquet, or the instrument's own CSV."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from edge_app.errors import UserError
from edge_app.measurement.tracks import TrackRule
from edge_app.recording.atomic_file import atomic_file
from edge_app.recording.mfi_csv import write_mfi_csv
from edge_app.recording.record_reader import Record
from edge_app.recording.tables import TABLE_NAMES, Chunk, Table, TableName, open_table

__all__ = ["EXPORT_FORMATS", "ExportFormat", "export_table"]

ExportFormat = Literal["csv", "parquet", "json", "mfi-csv"]
EXPORT_FORMATS: Final[tuple[ExportFormat, ...]] = get_args(ExportFormat)

_PARQUET_ROWS: Final = 65_536


def export_table(
    record: Record,
    *,
    table: TableName = "particles",
    format: ExportFormat = "csv",
    out: Path,
    track_rule: TrackRule | None = None,
) -> int:
    """Write one table of a record to a file, which is there whole or not at all.

    The bytes depend on frames, settings and model alone, not on the run's name or the clock.

    Parameters
    ----------
    record
        A finished one, or one that is still written: then the state at the beginning of the export.
    table
        ``particles``, ``windows``, ``histogram`` or ``tracks`` (distinct particles, not the default counting).
    format
        ``csv``: ``#`` lines with provenance and the meaning of each column, a header, the rows; ``json``: one object
        with ``columns`` and ``data`` (rows); ``parquet``: needs the extra ``parquet``; ``mfi-csv``: particles with the
        instrument's own column names and units, no ``#`` lines.
    out
        File to write; replaced if it is there.
    track_rule
        Which images are of one particle, for ``tracks``; default: NIST's rule.

    Returns
    -------
    int
        Number of rows written.

    Raises
    ------
    UserError
        If table and format do not go together, a package is missing or the file cannot be written there.
    RecordingError
        If the disk is full.
    """
    if table not in TABLE_NAMES:
        raise UserError(f"table {table!r}: allowed are {', '.join(TABLE_NAMES)}")
    if format not in EXPORT_FORMATS:
        raise UserError(f"format {format!r}: allowed are {', '.join(EXPORT_FORMATS)}")
    if format == "mfi-csv" and table != "particles":
        raise UserError(f"format mfi-csv: has a row per particle, table {table!r} has not")
    with record.snapshot():
        source = open_table(record, table, track_rule=track_rule)
        if format == "parquet":
            pyarrow = _pyarrow()
            with atomic_file(out) as file:
                return _write_parquet(file, source, pyarrow)
        with atomic_file(out) as file:
            if format == "csv":
                return _write_csv(file, source)
            if format == "json":
                return _write_json(file, source)
            return write_mfi_csv(file, source.chunks, calibration=record.calibration, name=str(record.path))


def _csv_field(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\n\r') else text


def column_text(values: npt.NDArray[Any], *, quote: Any = _csv_field) -> list[str]:
    """Write a column as text: integers plain, flags as 0/1, floats by the fewest digits that read back the same.

    Parameters
    ----------
    values
        Shape (n,).
    quote
        How a text field is written.

    Examples
    --------
    >>> column_text(np.array([0.1, 12.5, np.nan], np.float32))
    ['0.1', '12.5', 'nan']
    """
    kind = values.dtype.kind
    if kind == "f":
        text: list[str] = values.astype(np.str_).tolist()
        return text
    if kind in "iub":
        return list(map(str, values.astype(np.int64).tolist()))
    names, inverse = np.unique(values, return_inverse=True)
    words = [quote(str(n)) for n in names]
    return [words[i] for i in inverse.tolist()]


def _lines(columns: Sequence[list[str]]) -> Iterator[str]:
    return map(",".join, zip(*columns, strict=True))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _write_csv(file: BinaryIO, table: Table) -> int:
    head = [f"# {table.schema}"]
    head += [f"# {key}: {_one_line(value)}" for key, value in table.provenance.items()]
    head += [f"# column {name}: {_one_line(text)}" for name, text in table.docs.items()]
    head.append(",".join(_csv_field(name) for name in table.docs))
    file.write(("\n".join(head) + "\n").encode())
    rows = 0
    for chunk in table.chunks:
        columns = [column_text(chunk[name]) for name in table.docs]
        file.write(("\n".join(_lines(columns)) + "\n").encode())
        rows += len(columns[0])
    return rows


def _json_column(values: npt.NDArray[Any]) -> list[str]:
    text = column_text(values, quote=lambda s: json.dumps(s, ensure_ascii=False))
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        return [t if ok else "null" for t, ok in zip(text, np.isfinite(values).tolist(), strict=True)]
    return text


def _write_json(file: BinaryIO, table: Table) -> int:
    head = {
        "schema": table.schema,
        "provenance": dict(table.provenance),
        "docs": dict(table.docs),
        "columns": list(table.docs),
    }
    file.write(json.dumps(head, ensure_ascii=False, indent=1)[:-2].encode() + b',\n "data": [')
    rows = 0
    for chunk in table.chunks:
        columns = [_json_column(chunk[name]) for name in table.docs]
        text = ",\n".join(f"[{line}]" for line in _lines(columns))
        file.write((",\n" if rows else "\n").encode() + text.encode())
        rows += len(columns[0])
    file.write(b"\n]}\n")
    return rows


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError("format parquet: needs pyarrow, install it with: pip install 'edge-app[parquet]'") from error
    return pyarrow


def _write_parquet(file: BinaryIO, table: Table, pyarrow: Any) -> int:
    def schema_of(chunk: Chunk) -> Any:
        fields = [
            pyarrow.field(
                name,
                pyarrow.string() if values.dtype.kind == "U" else pyarrow.from_numpy_dtype(values.dtype),
                metadata={"doc": table.docs[name]},
            )
            for name, values in chunk.items()
        ]
        return pyarrow.schema(fields, metadata={"schema": table.schema, **table.provenance})

    def arrow(chunks: list[Chunk], schema: Any) -> Any:
        joined = {name: np.concatenate([c[name] for c in chunks]) for name in chunks[0]}
        return pyarrow.table(joined, schema=schema)

    first = next(table.chunks, None)
    empty = {name: table.empty(name) for name in table.docs}
    schema = schema_of(first if first is not None else empty)
    rows = 0
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        waiting = [first if first is not None else empty]
        for chunk in table.chunks:
            # A row group per window would be slow to read: windows are gathered first.
            if sum(len(c[next(iter(c))]) for c in waiting) >= _PARQUET_ROWS:
                rows += _flush(writer, arrow(waiting, schema))
                waiting = []
            waiting.append(chunk)
        rows += _flush(writer, arrow(waiting, schema))
    return rows


def _flush(writer: Any, part: Any) -> int:
    writer.write_table(part)
    return int(part.num_rows)
