import json
import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from converters.__main__ import main
from converters.bundle_files import with_files
from edge_app.classification.bundle import SHIPPED, Bundle
from edge_app.classification.bundle_signature import SIGNATURE_NAME
from edge_app.cli.main import edge_app
from edge_app.errors import UserError
from edge_app.signing_keys import fingerprint


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED, tmp_path / "bundle"))


def key_pair(folder: Path, name: str, passphrase: bytes | None = None) -> tuple[Path, Path, str]:
    private = ed25519.Ed25519PrivateKey.generate()
    locked = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    files = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    pem = serialization.Encoding.PEM
    files[0].write_bytes(private.private_bytes(pem, serialization.PrivateFormat.PKCS8, locked))
    files[1].write_bytes(private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return *files, fingerprint(private.public_key().public_bytes_raw().hex())


def sign(bundle: Path, key: Path, *more: str) -> str:
    done = CliRunner().invoke(main, ["sign", "--bundle", str(bundle), "--key", str(key), *more])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_signed_bundle_is_taken_and_says_by_which_key(bundle: Path, tmp_path: Path) -> None:
    key, public, name = key_pair(tmp_path, "release")
    assert name in sign(bundle, key)
    assert Bundle.load(bundle, trusted_keys=[public]).signed_by == name
    assert Bundle.load(bundle).signed_by is None


def test_the_signature_is_over_the_very_bytes_of_bundle_json(bundle: Path, tmp_path: Path) -> None:
    key, public, _ = key_pair(tmp_path, "release")
    sign(bundle, key)
    signature = json.loads((bundle / SIGNATURE_NAME).read_text())
    known = serialization.load_pem_public_key(public.read_bytes())
    assert isinstance(known, ed25519.Ed25519PublicKey)
    known.verify(bytes.fromhex(signature["ed25519"]), (bundle / "bundle.json").read_bytes())


def test_an_unsigned_bundle_is_refused_where_keys_are_trusted(bundle: Path, tmp_path: Path) -> None:
    _, public, _ = key_pair(tmp_path, "release")
    with pytest.raises(UserError, match="not signed"):
        Bundle.load(bundle, trusted_keys=[public])
    with pytest.raises(UserError, match="not signed"):
        Bundle.load(None, trusted_keys=[public])


def test_another_key_is_refused_and_named(bundle: Path, tmp_path: Path) -> None:
    key, _, theirs = key_pair(tmp_path, "other")
    _, public, ours = key_pair(tmp_path, "release")
    sign(bundle, key)
    with pytest.raises(UserError, match=rf"key {theirs}, which is not one of trusted_keys \({ours}\); refused"):
        Bundle.load(bundle, trusted_keys=[public])


def test_any_change_after_signing_is_refused(bundle: Path, tmp_path: Path) -> None:
    key, public, _ = key_pair(tmp_path, "release")
    sign(bundle, key)
    card = bundle / "bundle.json"
    card.write_bytes(card.read_bytes() + b"\n")
    with pytest.raises(UserError, match="not a signature of this bundle"):
        Bundle.load(bundle, trusted_keys=[public])
    sign(bundle, key)
    (bundle / "MODEL_CARD.md").write_text("better")
    with pytest.raises(UserError, match="SHA-256"):
        Bundle.load(bundle, trusted_keys=[public])


@pytest.mark.parametrize(
    "content", ["", "{}", '{"schema": "mfi.bundle-signature/1", "public_key": "x", "ed25519": ""}']
)
def test_what_is_no_signature_is_one_line(bundle: Path, tmp_path: Path, content: str) -> None:
    _, public, _ = key_pair(tmp_path, "release")
    (bundle / SIGNATURE_NAME).write_text(content)
    with pytest.raises(UserError, match="is no bundle signature") as caught:
        Bundle.load(bundle, trusted_keys=[public])
    assert "\n" not in str(caught.value)


def test_a_copy_with_other_files_loses_the_signature(bundle: Path, tmp_path: Path) -> None:
    key, _, _ = key_pair(tmp_path, "release")
    sign(bundle, key)
    copy = with_files(Bundle.load(bundle), tmp_path / "copy", {"more.txt": b"x"})
    assert not (copy.directory / SIGNATURE_NAME).exists()


def test_a_locked_key_needs_its_passphrase(bundle: Path, tmp_path: Path) -> None:
    key, public, name = key_pair(tmp_path, "release", passphrase=b"opens it")
    done = CliRunner().invoke(main, ["sign", "--bundle", str(bundle), "--key", str(key)])
    assert done.exit_code == 2
    (tmp_path / "pass").write_bytes(b"opens it\n")
    sign(bundle, key, "--passphrase-file", str(tmp_path / "pass"))
    assert Bundle.load(bundle, trusted_keys=[public]).signed_by == name


def test_a_key_of_another_kind_is_refused(bundle: Path, tmp_path: Path) -> None:
    pem = serialization.Encoding.PEM
    other = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "ec.pem").write_bytes(
        other.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    done = CliRunner().invoke(main, ["sign", "--bundle", str(bundle), "--key", str(tmp_path / "ec.pem")])
    assert done.exit_code == 2
    assert "Ed25519 private key (PEM) is needed" in done.output
    assert not (bundle / SIGNATURE_NAME).exists()


def test_without_cryptography_it_says_what_to_install(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, public, _ = key_pair(tmp_path, "release")
    for name in [m for m in sys.modules if m.split(".")[0] == "cryptography"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(UserError, match=r"pip install 'edge-app\[signing\]'"):
        Bundle.load(bundle, trusted_keys=[public])
    assert Bundle.load(bundle).signed_by is None


def test_the_device_refuses_by_its_config_file(bundle: Path, tmp_path: Path) -> None:
    key, public, _ = key_pair(tmp_path, "release")
    config = tmp_path / "config.toml"
    config.write_text(f'[classification]\nbundle = "{bundle}"\ntrusted_keys = ["{public}"]\n')
    run = ["run", "sim:?frames=3", "--out", str(tmp_path / "runs"), "--config", str(config)]
    done = CliRunner().invoke(edge_app, run)
    assert isinstance(done.exception, UserError)  # the program's entry makes one line and exit code 2 of it
    assert "bundle is not signed" in str(done.exception)
    sign(bundle, key)
    done = CliRunner().invoke(edge_app, [*run, "--json"])
    assert done.exit_code == 0, done.output
