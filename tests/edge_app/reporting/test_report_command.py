"""``edge-app report`` as it is typed."""

import hashlib
import json
from pathlib import Path

import pytest
import recorded_runs as runs
from click.testing import CliRunner, Result

from edge_app.cli.report import report
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
