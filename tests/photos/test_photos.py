"""Model files that describe themselves, photos as inputs, classes in any number."""

import json
import zipfile

import jax
import numpy as np
import pytest
from PIL import Image

from mamljax import Batch, load_model, photos, recipes
from mamljax.checks import ArgumentError
from mamljax.data import DataError
from mamljax.data.images import Pixels
from mamljax.models import weights
from mamljax.recipes import Recipe

KEY = jax.random.key(0)
SHAPE = (8, 8, 1)
PIXELS = Pixels(None, SHAPE)
RNG = np.random.default_rng(0)
TINY = Recipe(network="dense", image_shape=SHAPE, ways=3, classes=4, num_steps=1)
CONV = TINY._replace(network="omniglot", filters=2)


def written(path, recipe=TINY, pixels=PIXELS):
    """A model file of random parameters."""
    params = recipes.learner(recipe).init(KEY, np.zeros((1, *SHAPE), np.float32))
    photos.save_model(path, recipe, params, pixels, {"classes": ["a", "b"]})
    return params


def some(number):
    return [RNG.integers(0, 256, (8, 8)).astype(np.uint8) for _ in range(number)]


def classes(number, shots=2):
    return {f"class {i}": some(shots) for i in range(number)}


SELDOM = ("fomaml", "context", "matching", "siamese", "mann", "statistician")
METHODS = [
    pytest.param(name, marks=[pytest.mark.slow] if name in SELDOM else [])
    for name in recipes.METHODS
]


@pytest.mark.parametrize("method", METHODS)
def test_a_file_holds_all_that_adaptation_and_prediction_take(method, tmp_path):
    keeps = method not in ("mann", "memory", "statistician")
    recipe = CONV if method in ("context", "statistician") else TINY
    recipe = recipe._replace(method=method, norm="support" if keeps else "layer")
    params = written(tmp_path / "model.npz", recipe)
    model = load_model(tmp_path / "model.npz")
    assert model.recipe == recipe
    assert model.pixels == PIXELS
    assert model.about["classes"] == ["a", "b"]
    jax.tree.map(np.testing.assert_array_equal, model.meta_params, params)

    support, new = classes(3), some(4)
    classifier = photos.adapt(model, support)
    inputs = np.stack([model.prepare(x) for of_class in support.values() for x in of_class])
    batch = Batch(inputs, np.repeat(np.arange(3), 2))
    learner = recipes.learner(recipe)
    adapted = learner.adapt(params, batch, KEY).params
    images = np.stack(new)[..., None] / np.float32(255)
    expected = jax.nn.softmax(learner.predict(adapted, images), axis=-1)
    found = photos.predict(classifier, new)
    rows = [[*x.probabilities.values()] for x in found]
    np.testing.assert_allclose(rows, expected, rtol=1e-3, atol=1e-5)
    assert [x.label for x in found] == [f"class {i}" for i in np.argmax(rows, axis=1)]

    photos.save_classifier(tmp_path / "adapted.npz", classifier)
    again = photos.load_classifier(tmp_path / "adapted.npz")
    assert again.classes == classifier.classes
    jax.tree.map(np.testing.assert_array_equal, again.params, classifier.params)


@pytest.mark.parametrize("method", ["maml", "proto_maml", "pretrained", "prototypical"])
@pytest.mark.parametrize("ways", [2, 5])
def test_another_number_of_classes_where_the_method_can(method, ways):
    recipe = TINY._replace(method=method, norm="layer")
    params = recipes.learner(recipe).init(KEY, np.zeros((1, *SHAPE), np.float32))
    other, start = recipes.for_ways(recipe, params, ways)
    assert other.ways == ways
    batch = Batch(np.zeros((ways, *SHAPE), np.float32), np.arange(ways))
    learner = recipes.learner(other)
    shape = jax.eval_shape(
        lambda: learner.predict(learner.adapt(start, batch, KEY).params, batch.inputs)
    ).shape
    assert shape == (ways, ways)


@pytest.mark.parametrize("method", ["context", "lstm", "mann"])
def test_another_number_of_classes_is_refused_with_the_alternatives(method):
    message = f"{method} was trained for 3 classes.*--config.task.ways=4.*prototypical"
    with pytest.raises(ArgumentError, match=message):
        recipes.for_ways(TINY._replace(method=method), {}, 4)


def test_fewer_classes_keep_trained_outputs():
    params = recipes.network(TINY, 3).init(KEY, np.zeros((1, *SHAPE), np.float32))
    _, fewer = recipes.for_ways(TINY, params, 2)
    np.testing.assert_array_equal(fewer["Dense_4"]["kernel"], params["Dense_4"]["kernel"][:, :2])
    assert fewer["Dense_0"] is params["Dense_0"]


def test_photos_are_read_as_training_reads_them(tmp_path):
    image = RNG.integers(0, 256, (6, 10), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    pixels = Pixels((6, 10), (6, 10, 1), invert=True)
    expected = (255 - image.astype(np.float32))[..., None] / 255
    for photo in (tmp_path / "a.png", (tmp_path / "a.png").read_bytes(), image, image[..., None]):
        np.testing.assert_allclose(photos.prepare(photo, pixels), expected, rtol=1e-6)
    np.testing.assert_array_equal(photos.prepare(expected, pixels), expected)  # as it is
    # Lying on its side, as its EXIF data says.
    turned = Image.fromarray(np.rot90(image))
    exif = turned.getexif()
    exif[0x0112] = 6  # turn by 270 degrees to see it
    turned.save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_allclose(photos.prepare(tmp_path / "turned.png", pixels), expected, rtol=1e-6)
    large = Pixels(None, (3, 5, 3))
    assert photos.prepare(tmp_path / "a.png", large).shape == (3, 5, 3)
    with pytest.raises(DataError, match="6 x 10 pixels; expected 3 x 5"):
        photos.prepare(tmp_path / "a.png", large._replace(stored=(3, 5)))


@pytest.mark.parametrize(
    ("photo", "message"),
    [
        (np.full(SHAPE, 200.0), "from 0 to 1; got 200 to 200: divide by 255"),
        (np.full(SHAPE, 200), "floats from 0 to 1; got int64"),
        (np.full(SHAPE, np.nan), "from 0 to 1; got nan"),
        (np.zeros((9, 8, 1)), r"must have the shape \(8, 8, 1\)"),
        (np.zeros((8, 8, 2), np.uint8), r"uint8 has the shape \[H, W\]"),
        ("nowhere.png", "there is no photo nowhere.png"),
        (3, "a photo is a path, the bytes of a file, or an array .* got int"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_what_is_no_photo_is_refused(photo, message):
    with pytest.raises(ArgumentError, match=message):
        photos.prepare(photo, PIXELS)


def test_the_loaded_learner_refuses_bytes_as_numbers(tmp_path):
    written(tmp_path / "model.npz")
    model = load_model(tmp_path / "model.npz")
    wrong = np.full((3, *SHAPE), 200.0, np.float32)
    with pytest.raises(ArgumentError, match="divide by 255, or let `prepare`"):
        model.learner.predict(model.meta_params, wrong)
    with pytest.raises(ArgumentError, match="divide by 255, or let `prepare`"):
        model.learner.adapt(model.meta_params, Batch(wrong, np.arange(3)), None)
    jax.eval_shape(model.learner.predict, model.meta_params, wrong)  # traced, nothing is known


def test_bad_photos_are_named_together_and_warned_of(tmp_path):
    written(tmp_path / "model.npz")
    model = load_model(tmp_path / "model.npz", norm="support")
    classifier = photos.adapt(model, classes(2))
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no image")
    with pytest.raises(DataError, match=r"a.png is not a readable.*\n.*b.png is not a readable"):
        photos.predict(classifier, [tmp_path / "a.png", some(1)[0], tmp_path / "b.png"])
    of_batch = classifier._replace(recipe=classifier.recipe._replace(norm="batch"))
    with pytest.warns(UserWarning, match="depends on its neighbours"):
        photos.predict(of_batch, some(1))
    with pytest.raises(ArgumentError, match="norm='batch' is not exported"):
        photos.export(of_batch, tmp_path / "x.stablehlo")


@pytest.mark.parametrize(
    ("support", "message"),
    [
        ({"a": some(1)}, "two classes or more; got a"),
        ({"a": some(1), "b": []}, "no photos of b"),
        ("nowhere", "there is no folder nowhere"),
    ],
)
def test_a_support_set_that_is_none_is_refused(support, message, tmp_path):
    written(tmp_path / "model.npz")
    with pytest.raises(ArgumentError, match=message):
        photos.adapt(load_model(tmp_path / "model.npz"), support)


def changed(path, change):
    """The file with another description."""
    arrays, described = weights.read(path), weights.description_of(path)
    change(described)
    weights.save(path, arrays, described)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format=2), "has format 2.* reads format 1"),
        (lambda d: d.update(kind="other"), "kind 'other'"),
        (lambda d: d["recipe"].pop("ways"), "recipe must have"),
        (lambda d: d["recipe"].update(ways="3"), "recipe has ways='3'"),
        (lambda d: d["recipe"].update(method="mamal"), "Did you mean 'maml'"),
        (lambda d: d["recipe"].update(ways=4), "do not fit the network"),
        (lambda d: d["pixels"].update(invert=3), "pixels has invert=3"),
    ],
)
def test_a_description_that_is_wrong_is_refused(change, message, tmp_path):
    written(tmp_path / "model.npz")
    changed(tmp_path / "model.npz", change)
    with pytest.raises(ArgumentError, match=message):
        load_model(tmp_path / "model.npz")


def test_other_files_are_refused(tmp_path):
    params = written(tmp_path / "model.npz")
    with pytest.raises(ArgumentError, match=r"no file .*nowhere.npz"):
        load_model(tmp_path / "nowhere.npz")
    weights.save(tmp_path / "plain.npz", params)
    with pytest.raises(ArgumentError, match=r"without a description.*mamljax evaluate"):
        load_model(tmp_path / "plain.npz")
    (tmp_path / "broken.npz").write_bytes((tmp_path / "model.npz").read_bytes()[:5000])
    with pytest.raises(ArgumentError, match=r"cannot be read as an .npz file"):
        load_model(tmp_path / "broken.npz")
    with pytest.raises(ArgumentError, match="is a model, not a classifier: read it by load_model"):
        photos.load_classifier(tmp_path / "model.npz")
    with pytest.raises(ArgumentError, match="norm must be that of training, 'batch'"):
        load_model(tmp_path / "model.npz", norm="layer")


def test_the_description_is_plain_json_beside_plain_arrays(tmp_path):
    params = written(tmp_path / "model.npz")
    with zipfile.ZipFile(tmp_path / "model.npz") as archive:
        described = json.loads(archive.read("description.json"))
        assert all(name.endswith((".npy", "description.json")) for name in archive.namelist())
    assert described["recipe"]["method"] == "maml"
    found = weights.load(tmp_path / "model.npz", params)  # as any file of weights
    jax.tree.map(np.testing.assert_array_equal, found, params)
