"""Few-shot episodes: which images come together, how they are turned, and where they are kept."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

from mamljax import evaluate, fit, init_state, losses, maml, meta_step, models
from mamljax.partition import all_but
from mamljax.tasks import episodes, sample_tasks
from mamljax.train import NonFiniteError

KEY = jax.random.key(0)
NUM_CLASSES, MOST = 7, 6


def marked(num_classes=NUM_CLASSES, most=MOST):
    """Images that say where they come from, ``[[class, index], [200, 250]]``, and how they lie."""
    images = np.empty((num_classes, most, 2, 2, 1), np.uint8)
    images[..., 0, 0, 0] = np.arange(num_classes)[:, None]
    images[..., 0, 1, 0] = np.arange(most)
    images[..., 1, 0, 0], images[..., 1, 1, 0] = 200, 250
    return images


def draw(num_tasks=300, **options):
    """Tasks of raw bytes, on the host."""
    defaults = {"images": marked(), "ways": 3, "shots": 2, "queries": 3, "decode": lambda x: x}
    sampler = episodes(**defaults | options)
    sample = jax.jit(sample_tasks, static_argnums=3)
    return jax.tree.map(np.asarray, sample(sampler, None, KEY, num_tasks))


@pytest.fixture(scope="module")
def drawn():
    """Many tasks of three ways, two shots and three queries."""
    return draw(4000)


def by_class(tasks, ways=3):
    """All images of a task, support first, ``[T, N, K + Q, 2, 2]``."""
    parts = [b.inputs.reshape(len(b.inputs), ways, -1, 2, 2) for b in (tasks.support, tasks.query)]
    return np.concatenate(parts, axis=2)


def sources(tasks, ways=3):
    """Class and index of each image, each ``[T, N, K + Q]``."""
    images = by_class(tasks, ways)
    return images[..., 0, 0], images[..., 0, 1]


def tally(*columns, sides):
    """How often each combination of numbers occurs."""
    counts = np.zeros(sides)
    np.add.at(counts, columns, 1)
    return counts


def assert_uniform(counts):
    """Pearson's statistic of counts that should be equal, below about its 99.9 % quantile."""
    counts = np.ravel(counts)
    freedom, usual = len(counts) - 1, counts.mean()
    assert usual > 20  # or the statistic does not follow its distribution
    # The quantile as Wilson and Hilferty approximate it.
    bound = freedom * (1 - 2 / (9 * freedom) + 3.09 * np.sqrt(2 / (9 * freedom))) ** 3
    assert np.sum((counts - usual) ** 2 / usual) < bound


@pytest.mark.parametrize(("ways", "shots", "queries"), [(2, 1, 1), (7, 1, 5)])
def test_distinct_classes_and_disjoint_images(ways, shots, queries):
    tasks = draw(ways=ways, shots=shots, queries=queries)
    assert tasks.support.inputs.shape == (300, ways * shots, 2, 2, 1)
    assert tasks.query.inputs.shape == (300, ways * queries, 2, 2, 1)
    classes, indices = sources(tasks, ways)
    # Every row of images is of one class, and no two rows of the same.
    np.testing.assert_array_equal(classes, np.broadcast_to(classes[..., :1], classes.shape))
    assert all(len(set(row)) == ways for row in classes[..., 0].tolist())
    assert all(len(set(row)) == shots + queries for task in indices.tolist() for row in task)


def test_labels_follow_the_images(drawn):
    for batch, each in ((drawn.support, 2), (drawn.query, 3)):
        assert np.issubdtype(batch.targets.dtype, np.integer)
        expected = np.broadcast_to(np.repeat([0, 1, 2], each), batch.targets.shape)
        np.testing.assert_array_equal(batch.targets, expected)


def test_every_choice_is_equally_likely(drawn):
    classes, indices = sources(drawn)
    first, second, third = np.moveaxis(classes[..., 0], 1, 0)
    pairs = tally(first, second, sides=(NUM_CLASSES, NUM_CLASSES))
    assert_uniform(pairs[~np.eye(NUM_CLASSES, dtype=bool)])  # of classes, in their order
    assert_uniform(tally(third, sides=NUM_CLASSES))
    for position in range(5):  # of support and of query
        assert_uniform(tally(indices[:, 0, position], sides=MOST))
    # One class's images say nothing about another's.
    assert_uniform(tally(indices[:, 0, 0], indices[:, 1, 0], sides=(MOST, MOST)))


def test_padding_is_never_drawn_and_all_else_is():
    counts = np.array([6, 3, 4, 3, 6, 5, 3])
    tasks = draw(num_tasks=3000, shots=1, queries=2, counts=counts)
    classes, indices = sources(tasks)
    seen = tally(classes, indices, sides=(NUM_CLASSES, MOST))
    assert np.all(seen[np.arange(MOST) >= counts[:, None]] == 0)
    # Classes are as likely as each other however many images they have, and so are their images.
    assert_uniform(seen.sum(1) / 3)
    first = tally(classes[..., 0], indices[..., 0], sides=(NUM_CLASSES, MOST))
    for row, count in zip(first, counts, strict=True):
        assert_uniform(row[:count])


def test_support_and_query_of_a_class_are_turned_alike(drawn):
    upright, turned = by_class(drawn), by_class(draw(4000, rotate=True))
    fits = np.array(
        [np.all(np.rot90(upright, k, (3, 4)) == turned, axis=(2, 3, 4)) for k in range(4)]
    )
    np.testing.assert_array_equal(fits.sum(0), 1)  # one turn fits all images of a class
    turns = np.argmax(fits, axis=0)
    for way in range(3):
        assert_uniform(tally(turns[:, way], sides=4))
    # The classes of a task are turned independently.
    assert_uniform(tally(*turns[:, :2].T, sides=(4, 4)))


def test_decoding(drawn):
    raw, numbers = drawn, draw(4000, decode=None)
    assert raw.query.inputs.dtype == np.uint8
    assert numbers.query.inputs.dtype == np.float32
    np.testing.assert_allclose(numbers.query.inputs, raw.query.inputs / 255, rtol=1e-6)
    shapes = []

    def decode(images):
        shapes.append((images.shape, images.dtype))
        return images.reshape(len(images), -1) * jnp.float32(2)

    own = draw(4000, decode=decode)
    assert {shape for shape, _ in shapes} == {(6, 2, 2, 1), (9, 2, 2, 1)}
    assert all(dtype == np.uint8 for _, dtype in shapes)
    np.testing.assert_array_equal(own.support.inputs, 2.0 * raw.support.inputs.reshape(4000, 6, 4))


def test_a_decoder_keeps_the_images_apart():
    with pytest.raises(TypeError, match="decode must be a function images -> inputs; got bool"):
        draw(decode=False)
    with pytest.raises(ValueError, match=r"what decode returns .* leading axes inputs: \(\)"):
        draw(decode=len)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ways": 1}, "ways must be an integer of at least 2; got 1"),
        ({"shots": 0}, "shots must be an integer of at least 1; got 0"),
        ({"queries": 0}, "queries must be an integer of at least 1; got 0"),
        ({"images": marked()[0]}, r"of shape \[C, M, H, W, ch\]; got uint8 of shape \(6, 2, 2, 1"),
        ({"images": marked() / 255.0}, "images must be a uint8 array .* got float64"),
        ({"counts": [6] * 6}, r"each of the 7 classes; got \[6, 6, 6, 6, 6, 6\]"),
        ({"counts": [7] + [6] * 6}, r"an integer from 1 to 6 for .*; got \[7, 6"),
        ({"counts": [5.5] + [6] * 6}, r"an integer from 1 to 6 for .*; got \[5.5, 6"),
        ({"images": [[0]]}, "images must be a uint8 array .* got list"),
        ({"ways": 8}, "ways=8 classes .* are of 7 classes: lower ways"),
        ({"queries": 5}, r"shots \+ queries = 7 images .* class 0 has 6: lower shots or queries"),
        ({"counts": [6, 6, 4, 6, 6, 3, 6]}, r"shots \+ queries = 5 images .* class 5 has 3"),
        ({"counts": [6, 2] + [6] * 5, "names": "abcdefg"}, "per class, but class 'b' has 2"),
        ({"names": "abc"}, "names must be one for each of the 7 classes; got 3"),
        ({"images": marked()[:, :, :1], "rotate": True}, "rotate needs square .*; got 1 x 2"),
    ],
)
def test_wrong_arguments_are_explained(options, message):
    with pytest.raises(ValueError, match=message):
        draw(**options)


# ---------------------------------------------------------------------------------------------
# In the compiled programs of `fit` and `evaluate`.


def blobs(num_classes):
    """Classes of one pattern each, ``[C, 10, 8, 8, 1]``: easy to tell apart once compared."""
    rng = np.random.default_rng(0)
    patterns = rng.uniform(0, 255, (num_classes, 1, 4, 4, 1)).repeat(2, axis=2).repeat(2, axis=3)
    grains = rng.normal(0, 20, (num_classes, 10, 8, 8, 1))
    return np.clip(patterns + grains, 0, 255).astype(np.uint8)


@pytest.fixture
def no_large_constants():
    """Make JAX complain about every constant of more than 10 kB in a compiled program."""
    name = "jax_captured_constants_warn_bytes"
    before = jax.config.values[name]
    jax.config.update(name, 10_000)
    yield
    jax.config.update(name, before)


@pytest.mark.usefixtures("no_large_constants")
def test_learns_to_tell_unseen_classes_apart_with_images_as_arguments():
    learner = maml(
        models.mlp((64, 3), norm="batch"),
        losses.cross_entropy,
        inner_lr=1.0,
        partition=all_but("norm"),
    )
    images, options = blobs(60), {"ways": 3, "shots": 1, "queries": 3}
    familiar, unseen = (episodes(part, **options) for part in (images[:40], images[40:]))
    assert min(sampler.args[0].nbytes for sampler in (familiar, unseen)) > 10_000
    tx = optax.adam(0.01)
    state = init_state(learner.init(KEY, jnp.zeros((3, 8, 8, 1))), tx)
    step = meta_step(learner.meta_gradient, tx)
    state = fit(step, state, familiar, KEY, num_steps=100, meta_batch=8)
    report = evaluate(
        learner, state.meta_params, unseen, KEY, num_tasks=100, metric=losses.accuracy
    )
    assert report.mean[0] < 0.45  # chance
    assert report.mean[1] > 0.8


@pytest.mark.usefixtures("no_large_constants")
def test_a_closure_over_the_images_would_be_noticed():
    sampler = episodes(blobs(20), ways=3, shots=1, queries=1)
    with pytest.warns(UserWarning, match="constants were captured"):
        jax.jit(lambda key: sampler(None, key)).lower(KEY)


def test_one_key_one_task_and_other_images_need_no_other_program():
    sampler = episodes(marked(), ways=3, shots=1, queries=1, decode=lambda x: x)
    assert isinstance(sampler, Partial)
    traces = []

    @jax.jit
    def sample(sampler, key):
        traces.append(1)
        return sampler(None, key)

    task = sample(sampler, KEY)
    jax.tree.map(np.testing.assert_array_equal, sample(sampler, KEY), task)
    other = sample(sampler, jax.random.key(1))
    assert np.any(other.support.inputs != task.support.inputs)
    images, counts = sampler.args
    negative = sample(Partial(sampler.func, 255 - images, counts), KEY)
    np.testing.assert_array_equal(negative.query.inputs, 255 - task.query.inputs)
    assert len(traces) == 1


def too_few_outputs():
    """A network of five outputs for episodes of seven ways, and its optimizer."""
    learner = maml(models.mlp((64, 5)), losses.cross_entropy)
    return learner, learner.init(KEY, jnp.zeros((1, 2, 2, 1)))


def test_too_few_outputs_are_refused_before_anything_runs():
    learner, params = too_few_outputs()
    sampler = episodes(marked(), ways=7, shots=1, queries=1)
    with pytest.raises(ValueError, match="labels from 0 to 6 for N = 5 outputs"):
        evaluate(learner, params, sampler, KEY, num_tasks=2)


def test_training_with_too_few_outputs_stops_and_names_the_labels():
    learner, params = too_few_outputs()
    sampler, tx = episodes(marked(), ways=7, shots=1, queries=1), optax.sgd(0.1)
    step = meta_step(learner.meta_gradient, tx)
    with pytest.raises(NonFiniteError, match="labels of its tasks run from 0 to 6: one that is"):
        fit(step, init_state(params, tx), sampler, KEY, num_steps=2, meta_batch=2)
