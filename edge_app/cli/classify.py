"""Classify particle pictures that another instrument cut."""

import csv
import io
import json
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

import click
import numpy as np

from edge_app.capture.crops import CropFile
from edge_app.capture.registry import open_crops
from edge_app.classification.backends import open_backend
from edge_app.classification.bundle import Bundle
from edge_app.classification.classifier import Classifier
from edge_app.classification.rejection import Classification
from edge_app.classification.tight_crops import crops_of_pictures, dark_backgrounds
from edge_app.config import load_settings
from edge_app.errors import UserError
from edge_app.recording.atomic_file import atomic_file

__all__ = ["classify"]


@click.command()
@click.argument("source")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), required=True, help="Table to write.")
@click.option("--bundle", type=click.Path(path_type=Path), help="Model bundle instead of the shipped one.")
@click.option("--config", type=click.Path(path_type=Path), help="Settings file (TOML).")
@click.option("--um-per-px", type=float, help="Scale of the pictures (default: the one that the network was taught).")
@click.option("--backend", help="Interpreter: auto, litert, tflite_runtime, edgetpu.")
@click.option("--json", "as_json", is_flag=True, help="Last line of stdout is one JSON object.")
def classify(
    source: str,
    csv_file: Path,
    bundle: Path | None,
    config: Path | None,
    um_per_px: float | None,
    backend: str | None,
    as_json: bool,
) -> None:
    """Classify particle pictures cut by another instrument.

    SOURCE is crops:DIR (read recursively), or mfi:DIR with a particle table and pictures. Pictures of one folder are
    taken as one run: they share the estimate of the background's brightness.

    Example: edge-app classify crops:pictures --csv classes.csv
    """
    overrides = {"classification.bundle": bundle, "classification.backend": backend, "flow_cell.um_per_px": um_per_px}
    settings = load_settings(config, overrides)
    model = Bundle.load(settings.classification.bundle, trusted_keys=settings.classification.trusted_keys)
    pictures = open_crops(source)
    files = list(pictures.crops())
    for line in pictures.messages:
        click.echo(line, err=True)
    if not files:
        raise UserError(f"{source}: holds no picture that can be used")
    opened = open_backend(model, preference=settings.classification.backend, threads=settings.classification.threads)
    for warning in opened.warnings:
        click.echo(warning, err=True)
    classifier = Classifier(model, opened.backend)
    folders = [str(PurePosixPath(file.path_below).parent) for file in files]
    for folder, level in dark_backgrounds([file.image for file in files], groups=folders).items():
        which = "its pictures" if folder == "." else f"the pictures in {folder}"
        click.echo(
            f"{source}: {which} have a dark background (grey level {level:.0f} of 255, at least 20 needed): the "
            "network was taught bright-field pictures, their classes mean nothing",
            err=True,
        )
    crops = crops_of_pictures(
        [file.image for file in files],
        geometry=model.geometry,
        um_per_px=settings.flow_cell.um_per_px or model.geometry.um_per_px,
        groups=folders,
    )
    found = classifier.classify(crops)
    with atomic_file(csv_file) as out:
        out.write(_table(files, found, classifier).encode())
    counts = Counter(np.asarray(classifier.classes)[found.class_index].tolist())
    result: dict[str, Any] = {
        "pictures": len(files),
        "counts": {name: counts.get(name, 0) for name in classifier.classes},
        "problems": dict(pictures.problems),
        "model_sha256": model.model_sha256,
        "backend": opened.backend.name,
        "csv": str(csv_file),
    }
    if as_json:
        click.echo(json.dumps(result))
    else:
        click.echo(f"{len(files)} pictures: " + ", ".join(f"{n} {name}" for name, n in result["counts"].items() if n))
        click.echo(f"written: {csv_file}")


def _table(files: list[CropFile], found: Classification, classifier: Classifier) -> str:
    """The CSV: file, class, confidence, probability of each class; what else the network reads off a picture."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    more = {
        "ecd_um": (found.ecd_um, ".3f"),
        "ecd_relative_sd": (found.ecd_relative_sd, ".4f"),
        "depth_um": (found.depth_um, ".1f"),
        "novelty": (found.novelty, ".6f"),
    }
    said = {name: (values, form) for name, (values, form) in more.items() if values is not None}
    writer.writerow(["file", "class", "confidence", *(f"p_{name}" for name in classifier.bundle.classes), *said])
    names = np.asarray(classifier.classes)[found.class_index].tolist()
    beside = [[format(v, form) for v in values.tolist()] for values, form in said.values()]
    columns = zip(files, names, found.confidence.tolist(), found.probabilities.tolist(), strict=True)
    for i, (file, name, confidence, row) in enumerate(columns):
        writer.writerow(
            [file.path_below, name, f"{confidence:.6f}", *(f"{p:.6f}" for p in row), *(b[i] for b in beside)]
        )
    return text.getvalue()
