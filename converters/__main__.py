"""``python -m converters`` (also ``edge-convert``): a bundle's network for other devices, and its signature."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from edge_app.classification.bundle import Bundle
from edge_app.cli.one_line_errors import OneLineErrors

__all__ = ["main"]

_BUNDLE = click.option(
    "--bundle", default=None, type=click.Path(path_type=Path), help="Bundle folder. Default: the shipped one."
)


@click.group(cls=OneLineErrors, help="Convert trained networks for devices.")
def main() -> None:
    """Declare the commands."""


@main.command(epilog="Example: python -m converters tflite --bundle my-bundle --pictures crops -o model.tflite")
@click.option("--bundle", default=None, type=click.Path(path_type=Path), help="Bundle with float weights.")
@click.option("--pictures", required=True, type=click.Path(path_type=Path), help="Representative particle pictures.")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="TFLite file to write.")
@click.option("--um-per-px", default=None, type=float, help="Scale of the pictures. Default: that of the bundle.")
def tflite(bundle: Path | None, pictures: Path, out: Path, um_per_px: float | None) -> None:
    """Quantise a bundle's float network to full-integer int8 and check it against the float one."""
    from converters.requantise import requantise

    click.echo(requantise(Bundle.load(bundle), pictures, out, um_per_px=um_per_px))


@main.command(epilog="Example: python -m converters edgetpu --bundle my-bundle --out my-bundle-edgetpu")
@_BUNDLE
@click.option(
    "--out",
    default=None,
    type=click.Path(path_type=Path),
    help="Folder for a copy of the bundle with the compiled network.",
)
@click.option(
    "--runtime-version", default=None, type=int, help="Of the Edge TPU runtime on the device. Default: newest."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def edgetpu(bundle: Path | None, out: Path | None, runtime_version: int | None, as_json: bool) -> None:
    """Say of every operator whether it maps to the Edge TPU, and compile where edgetpu_compiler is installed.

    Exit code 0: the network maps wholly; 3: a part of it, or all, falls to the CPU; 2: bad input.
    """
    from converters.edgetpu import edgetpu as check_and_compile

    record, lines, code = check_and_compile(Bundle.load(bundle), out=out, runtime_version=runtime_version)
    click.echo(json.dumps(record) if as_json else "\n".join(lines))
    sys.exit(code)


@main.command(epilog="Example: python -m converters onnx --bundle my-bundle -o my-bundle-jetson")
@_BUNDLE
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder for a copy of the bundle with the networks.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was measured as one JSON object.")
def onnx(bundle: Path | None, out: Path, as_json: bool) -> None:
    """Export the network to ONNX (int8 and float), for a Jetson, and check it against Keras and TFLite."""
    from converters.onnx import STATEMENT_NAME, export_onnx

    statement = export_onnx(Bundle.load(bundle), out)
    if as_json:
        click.echo(json.dumps(statement))
        return
    m = statement["measured"]
    click.echo(
        f"{out}: bundle with {', '.join(statement['files'])}, checked on {statement['particles']} simulated particles\n"
        f"int8 against TFLite: same class for {m['int8_same_class']:.2%}, {m['int8_equal_codes']:.2%} of codes equal, "
        f"none more than {m['int8_code_difference']:.0f} apart\n"
        f"float against Keras: same class for {m['float_same_class']:.2%}, logits within "
        f"{m['float_logit_difference']:.1e}\n"
        f"int8 against float: same class for {m['float_int8_same_class']:.2%} (bounds in {STATEMENT_NAME})"
    )


@main.command(epilog="Example: python -m converters sign --bundle my-bundle --key release.pem")
@click.option("--bundle", required=True, type=click.Path(path_type=Path), help="Bundle folder.")
@click.option("--key", required=True, type=click.Path(path_type=Path), help="Ed25519 private key (PEM, PKCS 8).")
@click.option(
    "--passphrase-file", default=None, type=click.Path(path_type=Path), help="File whose first line opens the key."
)
def sign(bundle: Path, key: Path, passphrase_file: Path | None) -> None:
    """Write bundle.sig: devices with [classification] trusted_keys take only bundles signed so."""
    from converters.sign import read_passphrase, sign_bundle

    passphrase = None if passphrase_file is None else read_passphrase(passphrase_file)
    made = sign_bundle(Bundle.load(bundle), key, passphrase=passphrase)
    click.echo(f"{bundle}: signed with key {made}")


if __name__ == "__main__":
    main()
