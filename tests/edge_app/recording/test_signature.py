"""A signed report: any byte of report, record or signature that changes breaks it."""

import json
import shutil
import sqlite3
import sys
from pathlib import Path

import pytest
import recorded_runs as runs
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from edge_app.errors import UserError
from edge_app.recording.audit import verify_record
from edge_app.recording.run_record import add_audit_entry
from edge_app.recording.signature import check_signature, sidecar_path, sign_report


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    return runs.write_run(tmp_path_factory.mktemp("run"), windows=2)


@pytest.fixture
def record(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(finished, tmp_path / finished.name))


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "report.html"
    path.write_bytes(b"<html>1,234 per mL</html>\n")
    return path


def key_files(folder: Path, *, name: str = "key", passphrase: bytes | None = None) -> tuple[Path, Path]:
    private = ed25519.Ed25519PrivateKey.generate()
    locked = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    files = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    pkcs8 = serialization.PrivateFormat.PKCS8
    files[0].write_bytes(private.private_bytes(serialization.Encoding.PEM, pkcs8, locked))
    files[1].write_bytes(
        private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return files


def change(record: Path, statement: str, *values: object) -> None:
    connection = sqlite3.connect(record)
    with connection:
        assert connection.execute(statement, values).rowcount == 1
    connection.close()


def test_a_signed_report_is_found_good_with_who_when_and_what_for(record, report):
    head = verify_record(record).head
    made = sign_report(record, report, name=" Ada  Example ", meaning="approval", user="ada")
    assert (made.name, made.meaning, made.user, made.record_head) == ("Ada Example", "approval", "ada", head)
    assert (made.run_id, made.report, made.public_key) == (runs.RUN_ID, "report.html", None)
    verdict = check_signature(record, report)
    assert (verdict.ok, verdict.problem, verdict.signatures) == (True, None, (made,))
    assert any("no key" in note for note in verdict.notes)
    assert verify_record(record).ok


def test_two_people_sign_and_entries_that_follow_break_nothing(record, report):
    sign_report(record, report, name="Ada", meaning="review")
    add_audit_entry(record, action="printed", reason="for the file")
    sign_report(record, report, name="Bo", meaning="approval")
    verdict = check_signature(record, report)
    assert verdict.ok
    assert [s.name for s in verdict.signatures] == ["Ada", "Bo"]


@pytest.mark.parametrize("at", [0, 10, -1])
def test_one_byte_of_the_report_breaks_it(record, report, at):
    sign_report(record, report, name="Ada", meaning="review")
    data = bytearray(report.read_bytes())
    data[at] ^= 1
    report.write_bytes(data)
    for remove_sidecar in (False, True):
        if remove_sidecar:
            sidecar_path(report).unlink()
        verdict = check_signature(record, report)
        assert not verdict.ok
        assert "report.html: is not the file" in verdict.problem


def test_a_report_made_anew_can_be_signed_anew(record, report):
    sign_report(record, report, name="Ada", meaning="review")
    report.write_bytes(b"another")
    sign_report(record, report, name="Bo", meaning="review")
    verdict = check_signature(record, report)
    assert verdict.ok
    assert [s.name for s in verdict.signatures] == ["Bo"]


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE windows SET volume_ml = volume_ml * 2 WHERE seq = 1", "windows/1"),
        ("UPDATE particle_columns SET data = zeroblob(length(data)) WHERE seq = 0 AND name = 'ecd_um'", "particle_"),
        ("UPDATE events SET details = replace(details, 'Ada', 'Eve') WHERE kind = 'report_signed'", "events/"),
        ("UPDATE audit SET user = 'eve' WHERE action = 'report_signed'", "audit/"),
    ],
)
def test_one_change_in_the_record_breaks_it(record, report, statement, named):
    sign_report(record, report, name="Ada", meaning="review")
    change(record, statement)
    verdict = check_signature(record, report)
    assert not verdict.ok
    assert named in verdict.problem


def test_a_record_set_back_to_before_the_signature_is_found(record, report, finished):
    sign_report(record, report, name="Ada", meaning="review")
    shutil.copy(finished, record)
    verdict = check_signature(record, report)
    assert (verdict.ok, verdict.signatures) == (False, ())
    # Signed again, the record has a signature of its own, but not the one beside the report.
    other = report.with_name("other.html")
    shutil.copy(report, other)
    sign_report(record, other, name="Ada", meaning="review")
    assert "cut or written anew" in check_signature(record, report).problem


@pytest.mark.parametrize(("old", "new"), [("Ada", "Eve"), ("review", "approval"), ('"schema"', '"shema"'), ("{", "(")])
def test_a_change_beside_the_report_is_found(record, report, old, new):
    sign_report(record, report, name="Ada", meaning="review")
    beside = sidecar_path(report)
    beside.write_text(beside.read_text().replace(old, new, 1))
    assert not check_signature(record, report).ok


def test_a_signature_copied_into_another_record_is_refused(record, report, tmp_path):
    made = sign_report(record, report, name="Ada", meaning="review")
    other = runs.write_run(tmp_path / "other", windows=2, run_id="other-run")
    add_audit_entry(other, action="report_signed", reason="forged", details=made.as_json())
    verdict = check_signature(other, report)
    assert not verdict.ok
    assert runs.RUN_ID in verdict.problem
    again = runs.write_run(tmp_path / "again", windows=1)
    add_audit_entry(again, action="report_signed", reason="forged", details=made.as_json())
    sidecar_path(report).unlink()
    assert "another state" in check_signature(again, report).problem


def test_with_a_key_the_signer_can_be_checked(record, report, tmp_path):
    private, public = key_files(tmp_path)
    _, foreign = key_files(tmp_path, name="foreign")
    made = sign_report(record, report, name="Ada", meaning="approval", key=private)
    assert len(bytes.fromhex(made.ed25519)) == 64
    verdict = check_signature(record, report, trusted_key=public)
    assert (verdict.ok, verdict.notes) == (True, ())
    assert "no known one" in check_signature(record, report).notes[0]
    assert "given key" in check_signature(record, report, trusted_key=foreign).problem


def test_a_keyed_signature_in_a_record_written_anew_is_found(record, report, tmp_path):
    private, _ = key_files(tmp_path)
    made = sign_report(record, report, name="Ada", meaning="review", key=private)
    forged = runs.write_run(tmp_path / "forged", windows=2)
    details = {**made.as_json(), "meaning": "approval", "record_head": verify_record(forged).head}
    add_audit_entry(forged, action="report_signed", reason="forged", details=details)
    sidecar_path(report).unlink()
    assert "not made with its key" in check_signature(forged, report).problem


def test_keys_that_cannot_be_used_are_named_and_nothing_is_signed(record, report, tmp_path):
    before = verify_record(record).head
    locked, _ = key_files(tmp_path, name="locked", passphrase=b"secret")
    curve = tmp_path / "ec.pem"
    curve.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    (tmp_path / "text.pem").write_text("no key")
    for key, word in [("locked.pem", "opened"), ("ec.pem", "Ed25519"), ("text.pem", "opened"), ("none.pem", "read")]:
        with pytest.raises(UserError, match=word) as caught:
            sign_report(record, report, name="Ada", meaning="review", key=tmp_path / key)
        assert key in str(caught.value)
    assert verify_record(record).head == before
    assert not sidecar_path(report).exists()
    assert sign_report(record, report, name="Ada", meaning="review", key=locked, passphrase=b"secret").ed25519


def test_without_the_library_one_line_says_what_to_install(record, report, tmp_path, monkeypatch):
    private, _ = key_files(tmp_path)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(UserError, match=r"edge-app\[signing\]"):
        sign_report(record, report, name="Ada", meaning="review", key=private)
    assert sign_report(record, report, name="Ada", meaning="review").public_key is None


def test_what_cannot_be_signed_is_refused(record, report, tmp_path):
    with pytest.raises(UserError, match="meaning"):
        sign_report(record, report, name="Ada", meaning="  ")
    with pytest.raises(UserError, match=r"none\.html"):
        sign_report(record, tmp_path / "none.html", name="Ada", meaning="review")
    with pytest.raises(UserError, match="not finished"):
        sign_report(runs.write_run(tmp_path / "open", finish=False), report, name="Ada", meaning="review")
    change(record, "UPDATE windows SET frames = frames + 1 WHERE seq = 0")
    with pytest.raises(UserError, match="windows/0"):
        sign_report(record, report, name="Ada", meaning="review")
    assert not sidecar_path(report).exists()


def test_a_report_over_two_records_is_signed_in_both(record, report, tmp_path):
    other = runs.write_run(tmp_path / "other", windows=1, run_id="other-run")
    for path in (record, other):
        sign_report(path, report, name="Ada", meaning="review")
    for path, more in ((record, "other-run"), (other, runs.RUN_ID)):
        verdict = check_signature(path, report)
        assert verdict.ok
        assert any(more in note for note in verdict.notes)
    assert len(json.loads(sidecar_path(report).read_text())["signatures"]) == 2
