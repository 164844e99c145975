"""The run record, read side: what is in it, while it is written and ever after."""

import json
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, reduce
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edge_app.errors import UserError
from edge_app.measurement.calibration import Calibration
from edge_app.measurement.histogram import Histogram
from edge_app.measurement.window import Window, per_ml
from edge_app.recording.audit import AuditEntry, read_entries
from edge_app.recording.event import RecordedEvent
from edge_app.recording.particle_columns import RecordedParticles, unpack_column, unpack_particles
from edge_app.recording.pictures import UNKNOWN, Picture
from edge_app.recording.schema import connect_reader

__all__ = ["Record", "RecordedPicture", "find_record", "open_record"]


@dataclass(frozen=True, kw_only=True)
class RecordedPicture(Picture):
    """A kept picture with the window it belongs to."""

    window: int

    @property
    def particle_id(self) -> str:
        """Window and row, as in the particle table."""
        return f"{self.window}-{self.row}"


def find_record(path: Path, run_id: str | None = None) -> Path:
    """Find a record: a ``.sqlite`` file itself, or in a folder the one named, else the newest (by run id).

    Raises
    ------
    UserError
        If there is none.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"{path}: no such folder or run record")
    found = sorted(p for p in path.glob("*.sqlite") if p.is_file())
    if not found:
        raise UserError(f"{path}: no run record (*.sqlite) in this folder")
    if run_id is None:
        return found[-1]
    named = [p for p in found if p.stem == run_id]
    if not named:
        raise UserError(f"{path}: no run {run_id!r}, found {', '.join(p.stem for p in found[-5:])}")
    return named[0]


def open_record(path: Path | str, *, run_id: str | None = None) -> "Record":
    """Open a record for reading.

    Parameters
    ----------
    path
        Record file, or a folder of records: the newest is taken unless ``run_id`` names one.

    Raises
    ------
    UserError
        If there is none or it is not readable.
    """
    return Record(find_record(Path(path), run_id))


class Record:
    """Reads a run record. Each call sees the last committed state; :meth:`snapshot` holds one over several calls."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = connect_reader(path)
        try:
            self.run_id = str(self._fact("run_id"))
        except UserError:
            self._connection.close()
            raise

    def _damaged(self, error: Exception) -> UserError:
        text = " ".join(str(error).split())
        return UserError(f"{self.path}: run record is damaged ({type(error).__name__}: {text})")

    def _query(self, statement: str, values: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        try:
            # Not "yield from": a query left unread would then close its cursor when the record is closed already.
            for row in self._connection.execute(statement, values):  # noqa: UP028
                yield row
        except (sqlite3.Error, UnicodeError) as error:
            raise self._damaged(error) from error

    def _json(self, text: str | bytes) -> Any:
        try:
            return json.loads(text)
        except (ValueError, TypeError) as error:
            raise self._damaged(error) from error

    @property
    def meta(self) -> dict[str, Any]:
        """Everything about the run as a whole; ``finished`` is absent until it is closed."""
        return {k: self._json(v) for k, v in self._query("SELECT key, value FROM meta")}

    def _fact(self, key: str) -> Any:
        row = next(self._query("SELECT value FROM meta WHERE key = ?", (key,)), None)
        if row is None:
            raise UserError(f"{self.path}: run record is damaged (no {key} in meta)")
        return self._json(row[0])

    @property
    def finished(self) -> bool:
        """Whether the run was closed (by itself or by ``recover``)."""
        return next(self._query("SELECT 1 FROM meta WHERE key = 'finished'"), None) is not None

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of ``class_index``, ``unknown`` last."""
        return tuple(self._fact("classes"))

    @cached_property
    def edges_um(self) -> tuple[float, ...]:
        """Size bins of the histograms."""
        try:
            return tuple(float("inf") if e is None else float(e) for e in self._fact("edges_um"))
        except (TypeError, ValueError) as error:
            raise self._damaged(error) from error

    @property
    def identity(self) -> dict[str, Any]:
        """Pipeline identity: steps, pipeline id, hashes of model and calibration."""
        found = self._fact("identity")
        if not isinstance(found, dict):
            raise UserError(f"{self.path}: run record is damaged (identity is {type(found).__name__})")
        return found

    @cached_property
    def calibration(self) -> Calibration | None:
        """Calibration of the run, None if it was recorded without."""
        stored = self._fact("calibration")
        try:
            return None if stored is None else Calibration.model_validate(stored)
        except ValueError as error:
            raise self._damaged(error) from error

    @property
    def frames_sha256(self) -> str | None:
        """Hash over all frames up to the end of the last window, None where it was not kept."""
        row = next(self._query("SELECT frames_sha256 FROM windows ORDER BY seq DESC LIMIT 1"), None)
        return None if row is None else row[0]

    @property
    def probability_classes(self) -> tuple[str, ...]:
        """Classes whose probability was recorded for each particle; none if they were not asked for."""
        stored = {n for (n,) in self._query("SELECT DISTINCT name FROM particle_columns")}
        return tuple(c for c in self.classes if f"p_{c}" in stored)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Hold one state of a record that is still being written."""
        if self._connection.in_transaction:
            yield
            return
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            # SQLite ends the transaction by itself when it meets damage.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def windows(self) -> Iterator[Window]:
        """Yield the closed windows in order."""
        cursor = self._query(
            "SELECT seq, first_frame, last_frame, t0_s, t1_s, frames, frames_lost, frames_rejected, rejected,"
            " volume_ml, counts, weighted FROM windows ORDER BY seq"
        )
        for row in cursor:
            try:
                window = self._window(*row)
            except (KeyError, ValueError, TypeError) as error:
                raise self._damaged(error) from error
            yield window

    def _window(
        self,
        seq: int,
        first: int,
        last: int,
        t0_s: float,
        t1_s: float,
        frames: int,
        lost: int,
        left_out: int,
        rejected: str,
        volume_ml: float,
        counts: str,
        weighted: str,
    ) -> Window:
        tables = json.loads(counts), json.loads(weighted)
        return Window(
            run_id=self.run_id,
            seq=seq,
            first_frame=first,
            last_frame=last,
            t0_s=t0_s,
            t1_s=t1_s,
            frames=frames,
            frames_lost=lost,
            frames_rejected=left_out,
            rejected=json.loads(rejected),
            volume_ml=volume_ml,
            histogram=Histogram(
                classes=self.classes,
                edges_um=self.edges_um,
                counts=np.array([tables[0][c] for c in self.classes], np.int64),
                weighted=np.array([tables[1][c] for c in self.classes], np.float64),
            ),
        )

    def total(self) -> Window:
        """The sum of all windows; an empty one (``seq`` -1) if there is none."""
        windows = self.windows()
        first = next(windows, None)
        return self.empty_window() if first is None else reduce(lambda a, b: a + b, windows, first)

    def empty_window(self) -> Window:
        """A window of this run with nothing in it (``seq`` -1)."""
        return Window(
            run_id=self.run_id,
            seq=-1,
            first_frame=-1,
            last_frame=-1,
            t0_s=0.0,
            t1_s=0.0,
            frames=0,
            frames_lost=0,
            frames_rejected=0,
            rejected={},
            volume_ml=0.0,
            histogram=Histogram.empty(self.classes, self.edges_um),
        )

    def particles_by_window(self) -> Iterator[RecordedParticles]:
        """Yield the particles window by window."""
        for (seq,) in list(self._query("SELECT seq FROM windows ORDER BY seq")):
            yield self._window_particles(seq)

    def particles(self, window: int | None = None) -> RecordedParticles:
        """The particles of one window, or of the whole run.

        Raises
        ------
        UserError
            If there is no such window.
        """
        if window is not None:
            return self._window_particles(window)
        parts = list(self.particles_by_window())
        return RecordedParticles.concatenate(parts) if parts else RecordedParticles.empty(self.classes)

    def _window_particles(self, seq: int) -> RecordedParticles:
        columns = list(
            self._query("SELECT name, dtype, codec, data FROM particle_columns WHERE seq = ? ORDER BY position", (seq,))
        )
        if not columns:
            raise UserError(f"{self.path}: no window {seq}")
        try:
            return unpack_particles(columns, window=seq, classes=self.classes)
        except (KeyError, ValueError, TypeError, zlib.error) as error:
            raise UserError(f"{self.path}: particles of window {seq} are damaged ({error})") from error

    def companion_by_window(self) -> Iterator[tuple[int, dict[str, npt.NDArray[Any]]]]:
        """Yield window and the instrument's own columns, where the source had them."""
        for (seq,) in list(self._query("SELECT DISTINCT seq FROM companion_columns ORDER BY seq")):
            columns = self._query(
                "SELECT name, dtype, codec, data FROM companion_columns WHERE seq = ? ORDER BY position", (seq,)
            )
            yield (
                seq,
                {
                    name: np.array(self._json(data)) if dtype == "json" else unpack_column(dtype, codec, data)
                    for name, dtype, codec, data in columns
                },
            )

    def events(self) -> Iterator[RecordedEvent]:
        """Yield what happened, in order."""
        for row in self._query(
            "SELECT id, time, seq, time_s, kind, severity, message, details FROM events ORDER BY id"
        ):
            number, time, seq, time_s, kind, severity, message, details = row
            yield RecordedEvent(
                id=number,
                time=time,
                seq=seq,
                time_s=time_s,
                kind=kind,
                severity=severity,
                message=message,
                details=self._json(details),
            )

    def audit(self) -> Iterator[AuditEntry]:
        """Yield the audit chain, unchecked (see ``verify_record``)."""
        return read_entries(self._connection)

    def pictures(
        self,
        kind: Literal["largest", "least_certain", "sample", "all"] = "all",
        *,
        class_name: str | None = None,
        limit: int | None = None,
    ) -> list[RecordedPicture]:
        """Kept pictures.

        Parameters
        ----------
        kind
            ``largest``: by falling size; ``least_certain``: by rising confidence, ``unknown`` left out; ``sample``: in
            the fixed random order, so that the first of them are a uniform sample; ``all``: by window and row.
        class_name
            Only of this class.
        limit
            At most so many. Up to the run's ``gallery`` setting the answer is exact for the whole run (the least
            certain of one class in a record made before they were kept: among the pictures that there are).
        """
        order = {
            "largest": "ecd_um DESC, seq, particle_row",
            "least_certain": "confidence, seq, particle_row",
            "sample": "sample_key, seq, particle_row",
            "all": "seq, particle_row",
        }[kind]
        where, values = ["1"], list[object]()
        if class_name is not None:
            where.append("class = ?")
            values.append(class_name)
        if kind == "least_certain":
            where.append("class != ?")
            values.append(UNKNOWN)
        rows = self._query(
            "SELECT seq, particle_row, kinds, class, confidence, ecd_um, sample_key, frame, x_px, y_px, width_px,"
            f" height_px, png FROM pictures WHERE {' AND '.join(where)} ORDER BY {order} LIMIT ?",
            (*values, -1 if limit is None else limit),
        )
        return [
            RecordedPicture(
                window=r[0],
                row=r[1],
                kinds=tuple(r[2].split(",")),
                class_name=r[3],
                confidence=r[4],
                ecd_um=r[5],
                sample_key=r[6],
                frame=r[7],
                x_px=r[8],
                y_px=r[9],
                width_px=r[10],
                height_px=r[11],
                png=r[12],
            )
            for r in rows
        ]

    def summary(self) -> dict[str, Any]:
        """The run in one mapping, made from the windows alone, so that it equals their sum.

        Returns
        -------
        dict
            ``run_id, frames`` (analysed), ``frames_lost, frames_rejected, particles, volume_ml, per_ml`` (cumulative,
            by size), ``per_ml_by_class, counts, rejected, windows, state, pipeline_id, model_sha256,
            calibration_id``.
        """
        try:
            return self._summary()
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise self._damaged(error) from error

    def _summary(self) -> dict[str, Any]:
        with self.snapshot():
            total, identity = self.total(), self.identity
            state = self._fact("finished")["state"] if self.finished else "unfinished"
            (windows,) = next(self._query("SELECT count(*) FROM windows"))
        concentrations = per_ml(total.histogram, total.volume_ml)
        return {
            "run_id": self.run_id,
            "frames": total.frames,
            "frames_lost": total.frames_lost,
            "frames_rejected": total.frames_rejected,
            "particles": total.particles,
            "volume_ml": total.volume_ml,
            "per_ml": concentrations.pop("all"),
            "per_ml_by_class": concentrations,
            "counts": total.histogram.by_class(),
            "rejected": dict(total.rejected),
            "windows": windows,
            "state": state,
            **{key: identity.get(key) for key in ("pipeline_id", "model_sha256", "calibration_id")},
        }

    def close(self) -> None:
        """Release the file; safe to call twice."""
        self._connection.close()

    def __enter__(self) -> "Record":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
