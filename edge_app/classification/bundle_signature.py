"""Ed25519 signature of a bundle: ``bundle.sig`` beside ``bundle.json``, over its very bytes, made by who released it.

``bundle.json`` holds the SHA-256 of every other file, so the one signature covers the whole folder. A device that is
told which keys to trust (``[classification] trusted_keys``) takes no other bundle.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge_app.errors import UserError
from edge_app.signing_keys import fingerprint, is_signature, read_public_key

__all__ = ["SIGNATURE_NAME", "BundleSignature", "check_bundle_signature"]

SIGNATURE_NAME: Final = "bundle.sig"


class BundleSignature(BaseModel):
    """``bundle.sig``: hex of the signer's public key and of the signature over the bytes of ``bundle.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_name: Literal["mfi.bundle-signature/1"] = Field("mfi.bundle-signature/1", alias="schema")
    public_key: str = Field(pattern=r"^[0-9a-f]{64}$")
    ed25519: str = Field(pattern=r"^[0-9a-f]{128}$")


def check_bundle_signature(directory: Path, description: bytes, *, trusted_keys: Sequence[Path]) -> str:
    """Check that a bundle was signed with one of the trusted keys.

    Parameters
    ----------
    directory
        The bundle.
    description
        The bytes of its ``bundle.json`` as they were read, so that nothing can change between check and use.
    trusted_keys
        Ed25519 public key files (PEM).

    Returns
    -------
    str
        Fingerprint of the key, see `edge_app.signing_keys.fingerprint`.

    Raises
    ------
    UserError
        The bundle is not signed, the signature is not by a trusted key or not over this ``bundle.json``, or a key
        cannot be read.
    """
    trusted = {read_public_key(path) for path in trusted_keys}
    path = directory / SIGNATURE_NAME
    try:
        signature = BundleSignature.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(
            f"{directory}: bundle is not signed ({SIGNATURE_NAME} is missing), but trusted_keys is set; refused"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "file"
        raise UserError(f"{path}: is no bundle signature: {key}: {first['msg']}") from None
    if signature.public_key not in trusted:
        raise UserError(
            f"{path}: signed with key {fingerprint(signature.public_key)}, which is not one of trusted_keys "
            f"({', '.join(sorted(map(fingerprint, trusted)))}); refused"
        )
    if not is_signature(signature.ed25519, of=description, by=signature.public_key):
        raise UserError(
            f"{path}: is not a signature of this bundle.json by key {fingerprint(signature.public_key)}; refused"
        )
    return fingerprint(signature.public_key)
