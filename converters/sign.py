"""Signing a bundle for devices that take only what a known key released."""

from __future__ import annotations

from pathlib import Path

from edge_app.classification.bundle import Bundle
from edge_app.classification.bundle_signature import SIGNATURE_NAME, BundleSignature
from edge_app.errors import UserError
from edge_app.signing_keys import fingerprint, open_private_key

__all__ = ["read_passphrase", "sign_bundle"]


def sign_bundle(bundle: Bundle, key: Path, *, passphrase: bytes | None = None) -> str:
    """Write ``bundle.sig`` over a bundle's ``bundle.json``.

    Parameters
    ----------
    bundle : Bundle
        Loaded, so its files are those that ``bundle.json`` names; an earlier signature is replaced.
    key : Path
        Ed25519 private key file (PEM, PKCS 8).
    passphrase : bytes, optional
        Of the key file, if it has one.

    Returns
    -------
    str
        Fingerprint of the key.

    Raises
    ------
    UserError
        The key cannot be opened, or the signature cannot be written.
    """
    private = open_private_key(key, passphrase=passphrase)
    path = bundle.directory / SIGNATURE_NAME
    signed = private.sign((bundle.directory / "bundle.json").read_bytes())
    signature = BundleSignature(public_key=private.public_hex, ed25519=signed)
    try:
        path.write_text(signature.model_dump_json(by_alias=True, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
    return fingerprint(private.public_hex)


def read_passphrase(path: Path) -> bytes:
    """First line of a file.

    Raises
    ------
    UserError
        It cannot be read, or its first line is empty.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"{path}: passphrase cannot be read ({error.strerror})") from None
    if not lines or not lines[0]:
        raise UserError(f"{path}: first line is empty, the passphrase of the key is needed")
    return lines[0]
