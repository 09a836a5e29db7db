"""Model files: arrays beside a description of all that it takes to use them; no code, no pickle."""

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mamljax import recipes
from mamljax.checks import ArgumentError
from mamljax.data.images import Pixels
from mamljax.models import weights
from mamljax.photos.classify import Classifier
from mamljax.photos.pixels import Photo, check_range, prepare
from mamljax.recipes import Recipe
from mamljax.types import Batch, Learner, Params
from mamljax.version import __version__

FORMAT = 1
MODEL, CLASSIFIER = "model", "classifier"


class ImageModel(NamedTuple):
    """A trained learner, and how it reads photos.

    learner: which refuses images that are not numbers from 0 to 1.
    meta_params: where it adapts from.
    prepare: ``photo -> [H, W, ch]`` as in training, see `photos.prepare`.
    recipe, pixels: by which both are built.
    about: of the training: classes, command, version.
    """

    learner: Learner
    meta_params: Params
    prepare: Callable[[Photo], np.ndarray]
    recipe: Recipe
    pixels: Pixels
    about: dict[str, Any]


def save_model(
    path: str | os.PathLike,
    recipe: Recipe,
    meta_params: Params,
    pixels: Pixels,
    about: Mapping[str, Any],
) -> None:
    """Write a model file (``.npz``), for `load_model`.

    Args:
      path: of the file.
      recipe: with the inner step size and steps to be used at test.
      meta_params: trained.
      pixels: how photos are read.
      about: what else is worth knowing, such as JSON can hold: the classes of training.
    """
    weights.save(Path(path), meta_params, _description(MODEL, recipe, pixels, about=dict(about)))


def save_classifier(path: str | os.PathLike, classifier: Classifier) -> None:
    """Write a classifier (``.npz``), for `load_classifier`."""
    of_support = {"classes": list(classifier.classes), "shots": list(classifier.shots)}
    described = _description(CLASSIFIER, classifier.recipe, classifier.pixels, **of_support)
    weights.save(Path(path), classifier.params, described)


def load_model(
    path: str | os.PathLike, *, norm: str | None = None, resize: bool = False
) -> ImageModel:
    """Read the ``model.npz`` of a run.

    Args:
      path: the file, or the work directory of the run.
      norm: another one than in training: ``support`` for a network with ``batch``, so that photos
        are classified one by one, see `models.conv_net`.
      resize: bring photos of any size to that of training, where training refused other sizes.

    Raises:
      ArgumentError: for a file that is not there, broken, without a description, a classifier, or
        of a later version; for another norm that does not fit.
    """
    path = _file(Path(path))
    described = _described(path, MODEL)
    recipe = _recipe(described, path)
    if norm not in (None, recipe.norm) and (norm, recipe.norm) != ("support", "batch"):
        raise ArgumentError(
            f"norm must be that of training, {recipe.norm!r}, or 'support' in place of 'batch'; "
            f"got {norm!r}."
        )
    recipe = recipe if norm is None else recipe._replace(norm=norm)
    pixels = _pixels(described, path)
    pixels = pixels._replace(stored=None) if resize else pixels
    learner = recipes.learner(recipe)
    like = jax.eval_shape(learner.init, jax.random.key(0), _images(recipe, 1))
    return ImageModel(
        _checking(learner),
        weights.from_arrays(weights.read(path), like),
        functools.partial(prepare, pixels=pixels),
        recipe,
        pixels,
        {**described["about"], "version": described["version"]},
    )


def load_classifier(path: str | os.PathLike) -> Classifier:
    """Read what `save_classifier` wrote.

    Raises:
      ArgumentError: for a file that is not there, broken, or no classifier.
    """
    path = Path(path)
    described = _described(path, CLASSIFIER)
    recipe, pixels = _recipe(described, path), _pixels(described, path)
    classes, shots = tuple(described["classes"]), tuple(described["shots"])
    learner = recipes.learner(recipe)
    labels = jax.ShapeDtypeStruct((sum(shots),), np.int32)
    like = jax.eval_shape(
        lambda images, labels: (
            learner.adapt(
                learner.init(jax.random.key(0), images), Batch(images, labels), jax.random.key(0)
            ).params
        ),
        _images(recipe, sum(shots)),
        labels,
    )
    params = weights.from_arrays(weights.read(path), like)
    return Classifier(recipe, pixels, classes, learner, params, shots)


def kind(path: str | os.PathLike) -> str:
    """Return ``model`` or ``classifier``.

    Raises:
      ArgumentError: for a file that is neither.
    """
    return _read(_file(Path(path)))["kind"]


def _description(kind: str, recipe: Recipe, pixels: Pixels, **more: Any) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "kind": kind,
        "version": __version__,
        "recipe": recipe._asdict(),
        "pixels": pixels._asdict(),
        **more,
    }


def _file(path: Path) -> Path:
    return path / "model.npz" if path.is_dir() else path


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ArgumentError(f"there is no file {path}.")
    described = weights.description_of(path)
    if described is None:
        raise ArgumentError(
            f"{path} holds arrays without a description of their network. `mamljax evaluate "
            "EXPERIMENT FILE` tests such weights, and leaves a model.npz which has one."
        )
    if described.get("format") != FORMAT or described.get("kind") not in (MODEL, CLASSIFIER):
        raise ArgumentError(
            f"{path} has format {described.get('format')!r}, kind {described.get('kind')!r}; this "
            f"version of mamljax ({__version__}) reads format {FORMAT}."
        )
    return described


def _described(path: Path, kind: str) -> dict[str, Any]:
    described = _read(path)
    if described["kind"] != kind:
        use = {MODEL: "load_model", CLASSIFIER: "load_classifier"}[described["kind"]]
        raise ArgumentError(f"{path} is a {described['kind']}, not a {kind}: read it by {use}.")
    return described


def _recipe(described: Mapping[str, Any], path: Path) -> Recipe:
    fields = _typed(described, "recipe", Recipe(), path)
    return Recipe(**fields)


def _pixels(described: Mapping[str, Any], path: Path) -> Pixels:
    return Pixels(**_typed(described, "pixels", Pixels((1, 1), (1, 1, 1)), path))


def _typed(described: Mapping[str, Any], part: str, like: Any, path: Path) -> dict[str, Any]:
    """The fields of a named tuple, as a file has them; lists are tuples."""
    given, expected = described.get(part), like._asdict()
    if not isinstance(given, dict) or given.keys() != expected.keys():
        raise ArgumentError(f"{path}: {part} must have {sorted(expected)}; got {given!r}.")
    fields = {name: tuple(x) if isinstance(x, list) else x for name, x in given.items()}
    for name, value in fields.items():
        allowed = (float, int) if isinstance(expected[name], float) else type(expected[name])
        if not isinstance(value, allowed) and not (name == "stored" and value is None):
            raise ArgumentError(f"{path}: {part} has {name}={value!r}.")
    return fields


def _images(recipe: Recipe, number: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((number, *recipe.image_shape), np.float32)


def _checking(learner: Learner) -> Learner:
    """The learner, which refuses images that are not from 0 to 1 where it is given any."""

    def adapt(meta_params, support, key, **options):
        check_range(support.inputs)
        return learner.adapt(meta_params, support, key, **options)

    def predict(params, inputs, **options):
        check_range(inputs)
        return learner.predict(params, inputs, **options)

    return learner._replace(adapt=adapt, predict=predict)
