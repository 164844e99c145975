"""Electronic signature of a report: name, time and meaning, bound to the report's bytes and to the record's state.

A signature is a statement (who, when, what it means, SHA-256 of the report file, head of the record's audit chain).
It is written into the record as an entry of that chain, and beside the report as ``<report>.signature.json``, so that
either shows when the other was changed. With a key file the statement also carries an Ed25519 signature (RFC 8032)
over its canonical JSON (RFC 8785): without one, whoever can run the program can sign in any name.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge_app.errors import UserError
from edge_app.recording.atomic_file import atomic_file
from edge_app.recording.audit import Verdict, current_user, utc_now, verify_record
from edge_app.recording.record_reader import Record, open_record
from edge_app.recording.run_record import add_audit_entry
from edge_app.signing_keys import is_signature, open_private_key, read_public_key

__all__ = [
    "ACTION",
    "SIGNATURE_SCHEMA",
    "Signature",
    "SignatureVerdict",
    "check_signable",
    "check_signature",
    "sidecar_path",
    "sign_report",
]

SIGNATURE_SCHEMA: Final = "mfi.signature/1"
ACTION: Final = "report_signed"
"""Action of the audit entry, and kind of the event, that hold a signature."""

_HEX_64: Final = r"^[0-9a-f]{64}$"


class Signature(BaseModel):
    """What a person states about a report.

    Attributes
    ----------
    name, meaning, time
        Who signs, what for (``review``, ``approval``, ...) and when (UTC).
    user
        Account that ran the program.
    report, report_sha256
        Name of the report file and hash of its bytes.
    run_id, record_head
        The record, and the hash of its last audit entry before this signature.
    public_key, ed25519
        Hex of the raw public key (32 bytes) and of the signature (64 bytes) over :meth:`statement`; None without key.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_: str = Field(SIGNATURE_SCHEMA, alias="schema", pattern=r"^mfi\.signature/1$")
    name: str = Field(min_length=1, max_length=200)
    meaning: str = Field(min_length=1, max_length=200)
    time: str
    user: str
    report: str
    report_sha256: str = Field(pattern=_HEX_64)
    run_id: str
    record_head: str = Field(pattern=_HEX_64)
    public_key: str | None = Field(None, pattern=_HEX_64)
    ed25519: str | None = Field(None, pattern=r"^[0-9a-f]{128}$")

    def as_json(self) -> dict[str, Any]:
        """All of it, as it stands in the record and in the file beside the report."""
        return self.model_dump(by_alias=True)

    def statement(self) -> bytes:
        """The bytes that a key signs: canonical JSON of everything but the signature itself."""
        return rfc8785.dumps({k: v for k, v in self.as_json().items() if k != "ed25519"})


@dataclass(frozen=True, kw_only=True)
class SignatureVerdict:
    """What the check of a signed report found.

    Attributes
    ----------
    ok
        The report is signed, and neither it nor the record nor a signature was changed since.
    problem
        The first thing that is wrong, None if ``ok``.
    signatures
        Signatures of exactly this report, in order of time; what they say counts only if ``ok``.
    notes
        What could not be checked, for example that the signatures carry no key.
    """

    ok: bool
    problem: str | None
    signatures: tuple[Signature, ...]
    notes: tuple[str, ...]


def sidecar_path(report_path: Path) -> Path:
    """Where the signatures of a report lie beside it.

    Examples
    --------
    >>> sidecar_path(Path("report.html")).name
    'report.html.signature.json'
    """
    return report_path.with_name(f"{report_path.name}.signature.json")


def sign_report(
    record_path: Path,
    report_path: Path,
    *,
    name: str,
    meaning: str,
    key: Path | None = None,
    passphrase: bytes | None = None,
    user: str | None = None,
) -> Signature:
    """Sign a report of a finished record. Several people may sign the same report, one call each.

    A report over several records is signed in each of them, one call per record; the file beside the report then holds
    a signature per record.

    Parameters
    ----------
    record_path
        Record file, or folder of records (the newest is taken).
    report_path
        The report as it will be handed on; not a byte of it may change afterwards.
    name, meaning
        Who signs and what the signature means, for example ``approval``.
    key
        Ed25519 private key (PEM, PKCS 8); needs the extra ``signing``.
    passphrase
        Of the key file, if it has one.
    user
        Account in the audit chain; default: of the process.

    Returns
    -------
    Signature
        As it was written.

    Raises
    ------
    UserError
        If report, record or key cannot be read, the record is not finished or its audit chain is broken, or a signer's
        name or meaning is empty.
    RecordingError
        If the record cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from edge_app.recording.run_record import RunRecord
    >>> with tempfile.TemporaryDirectory() as name:
    ...     folder, report = Path(name), Path(name) / "report.html"
    ...     with RunRecord.create(
    ...         folder, run_id="r", settings={}, identity={}, info={}, classes=("glass", "unknown")
    ...     ) as record:
    ...         record.finish({})
    ...     _ = report.write_text("12 per mL")
    ...     signature = sign_report(record.path, report, name="A. Example", meaning="review")
    ...     good = check_signature(record.path, report).ok
    ...     _ = report.write_text("13 per mL")
    ...     print(signature.meaning, good, check_signature(record.path, report).ok)
    review True False
    """
    name, meaning = " ".join(name.split()), " ".join(meaning.split())
    verdict = check_signable(record_path, name=name, meaning=meaning)
    report_sha256 = _file_sha256(report_path)
    path, run_id, _ = _identify(record_path)
    # Read before anything is written. A report that was made anew loses the signatures of its former self here; the
    # record keeps them.
    sidecar = sidecar_path(report_path)
    earlier = [s for s in _read_sidecar(sidecar) if s.signature.report_sha256 == report_sha256]
    draft: dict[str, Any] = {
        "schema": SIGNATURE_SCHEMA,
        "name": name,
        "meaning": meaning,
        "time": utc_now(),
        "user": user or current_user(),
        "report": report_path.name,
        "report_sha256": report_sha256,
        "run_id": run_id,
        "record_head": verdict.head,
    }
    signature = Signature.model_validate(draft) if key is None else _with_key(draft, key, passphrase)
    head = add_audit_entry(
        path,
        action=ACTION,
        reason=f"{meaning}: {name} signed {report_path.name}",
        details=signature.as_json(),
        user=signature.user,
    )
    # The record first: a signature that is only there can be written beside the report again, not the other way round.
    beside = _Sidecar(signatures=(*earlier, _Signed(signature=signature, signed_head=head)))
    with atomic_file(sidecar) as file:
        file.write(beside.model_dump_json(by_alias=True, indent=1).encode() + b"\n")
    return signature


def check_signable(
    record_path: Path, *, name: str, meaning: str, key: Path | None = None, passphrase: bytes | None = None
) -> Verdict:
    """Whether a report of this record could be signed so: to be asked before a signature is printed in one.

    Parameters
    ----------
    record_path, name, meaning, key, passphrase
        As in :func:`sign_report`.

    Returns
    -------
    Verdict
        Of the record.

    Raises
    ------
    UserError
        If :func:`sign_report` would raise it for anything but the report file.
    """
    for field, text in (("name", name), ("meaning", meaning)):
        if not 1 <= len(" ".join(text.split())) <= 200:
            raise UserError(f"signature: {field} is {text!r}: 1 to 200 characters are needed")
    path, _, finished = _identify(record_path)
    verdict = verify_record(path)
    if not verdict.ok:
        raise UserError(f"{path}: is not signed, since its audit chain is broken: {verdict.first_broken}")
    if not finished:
        raise UserError(f"{path}: the run is not finished, its report cannot be signed yet")
    if key is not None:
        open_private_key(key, passphrase=passphrase)
    return verdict


def check_signature(record_path: Path, report_path: Path, *, trusted_key: Path | None = None) -> SignatureVerdict:
    """Check that a report is signed and that neither it, nor the record, nor a signature was changed since.

    Parameters
    ----------
    record_path
        Record file, or folder of records (the newest is taken).
    report_path
        The report; its signatures are looked for beside it and in the record.
    trusted_key
        Ed25519 public key (PEM) of the signer, known from elsewhere: at least one signature must be made with it.
        Without it a keyed signature only shows that name, time and meaning were not changed after signing.

    Raises
    ------
    UserError
        If report, record or key cannot be read at all.
    """
    report_sha256 = _file_sha256(report_path)
    path, run_id, _ = _identify(record_path)
    trusted = None if trusted_key is None else read_public_key(trusted_key)
    found: list[Signature] = []
    notes: list[str] = []
    problem = None
    try:
        beside = _beside(report_path, report_sha256, run_id, notes)
        found += _in_record(path, report_path, report_sha256, heads=[s.signed_head for s in beside])
        for signed in beside:
            if signed.signature not in found:
                raise _BrokenError(
                    f"{sidecar_path(report_path).name}: the signature of {signed.signature.name} is not in the record"
                )
        _check_keys(found, trusted, notes)
    except _BrokenError as broken:
        problem = str(broken)
    return SignatureVerdict(ok=problem is None, problem=problem, signatures=tuple(found), notes=tuple(notes))


class _BrokenError(Exception):
    """Carries what is wrong out of the checks."""


class _Signed(BaseModel):
    """A signature, and the hash of the audit entry that holds it: pins the record up to there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    signature: Signature
    signed_head: str = Field(pattern=_HEX_64)


class _Sidecar(BaseModel):
    """The file beside the report."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_: str = Field(SIGNATURE_SCHEMA, alias="schema", pattern=r"^mfi\.signature/1$")
    signatures: tuple[_Signed, ...]


def _read_sidecar(path: Path) -> tuple[_Signed, ...]:
    """Signatures beside a report; none if there is no such file.

    Raises
    ------
    UserError
        If it is there and is not what it should be.
    """
    if not path.exists():
        return ()
    try:
        return _Sidecar.model_validate_json(path.read_bytes()).signatures
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        key = ".".join(map(str, error.errors()[0]["loc"])) or "file"
        raise UserError(f"{path}: {key}: {error.errors()[0]['msg']}") from error


def _file_sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            whole = hashlib.sha256()
            while block := file.read(1 << 20):
                whole.update(block)
            return whole.hexdigest()
    except OSError as error:
        raise UserError(f"{path}: report cannot be read ({error.strerror})") from error


def _identify(record_path: Path) -> tuple[Path, str, bool]:
    """File, run id and whether it is finished."""
    with open_record(record_path) as record:
        return record.path, record.run_id, record.finished


def _beside(report: Path, report_sha256: str, run_id: str, notes: list[str]) -> list[_Signed]:
    """Signatures in the file beside the report that are of this record."""
    path = sidecar_path(report)
    try:
        signed = _read_sidecar(path)
    except UserError as error:
        raise _BrokenError(f"{path.name}: altered: {str(error).removeprefix(f'{path}: ')}") from error
    if not signed:
        notes.append(f"no {path.name} beside the report: entries cut off the record's end would not show")
    for s in signed:
        if s.signature.report_sha256 != report_sha256:
            raise _BrokenError(f"{report.name}: is not the file that {s.signature.name} signed on {s.signature.time}")
    others = sorted({s.signature.run_id for s in signed} - {run_id})
    if others:
        notes.append(f"also signed for, and to be checked with, the records {', '.join(others)}")
    return [s for s in signed if s.signature.run_id == run_id]


def _in_record(path: Path, report: Path, report_sha256: str, *, heads: Sequence[str]) -> list[Signature]:
    """Signatures of exactly this report, in a record whose chain is whole and holds all of ``heads``."""
    verdict = verify_record(path)
    if not verdict.ok:
        raise _BrokenError(f"{path.name}: {verdict.first_broken}")
    found, other_bytes = [], False
    with Record(path) as record:
        events = {f"events/{e.id}": e for e in record.events() if e.kind == ACTION}
        seen: set[str] = set()
        for entry in record.audit():
            for key in json.loads(entry.manifest) if entry.action == ACTION else ():
                signature = _of_event(key, events[key].details, record)
                if signature.record_head not in seen:
                    raise _BrokenError(f"{key}: the signature of {signature.name} is of another state of the record")
                if signature.report_sha256 == report_sha256:
                    found.append(signature)
                other_bytes |= signature.report == report.name
            seen.add(entry.entry_sha256)
    if not seen.issuperset(heads):
        raise _BrokenError(f"{path.name}: its audit chain was cut or written anew since {report.name} was signed")
    if not found and other_bytes:
        raise _BrokenError(f"{report.name}: is not the file that was signed under this name in {path.name}")
    if not found:
        raise _BrokenError(f"{report.name}: is not signed in {path.name}")
    return found


def _of_event(key: str, details: Mapping[str, Any], record: Record) -> Signature:
    try:
        signature = Signature.model_validate(details)
    except ValidationError as error:
        raise _BrokenError(f"{key}: holds no signature ({error.errors()[0]['msg']})") from error
    if signature.run_id != record.run_id:
        raise _BrokenError(f"{key}: is a signature for the run {signature.run_id}")
    return signature


def _check_keys(signatures: Sequence[Signature], trusted: str | None, notes: list[str]) -> None:
    for signature in signatures:
        if signature.public_key is None or signature.ed25519 is None:
            notes.append(f"the signature of {signature.name} carries no key: it shows changes, not who signed")
            continue
        if not is_signature(signature.ed25519, of=signature.statement(), by=signature.public_key):
            raise _BrokenError(f"the signature of {signature.name} was not made with its key")
        if trusted is None:
            notes.append(f"the key {signature.public_key[:16]}... of {signature.name} was compared with no known one")
    if trusted is not None and trusted not in {s.public_key for s in signatures}:
        raise _BrokenError(f"no signature was made with the given key {trusted[:16]}...")


def _with_key(draft: Mapping[str, Any], path: Path, passphrase: bytes | None) -> Signature:
    """Sign the statement with an Ed25519 key file."""
    private = open_private_key(path, passphrase=passphrase)
    unsigned = Signature.model_validate({**draft, "public_key": private.public_hex})
    return unsigned.model_copy(update={"ed25519": private.sign(unsigned.statement())})
