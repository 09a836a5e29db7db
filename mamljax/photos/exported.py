"""A classifier for programs without mamljax: StableHLO by `jax.export`, or ONNX."""

import functools
import json
import os
from pathlib import Path

import jax
import numpy as np

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.models.convolution import in_form
from mamljax.photos.classify import NEIGHBOURS, Classifier, probabilities

FORMATS = ("stablehlo", "onnx")


def export(classifier: Classifier, path: str | os.PathLike, format: str = "stablehlo") -> None:
    """Write ``images [b, H, W, ch] -> probabilities [b, N]``, for any number of images.

    Beside the file lies another one of its name with ``.json``: the classes, in the order of the
    probabilities, and how photos become images (height, width, channels, numbers from 0 to 1).

    Args:
      classifier: adapted, with any norm but that of the batch.
      path: of the file.
      format: ``stablehlo`` (`jax.export`; runs on CPU and on NVIDIA GPU wherever jax does) or
        ``onnx`` (by jax2onnx, ``pip install 'mamljax[onnx]'``).

    Raises:
      ArgumentError: for an unknown format, or a classifier whose predictions depend on each other.
      ModuleNotFoundError: without the package that writes the format.
    """
    checks.one_of("format", format, FORMATS)
    if classifier.recipe.norm == "batch":
        raise ArgumentError(f"norm='batch' is not exported: {NEIGHBOURS}")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    {"stablehlo": _stablehlo, "onnx": _onnx}[format](classifier, path)
    height, width, channels = classifier.pixels.shape
    described = {
        "classes": list(classifier.classes),
        "height": height,
        "width": width,
        "channels": channels,
        "invert": classifier.pixels.invert,
        "range": [0, 1],
    }
    path.with_suffix(".json").write_text(json.dumps(described, indent=1), encoding="utf-8")


def _stablehlo(classifier: Classifier, path: Path) -> None:
    checks.require("flatbuffers", "writing what jax.export makes")
    from jax import export as jax_export

    (number,) = jax_export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((number, *classifier.pixels.shape), np.float32)
    call = jax.jit(functools.partial(probabilities, classifier))
    path.write_bytes(jax_export.export(call, platforms=("cpu", "cuda"))(images).serialize())


def _onnx(classifier: Classifier, path: Path) -> None:
    checks.require("jax2onnx", "writing ONNX")
    from jax2onnx import to_onnx  # pyright: ignore[reportMissingImports]

    call = functools.partial(probabilities, classifier)
    shape = ("B", *classifier.pixels.shape)
    with in_form("lax"):  # which ONNX has an operator for
        to_onnx(call, [shape], return_mode="file", output_path=str(path))
