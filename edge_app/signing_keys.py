"""Ed25519 key files (RFC 8032): to sign a statement with one's own, and to check one against a known signer's.

Needs the extra ``signing``, and says so in one line where it is not installed.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_app.errors import UserError

__all__ = ["PrivateKey", "fingerprint", "is_signature", "open_private_key", "read_public_key"]


@dataclass(frozen=True)
class PrivateKey:
    """An opened private key; ``public_hex`` is its public half, 32 raw bytes as hex."""

    public_hex: str
    _key: Any

    def sign(self, message: bytes) -> str:
        """Signature of a message, 64 bytes as hex."""
        return str(self._key.sign(message).hex())


def fingerprint(public_hex: str) -> str:
    """Short name of a public key: the first 16 hex digits of the SHA-256 over its 32 raw bytes.

    Examples
    --------
    >>> fingerprint("00" * 32)
    '66687aadf862bd77'
    """
    return hashlib.sha256(bytes.fromhex(public_hex)).hexdigest()[:16]


def open_private_key(path: Path, *, passphrase: bytes | None = None) -> PrivateKey:
    """Open an Ed25519 private key file (PEM, PKCS 8).

    Raises
    ------
    UserError
        If it cannot be read or opened, or is a key of another kind.
    """
    ed25519, serialization, errors = _cryptography()
    data = _read(path)
    try:
        private = serialization.load_pem_private_key(data, password=passphrase)
    except (ValueError, TypeError, errors.UnsupportedAlgorithm) as error:
        raise UserError(f"{path}: key cannot be opened ({' '.join(str(error).split())})") from error
    if not isinstance(private, ed25519.Ed25519PrivateKey):
        raise UserError(f"{path}: is a key of another kind, an Ed25519 private key (PEM) is needed")
    return PrivateKey(private.public_key().public_bytes_raw().hex(), private)


def read_public_key(path: Path) -> str:
    """Hex of an Ed25519 public key file (PEM).

    Raises
    ------
    UserError
        If it cannot be read or opened, or is a key of another kind.
    """
    ed25519, serialization, errors = _cryptography()
    data = _read(path)
    try:
        public = serialization.load_pem_public_key(data)
    except (ValueError, errors.UnsupportedAlgorithm) as error:
        raise UserError(f"{path}: public key cannot be opened ({' '.join(str(error).split())})") from error
    if not isinstance(public, ed25519.Ed25519PublicKey):
        raise UserError(f"{path}: is a key of another kind, an Ed25519 public key (PEM) is needed")
    return str(public.public_bytes_raw().hex())


def is_signature(signature_hex: str, *, of: bytes, by: str) -> bool:
    """Whether a signature of the message ``of`` was made with the private half of the public key ``by`` (hex)."""
    ed25519, _, errors = _cryptography()
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(by)).verify(bytes.fromhex(signature_hex), of)
    except (errors.InvalidSignature, ValueError):
        return False
    return True


def _cryptography() -> tuple[Any, Any, Any]:
    """The library's Ed25519, its key files and its errors, once they are needed."""
    try:
        from cryptography import exceptions
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise UserError("signatures with a key need cryptography: pip install 'edge-app[signing]'") from error
    return ed25519, serialization, exceptions


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: key cannot be read ({error.strerror})") from error
