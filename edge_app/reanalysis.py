"""The frames of an earlier run once more, with other settings, another model or another calibration.

The result is a new record that names its parent; the parent gets an entry in its audit chain that names the new one
and is not touched otherwise. The new record appears in its folder whole and linked, or not at all.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from edge_app.config import Settings, load_settings
from edge_app.errors import UserError
from edge_app.pipeline import Pipeline, RunRequest
from edge_app.recording.audit import verify_record
from edge_app.recording.difference import Difference, compare_records
from edge_app.recording.record_reader import Record, find_record
from edge_app.recording.run_record import add_audit_entry, add_facts, move_record

__all__ = ["Reanalysis", "ReanalysisRequest", "reanalyse"]

_THRESHOLDS_STEP: Final = "instrument-thresholds:"


@dataclass(frozen=True, kw_only=True)
class ReanalysisRequest:
    """What one reanalysis is asked to do.

    Attributes
    ----------
    parent
        Record file, or folder of records (the newest is taken).
    out
        Folder that gets the new record.
    reason
        Why; kept in both records.
    config
        Settings file: its keys replace the parent's, all others stay as they were.
    bundle, calibration
        Model bundle and calibration instead of the parent's; they go before ``config``.
    source
        Where the frames are now, if they were moved; None: where the parent had them.
    allow_different_frames
        Go on although the frames cannot be shown to be the parent's; the new record says so.
    """

    parent: Path
    out: Path
    reason: str
    config: Path | None = None
    bundle: Path | None = None
    calibration: Path | None = None
    source: str | None = None
    allow_different_frames: bool = False


@dataclass(frozen=True, kw_only=True)
class Reanalysis:
    """What came out: the new record, the hash of its last audit entry, the run's result and the difference."""

    record: Path
    record_head: str
    result: Mapping[str, Any]
    difference: Difference


@dataclass(frozen=True, kw_only=True)
class _Parent:
    """What the parent's record says of how it was made."""

    path: Path
    run_id: str
    head: str
    started: str
    uri: str
    frames: int
    frames_sha256: str | None
    settings: Mapping[str, Any]
    instrument_thresholds: bool


def reanalyse(
    request: ReanalysisRequest,
    *,
    drive: Callable[[Pipeline], Mapping[str, Any]] = Pipeline.run,
    on_message: Callable[[str], None] | None = None,
) -> Reanalysis:
    """Run the parent's frames again and put both records side by side.

    Nothing is published: a reanalysis is no measurement of this moment.

    Parameters
    ----------
    request
        What to do.
    drive
        Runs the pipeline to its end; for a progress bar.
    on_message
        Called with each line that a person should see.

    Raises
    ------
    UserError
        If the parent is not finished or its audit chain is broken, settings, model, calibration or source cannot be
        opened, the frames are not the parent's, or the run was stopped; no record has been made then, and the parent
        is as it was.
    RecordingError
        If a record cannot be written.
    """
    if not request.reason.strip():
        raise UserError("reason is empty: why the run is analysed again has to be stated")
    parent = _read_parent(find_record(request.parent))
    if parent.frames_sha256 is None and not request.allow_different_frames:
        raise UserError(
            f"{parent.path}: holds no hash over its frames, so they cannot be shown to be the same;"
            " --allow-different-frames goes on without"
        )
    settings = _settings(request, parent)
    try:
        request.out.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=request.out, prefix=".reanalysis-")
    except OSError as error:
        raise UserError(f"{request.out}: folder cannot be written ({error.strerror})") from error
    with scratch as name:
        run = RunRequest(
            source=request.source or parent.uri,
            out=Path(name),
            frames=parent.frames,
            instrument_thresholds=parent.instrument_thresholds,
        )
        result = dict(drive(Pipeline(run, settings, on_message=on_message)))
        made = Path(str(result["record"]))
        agree = _check_frames(made, parent, result, request)
        facts = {
            "run_id": parent.run_id, "record": parent.path.name, "head": parent.head, "reason": request.reason,
            "frames_agree": agree, "started": parent.started,
        }  # fmt: skip
        head = add_facts(made, {"parent": facts}, action="reanalysis_of", reason=request.reason)
        with Record(parent.path) as before, Record(made) as after:
            difference = compare_records(before, after, reason=request.reason, frames_agree=agree)
        child = {"run_id": result["run_id"], "record": made.name, "head": head, "frames_agree": agree}
        add_audit_entry(parent.path, action="reanalysed", reason=request.reason, details={"child": child})
        record = move_record(made, request.out)
    return Reanalysis(
        record=record,
        record_head=head,
        result={**result, "record": str(record), "record_head": head},
        difference=difference,
    )


def _read_parent(path: Path) -> _Parent:
    verdict = verify_record(path)
    if not verdict.ok:
        raise UserError(f"{path}: is not analysed again, since its audit chain is broken: {verdict.first_broken}")
    if not verdict.finished:
        raise UserError(f"{path}: the run is not finished, it cannot be analysed again yet")
    with Record(path) as record:
        meta, total = record.meta, record.total()
    info, finished = meta["info"], meta["finished"]
    # A run that was stopped saw fewer frames than its source had; an endless source does not say how many it had.
    whole = finished["state"] == "completed" and info.get("frames_total") is not None
    thresholds = [s for s in meta["identity"]["steps"] if s.startswith(_THRESHOLDS_STEP)]
    return _Parent(
        path=path,
        run_id=str(meta["run_id"]),
        head=verdict.head,
        started=str(meta.get("started", "")),
        uri=str(info["uri"]),
        frames=int(info["frames_total"]) if whole else total.frames + total.frames_rejected,
        frames_sha256=meta.get("frames_sha256"),
        settings=meta["settings"],
        instrument_thresholds=any(s != f"{_THRESHOLDS_STEP}none" for s in thresholds),
    )


def _settings(request: ReanalysisRequest, parent: _Parent) -> Settings:
    """The parent's settings with what is asked for put over them."""
    tree: dict[str, Any] = {k: dict(v) for k, v in parent.settings.items()}
    asked: dict[str, Any] = {}
    if request.config is not None:
        asked = load_settings(request.config).model_dump(mode="json", exclude_unset=True)
    if request.calibration is not None:
        # What was stated for the parent (scale, depth, size rule) would otherwise be put into the new calibration.
        stated = {"um_per_px": None, "depth_um": None, "size_rule": None, **asked.get("flow_cell", {})}
        asked["flow_cell"] = {**stated, "calibration_file": str(request.calibration)}
    if request.bundle is not None:
        asked["classification"] = {**asked.get("classification", {}), "bundle": str(request.bundle)}
    _merge(tree, asked)
    _merge(tree, {"mqtt": {"url": "off"}, "recording": {"hash_frames": True}})
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(f"{parent.path}: settings of the run: {key} is {first['input']!r}: {first['msg']}") from error


def _merge(tree: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), Mapping):
            inner = dict(tree[key])
            _merge(inner, value)
            tree[key] = inner
        else:
            tree[key] = value


def _check_frames(made: Path, parent: _Parent, result: Mapping[str, Any], request: ReanalysisRequest) -> bool:
    """Whether both runs saw the same pixels; an error if they did not and that is not allowed."""
    with Record(made) as record:
        state = record.meta["finished"]["state"]
    if state != "completed":
        raise UserError(f"{parent.path}: the reanalysis was {state} before its end; nothing of it is kept")
    found = result["frames_sha256"]
    if found == parent.frames_sha256:
        return True
    if request.allow_different_frames:
        return False
    seen = result["frames"] + result["frames_rejected"]
    raise UserError(
        f"{request.source or parent.uri}: gives other frames than {parent.run_id} saw ({seen} frames, SHA-256"
        f" {str(found)[:12]}..., was {str(parent.frames_sha256)[:12]}...); --allow-different-frames goes on anyway"
    )
