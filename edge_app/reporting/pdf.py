"""The report as PDF, printed by the machine's Chromium: the pages that a reader's own browser prints."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from edge_app.errors import UserError
from edge_app.recording.atomic_file import atomic_file

__all__ = ["BROWSERS", "find_browser", "write_pdf"]

BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome", "msedge")
"""Programs that are looked for, in this order; ``EDGE_APP_CHROMIUM`` names another."""

_TIME_LIMIT_S: Final = 180.0


def find_browser() -> Path | None:
    """The first Chromium on the search path, None if there is none."""
    for name in (os.environ.get("EDGE_APP_CHROMIUM", ""), *BROWSERS):
        found = shutil.which(name) if name else None
        if found:
            return Path(found)
    return None


def write_pdf(html: bytes, out: Path) -> None:
    """Print a report to PDF (A4).

    Unlike the HTML, its bytes hold the time at which it was printed.

    Parameters
    ----------
    html
        The report.
    out
        File to write; it is there whole or not at all.

    Raises
    ------
    UserError
        If no Chromium is installed or it fails, or the file cannot be written there.
    """
    browser = find_browser()
    if browser is None:
        raise UserError(
            "PDF: no Chromium on this machine: install the package chromium, name one in EDGE_APP_CHROMIUM, "
            "or print the HTML from any browser"
        )
    with atomic_file(out) as file, tempfile.TemporaryDirectory(prefix="edge-app-pdf-") as name:
        folder = Path(name).resolve()
        page, printed = folder / "report.html", folder / "report.pdf"
        page.write_bytes(html)
        command = [
            str(browser), "--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--disable-extensions", "--disable-dev-shm-usage",
            f"--user-data-dir={folder / 'profile'}", "--no-pdf-header-footer",
            f"--print-to-pdf={printed}", page.as_uri(),
        ]  # fmt: skip
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            # Chromium refuses to build its sandbox as root; the page is our own and loads nothing.
            command.insert(1, "--no-sandbox")
        try:
            done = subprocess.run(command, capture_output=True, timeout=_TIME_LIMIT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UserError(f"PDF: {browser} did not print the report ({error})") from error
        if done.returncode != 0 or not printed.is_file():
            words = done.stderr.decode(errors="replace").strip().splitlines()
            raise UserError(
                f"PDF: {browser} failed with exit code {done.returncode}: {words[-1] if words else 'no word'}"
            )
        file.write(printed.read_bytes())
