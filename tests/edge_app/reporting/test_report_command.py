"""``edge-app report`` as it is typed."""

import hashlib
import json
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest
import recorded_runs as runs
from click.testing import CliRunner, Result

from edge_app.cli.report import report
from edge_app.cli.verify import verify
from edge_app.errors import UserError
from edge_app.recording.signature import check_signature
from edge_app.reporting.pdf import BROWSERS, find_browser


def call(*arguments: object) -> Result:
    return CliRunner().invoke(report, [str(a) for a in arguments], catch_exceptions=False)


def test_it_writes_html_and_names_its_hash(tmp_path: Path) -> None:
    runs.write_run(tmp_path / "run")
    out = tmp_path / "report.html"
    done = call(tmp_path / "run", "-o", out, "--limits", "usp-788", "--container-ml", 1, "--json")
    assert done.exit_code == 0
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["files"] == [str(out)]
    assert found["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert out.read_text().startswith("<!doctype html>")


def test_a_signed_report_can_be_checked(tmp_path: Path) -> None:
    record = runs.write_run(tmp_path / "run")
    out = tmp_path / "report.html"
    call(record, "-o", out, "--sign", "A. Example", "--meaning", "approval")
    verdict = check_signature(record, out)
    assert verdict.ok
    assert [(s.name, s.meaning) for s in verdict.signatures] == [("A. Example", "approval")]
    assert "A. Example" in out.read_text()
    out.write_bytes(out.read_bytes() + b" ")
    assert not check_signature(record, out).ok


def test_limits_of_ones_own(tmp_path: Path) -> None:
    record = runs.write_run(tmp_path / "run")
    limits = tmp_path / "limits.toml"
    limits.write_text(
        '[[standard]]\nid = "release"\nname = "Release limits"\ntitle = "Product X"\napplies_to = "product X"\n'
        'citation = "Specification 12"\n[[standard.limit]]\nmethod = "light obscuration"\nsize_um = 10.0\n'
        'maximum = 50.0\nper = "mL"\n'
    )
    out = tmp_path / "report.html"
    call(record, "-o", out, "--limits", "release", "--limits-file", limits, "--container-ml", 1)
    assert "Compared with the limits of Release limits (informational, flow imaging)" in out.read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sign", "A"], "--sign and --meaning go together"),
        (["--key", "key.pem"], "--key"),
        (["--limits", "usp-788"], "--container-ml"),
    ],
)
def test_wrong_options_write_nothing(tmp_path: Path, options: list[str], message: str) -> None:
    record = runs.write_run(tmp_path / "run")
    with pytest.raises(UserError, match=message):
        call(record, "-o", tmp_path / "report.html", *options)
    assert not (tmp_path / "report.html").exists()


def test_without_chromium_the_pdf_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = runs.write_run(tmp_path / "run")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("EDGE_APP_CHROMIUM", raising=False)
    with pytest.raises(UserError, match="no Chromium on this machine") as caught:
        call(record, "-o", tmp_path / "report.html", "--pdf", tmp_path / "report.pdf")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report.pdf").exists()


def test_a_browser_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = runs.write_run(tmp_path / "run")
    broken = tmp_path / "browser"
    broken.write_text("#!/bin/sh\necho no display >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("EDGE_APP_CHROMIUM", str(broken))
    with pytest.raises(UserError, match="exit code 3: no display"):
        call(record, "-o", tmp_path / "report.html", "--pdf", tmp_path / "report.pdf")
    assert not (tmp_path / "report.pdf").exists()


@pytest.mark.skipif(find_browser() is None, reason=f"no Chromium here ({', '.join(BROWSERS)})")
def test_html_and_pdf_by_one_command(tmp_path: Path) -> None:
    record = runs.write_run(tmp_path / "run")
    out, pdf = tmp_path / "report.html", tmp_path / "report.pdf"
    done = call(record, "-o", out, "--pdf", pdf)
    assert done.stdout.splitlines()[:2] == [str(out), str(pdf)]
    assert pdf.read_bytes().startswith(b"%PDF-")


def test_a_refused_signature_leaves_no_report_that_says_it_is_signed(tmp_path: Path) -> None:
    record, out = runs.write_run(tmp_path / "run"), tmp_path / "report.html"
    with sqlite3.connect(record) as connection:
        connection.execute("DELETE FROM windows WHERE seq = 1")
    with pytest.raises(UserError, match="is not signed, since its audit chain is broken: windows/1: missing"):
        call(record, "-o", out, "--sign", "A. Example", "--meaning", "approval")
    assert not out.exists()
    open_record = runs.write_run(tmp_path / "open", finish=False)
    with pytest.raises(UserError, match="not finished"):
        call(open_record, "-o", out, "--sign", "A. Example", "--meaning", "approval")
    assert not out.exists()


def test_what_is_red_in_the_report_is_said_on_the_terminal(tmp_path: Path) -> None:
    record = runs.write_run(tmp_path / "run")
    with sqlite3.connect(record) as connection:
        connection.execute("DELETE FROM windows WHERE seq = 1")
    done = call(record, "-o", tmp_path / "report.html", "--json")
    assert done.exit_code == 0
    said = json.loads(done.stdout.splitlines()[-1])["warnings"]
    broken = "windows/1: missing (audit entry 3, window)"
    assert said[0] == f"Record altered: The audit chain of the run record is broken: {broken}."
    assert said[1].startswith("Not calibrated: ")
    assert done.stderr.splitlines() == said


def test_of_several_records_in_a_folder_the_newest_is_taken_and_named(tmp_path: Path) -> None:
    for run_id in ("20260101t000000z-aaaa", "20260102t000000z-bbbb"):
        runs.write_run(tmp_path / "run", run_id=run_id)
    done = call(tmp_path / "run", "-o", tmp_path / "report.html")
    assert "holds 2 records: the newest, 20260102t000000z-bbbb.sqlite, is taken" in done.stderr
    checked = CliRunner().invoke(verify, [str(tmp_path / "run")])
    assert "holds 2 records: the newest, 20260102t000000z-bbbb.sqlite, is taken" in checked.stderr


def test_a_signed_report_is_checked_from_the_command_line(tmp_path: Path) -> None:
    record, out = runs.write_run(tmp_path / "run"), tmp_path / "report.html"
    call(record, "-o", out, "--sign", "A. Example", "--meaning", "approval")

    def check(*options: object) -> Result:
        return CliRunner().invoke(verify, [str(record), "--report", str(out), *map(str, options)])

    good = check()
    assert good.exit_code == 0
    assert good.stdout.startswith("SIGNED  report.html: A. Example, approval, 2")
    assert json.loads(check("--json").stdout)["signatures"][0]["name"] == "A. Example"
    out.write_bytes(out.read_bytes() + b" ")
    bad = check()
    assert bad.exit_code == 1
    assert bad.stdout.startswith("NOT AS SIGNED  report.html: is not the file that A. Example signed on 2")
    assert json.loads(check("--json").stdout)["ok"] is False
    unsigned = tmp_path / "other.html"
    unsigned.write_text("x")
    other = CliRunner().invoke(verify, [str(record), "--report", str(unsigned)])
    assert other.exit_code == 1
    assert "NOT AS SIGNED  other.html: is not signed in" in other.stdout


def test_a_second_person_signs_the_same_file(tmp_path: Path) -> None:
    record, out = runs.write_run(tmp_path / "run"), tmp_path / "report.html"
    with pytest.raises(UserError, match="report cannot be read"):
        call(record, "--countersign", out, "--sign", "B. Officer", "--meaning", "approval")
    call(record, "-o", out, "--sign", "A. Example", "--meaning", "review")
    before = out.read_bytes()
    done = call(record, "--countersign", out, "--sign", "B. Officer", "--meaning", "approval", "--json")
    assert json.loads(done.stdout)["sha256"] == hashlib.sha256(before).hexdigest()
    assert out.read_bytes() == before
    verdict = check_signature(record, out)
    assert verdict.ok
    assert [(s.name, s.meaning) for s in verdict.signatures] == [("A. Example", "review"), ("B. Officer", "approval")]
    out.write_bytes(before + b" ")
    with pytest.raises(UserError, match=r"is not countersigned: report\.html: is not the file that A\. Example signed"):
        call(record, "--countersign", out, "--sign", "C. Third", "--meaning", "approval")
    with pytest.raises(UserError, match="--countersign goes with --sign"):
        call(record, "--countersign", out)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_protected_key_signs_with_its_passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cryptography")
    record, out, key = runs.write_run(tmp_path / "run"), tmp_path / "report.html", tmp_path / "ada.pem"
    made = ["openssl", "genpkey", "-algorithm", "ed25519", "-aes256", "-pass", "pass:secret", "-out", str(key)]
    subprocess.run(made, check=True, capture_output=True)
    public = tmp_path / "ada.pub.pem"
    shown = ["openssl", "pkey", "-in", str(key), "-passin", "pass:secret", "-pubout", "-out", str(public)]
    subprocess.run(shown, check=True, capture_output=True)
    options = ("-o", out, "--sign", "Ada", "--meaning", "approval", "--key", key)
    with pytest.raises(UserError, match="the key has a passphrase: give it as EDGE_APP_KEY_PASSPHRASE"):
        call(record, *options)
    monkeypatch.setenv("EDGE_APP_KEY_PASSPHRASE", "wrong")
    with pytest.raises(UserError, match="key cannot be opened"):
        call(record, *options)
    assert not out.exists()
    monkeypatch.setenv("EDGE_APP_KEY_PASSPHRASE", "secret")
    assert call(record, *options).exit_code == 0
    checked = CliRunner().invoke(verify, [str(record), "--report", str(out), "--trusted-key", str(public)])
    assert checked.exit_code == 0, checked.output
