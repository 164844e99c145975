"""A bundle with files added to it: converted forms of its network, named and hashed like the rest."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from converters.bundle_writer import check_target
from edge_app.classification.bundle import Bundle
from edge_app.errors import UserError

__all__ = ["with_files"]


def with_files(bundle: Bundle, out: Path, files: Mapping[str, bytes]) -> Bundle:
    """Write a copy of a bundle that holds more files.

    A signature is not copied: it was made over a ``bundle.json`` that did not name the new files.

    Parameters
    ----------
    bundle : Bundle
        Where from.
    out : Path
        Folder of the copy; the bundle's own folder to add them there.
    files : mapping of str to bytes
        Name -> content; a file of that name is replaced.

    Returns
    -------
    Bundle
        Read back and verified.

    Raises
    ------
    UserError
        The folder holds something else, or cannot be written.
    """
    check_target(out)
    description = json.loads((bundle.directory / "bundle.json").read_bytes())
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from None
    try:
        work.chmod(0o755)
        for name in description["files"]:
            shutil.copyfile(bundle.directory / name, work / name)
        for name, content in files.items():
            (work / name).write_bytes(content)
            description["files"][name] = hashlib.sha256(content).hexdigest()
        description["files"] = dict(sorted(description["files"].items()))
        (work / "bundle.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
        Bundle.load(work)
        if out.exists():
            shutil.rmtree(out)
        work.rename(out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Bundle.load(out)
