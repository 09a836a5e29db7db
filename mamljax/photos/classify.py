"""New classes from a few photos of each, and then the class of any other photo."""

import functools
import os
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mamljax import checks, recipes
from mamljax.checks import ArgumentError
from mamljax.data.files import DataError, in_folder
from mamljax.data.images import Pixels, is_image
from mamljax.photos.pixels import Photo, prepare
from mamljax.recipes import Recipe
from mamljax.types import Array, Batch, Learner, Params

AT_A_TIME = 64
"""Photos that are predicted at once, where they do not depend on each other."""

NEIGHBOURS = (
    "the norms of this network take the statistics of all photos that are predicted together, so "
    "that a prediction depends on its neighbours, and a single photo is classified badly: load the "
    "model with norm='support' (--norm=support), which takes those of the support set."
)


class Classifier(NamedTuple):
    """A learner that has adapted to classes.

    recipe, pixels: how it is built, and how photos are read.
    classes: their names.
    learner: for that many classes.
    params: adapted.
    shots: support photos of each class.
    """

    recipe: Recipe
    pixels: Pixels
    classes: tuple[str, ...]
    learner: Learner
    params: Params
    shots: tuple[int, ...]


class Prediction(NamedTuple):
    """What a photo shows.

    photo: its path, or its number among those that were given.
    label: the class with the highest probability.
    probability: of that class.
    probabilities: of all classes, by name.
    """

    photo: str
    label: str
    probability: float
    probabilities: dict[str, float]


def adapt(
    model: Any, support: str | os.PathLike | Mapping[str, Sequence[Photo]], *, num_steps: Any = None
) -> Classifier:
    """Adapt a model to the classes of a support set, any number of photos each.

    Args:
      model: an `ImageModel`, from `load_model`.
      support: a folder whose folders are the classes, or photos by the name of the class.
      num_steps: inner steps; None takes those that the model was tested with.

    Raises:
      ArgumentError: for fewer than two classes; for a number of them that the method cannot take,
        see `recipes.for_ways`; for inner steps of a method without.
      DataError: naming every photo that cannot be read.
    """
    photos = support if isinstance(support, Mapping) else support_of(Path(support))
    if len(photos) < 2:
        raise ArgumentError(
            f"support must have two classes or more; got {', '.join(photos) or 'none'}."
        )
    if lacking := [name for name, of_class in photos.items() if not len(of_class)]:
        raise ArgumentError(f"support has no photos of {', '.join(lacking)}.")
    shots = tuple(map(len, photos.values()))
    recipe, start = recipes.for_ways(model.recipe, model.meta_params, len(photos))
    learner = recipes.learner(recipe)
    inputs = prepared([x for of_class in photos.values() for x in of_class], model.prepare)
    labels = np.repeat(np.arange(len(photos), dtype=np.int32), shots)
    steps = None if num_steps is None else checks.at_least("num_steps", num_steps, 0)
    adapted = _adapt(learner, start, Batch(jnp.asarray(inputs), jnp.asarray(labels)), steps)
    return Classifier(recipe, model.pixels, tuple(photos), learner, adapted, shots)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _adapt(learner: Learner, params: Params, support: Batch, num_steps: int | None) -> Params:
    # One key for all: some methods read their support set in random order, none draws in the end.
    return learner.adapt(params, support, jax.random.key(0), num_steps=num_steps).params


def support_of(folder: Path) -> dict[str, list[Path]]:
    """The photos of each class, ``CLASS/PHOTO`` in a folder; classes in the order of their names.

    Raises:
      ArgumentError: if there is no such folder, or it has no images; naming files that lie
        elsewhere, or are no images.
    """
    if not folder.is_dir():
        raise ArgumentError(f"there is no folder {folder}.")
    files = list(in_folder(folder))
    lost = [file.where for file in files if len(file.parts) != 2 or not is_image(file)]
    if lost or not files:
        more = f" and {len(lost) - 10} more" if len(lost) > 10 else ""
        found = f"; got {', '.join(lost[:10])}{more}" if lost else ", and has nothing"
        raise ArgumentError(f"{folder} must hold images alone, at CLASS/IMAGE{found}.")
    photos = defaultdict(list)
    for file in files:
        photos[file.parts[0]].append(Path(file.where))
    return dict(photos)


def predict(classifier: Classifier, photos: Sequence[Photo]) -> list[Prediction]:
    """The class of each photo, with probabilities.

    Warns if the prediction of a photo depends on those beside it (``norm="batch"``).

    Raises:
      ArgumentError: for no photos, or what `prepare` refuses.
      DataError: naming every photo that cannot be read.
    """
    if not len(photos):
        raise ArgumentError("photos must be one or more; got none.")
    if classifier.recipe.norm == "batch":
        warnings.warn(NEIGHBOURS, stacklevel=2)
    inputs = prepared(photos, functools.partial(prepare, pixels=classifier.pixels))
    size = len(inputs) if classifier.recipe.norm == "batch" else AT_A_TIME
    rows = [
        np.asarray(probabilities(classifier, inputs[i : i + size]))
        for i in range(0, len(inputs), size)
    ]
    return [
        _prediction(photo, index, row, classifier.classes)
        for index, (photo, row) in enumerate(zip(photos, np.concatenate(rows), strict=True))
    ]


def probabilities(classifier: Classifier, inputs: Array | np.ndarray) -> Array:
    """Probabilities of the classes, ``[b, H, W, ch] -> [b, N]``; compiled once for each ``b``.

    The softmax of what the learner predicts, which is what its loss takes.
    """
    return _probabilities(classifier.learner, classifier.params, inputs)


@functools.partial(jax.jit, static_argnums=0)
def _probabilities(learner: Learner, params: Params, inputs: Array) -> Array:
    return jax.nn.softmax(learner.predict(params, inputs), axis=-1)


def prepared(photos: Sequence[Photo], prepare: Any) -> np.ndarray:
    """All photos, ``[b, H, W, ch]``; those that cannot be read are refused in one message."""
    arrays, wrong = [], []
    for photo in photos:
        try:
            arrays.append(prepare(photo))
        except DataError as problem:
            wrong.append(str(problem))
    if wrong:
        raise DataError("\n".join(wrong))
    return np.stack(arrays)


def _prediction(photo: Photo, index: int, row: np.ndarray, classes: Sequence[str]) -> Prediction:
    name = str(photo) if isinstance(photo, (str, os.PathLike)) else str(index)
    best = int(row.argmax())
    by_name = {label: float(x) for label, x in zip(classes, row, strict=True)}
    return Prediction(name, classes[best], float(row[best]), by_name)
