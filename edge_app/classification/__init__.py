"""Particles to classes: model bundle, interpreter back ends, rejection of unknowns."""

from edge_app.classification.backends import OpenedBackend, available_backends, open_backend
from edge_app.classification.bundle import UNKNOWN, Bundle
from edge_app.classification.classifier import Classifier
from edge_app.classification.crops import CropGeometry, Crops, cut_crops
from edge_app.classification.rejection import Classification

__all__ = [
    "UNKNOWN",
    "Bundle",
    "Classification",
    "Classifier",
    "CropGeometry",
    "Crops",
    "OpenedBackend",
    "available_backends",
    "cut_crops",
    "open_backend",
]
