"""What made a report's numbers, by name and hash."""

from edge_app import __version__
from edge_app.reporting.number_text import NO_VALUE, count_text
from edge_app.reporting.page import when_text
from edge_app.reporting.run_facts import RunFacts

__all__ = ["trace_rows"]


def trace_rows(run: RunFacts) -> list[tuple[str, str, bool]]:
    """Rows of name, value and whether it is a hash or a code."""
    meta, identity, info, audit = run.meta, run.identity, run.info, run.audit
    bundle, software = meta.get("bundle") or {}, meta.get("software") or {}
    state = f"verified: OK, {count_text(run.audit_entries)} entries" if audit.ok else f"BROKEN: {audit.first_broken}"
    rows = [
        ("run", run.run_id, True),
        ("record", run.path.name, True),
        ("state", f"{run.state}{', ' + when_text(run.ended) if run.ended else ''}", False),
        ("source", str(info.get("uri", NO_VALUE)), True),
        ("frames, SHA-256", str(meta.get("frames_sha256") or "not kept"), True),
        ("settings, SHA-256", run.settings_sha256, True),
        ("model", f"{bundle.get('name', NO_VALUE)} {bundle.get('version', '')}".strip(), False),
        ("model signed by key", str(bundle.get("signed_by") or "not checked"), True),
        ("model, SHA-256", str(identity.get("model_sha256", NO_VALUE)), True),
        ("calibration", str(identity.get("calibration_id", NO_VALUE)), True),
        ("calibration, SHA-256", str(identity.get("calibration_sha256", NO_VALUE)), True),
        ("pipeline id", str(identity.get("pipeline_id", NO_VALUE)), True),
        *((f"step {k}", str(step), True) for k, step in enumerate(identity.get("steps") or (), start=1)),
        ("last verification, SHA-256", str((run.verification.last or {}).get("sha256") or NO_VALUE), True),
        ("audit chain", state, False),
        ("audit chain, head", run.audit_head, True),
        ("software of the run", ", ".join(f"{k} {v}" for k, v in sorted(software.items())) or NO_VALUE, False),
        ("software of the report", f"edge-app {__version__}", False),
    ]
    details = info.get("details") or {}
    extra = [(k, v) for k, v in sorted(details.items()) if isinstance(v, (str, int, float)) and k != "instrument"]
    return rows + [(f"source, {key.replace('_', ' ')}", str(value), False) for key, value in extra]
