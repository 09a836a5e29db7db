"""From a trained network to predictions on photos: load, adapt to new classes, predict, export."""

from mamljax.photos.classify import Classifier, Prediction, adapt, predict, probabilities
from mamljax.photos.exported import export
from mamljax.photos.pixels import found, of_source, prepare
from mamljax.photos.saved import (
    ImageModel,
    load_classifier,
    load_model,
    save_classifier,
    save_model,
)

__all__ = [
    "Classifier",
    "ImageModel",
    "Prediction",
    "adapt",
    "export",
    "found",
    "load_classifier",
    "load_model",
    "of_source",
    "predict",
    "prepare",
    "probabilities",
    "save_classifier",
    "save_model",
]
