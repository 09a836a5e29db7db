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

KEY = jax.random.key(0)
NUM_CLASSES, MOST = 7, 6


def marked(num_classes=NUM_CLASSES, most=MOST):
    """Images that say where they come from, ``[[class, index], [200, 250]]``, and how they lie."""
    images = np.empty((num_classes, most, 2, 2, 1), np.uint8)
    images[..., 0, 0, 0] = np.arange(num_classes)[:, None]
    images[..., 0, 1, 0] = np.arange(most)
    images[..., 1, 0, 0], images[..., 1, 1, 0] = 200, 250
    return images


def draw(num_tasks=300, images=None, **options):
    """Tasks of raw bytes, on the host."""
    options = {"ways": 3, "shots": 2, "queries": 3, "decode": lambda x: x, **options}
    sampler = episodes(marked() if images is None else images, **options)
    return jax.tree.map(np.asarray, sample_tasks(sampler, None, KEY, num_tasks))


def sources(tasks, ways=3):
    """Class and index of each image, each ``[T, N, K + Q]``, support first."""
    both = [b.inputs.reshape(len(b.inputs), ways, -1, 2, 2) for b in (tasks.support, tasks.query)]
    both = np.concatenate(both, axis=2)
    return both[..., 0, 0], both[..., 0, 1]


def assert_uniform(counts):
    """Pearson's statistic of counts that should be equal, below about its 99.9 % quantile."""
    counts = np.ravel(counts)
    freedom, usual = len(counts) - 1, counts.mean()
    assert usual > 20  # or the statistic does not follow its distribution
    # The quantile as Wilson and Hilferty approximate it.
    bound = freedom * (1 - 2 / (9 * freedom) + 3.09 * np.sqrt(2 / (9 * freedom))) ** 3
    assert np.sum((counts - usual) ** 2 / usual) < bound


@pytest.mark.parametrize(
    ("ways", "shots", "queries"), [(2, 1, 1), (3, 2, 3), (7, 1, 5), (5, 5, 1)]
)
def test_distinct_classes_and_disjoint_images(ways, shots, queries):
    tasks = draw(ways=ways, shots=shots, queries=queries)
    assert tasks.support.inputs.shape == (300, ways * shots, 2, 2, 1)
    assert tasks.query.inputs.shape == (300, ways * queries, 2, 2, 1)
    classes, indices = sources(tasks, ways)
    # Every row of images is of one class, and no two rows of the same.
    np.testing.assert_array_equal(classes, np.broadcast_to(classes[..., :1], classes.shape))
    assert all(len(set(row)) == ways for row in classes[..., 0].tolist())
    assert all(len(set(row)) == shots + queries for task in indices.tolist() for row in task)


def test_labels_follow_the_images():
    tasks = draw()
    for batch, each in ((tasks.support, 2), (tasks.query, 3)):
        np.testing.assert_array_equal(batch.targets, [np.repeat([0, 1, 2], each)] * 300)
        assert np.issubdtype(batch.targets.dtype, np.integer)


def test_every_choice_is_equally_likely():
    tasks = draw(num_tasks=4000)
    classes, indices = sources(tasks)
    first, second, third = np.moveaxis(classes[..., 0], 1, 0)
    pairs = np.zeros((NUM_CLASSES, NUM_CLASSES))
    np.add.at(pairs, (first, second), 1)
    assert_uniform(pairs[~np.eye(NUM_CLASSES, dtype=bool)])  # of classes, in their order
    assert_uniform(np.bincount(third, minlength=NUM_CLASSES))
    for position in range(5):  # of support and of query
        assert_uniform(np.bincount(indices[:, 0, position], minlength=MOST))
    # One class's images say nothing about another's.
    both = np.zeros((MOST, MOST))
    np.add.at(both, (indices[:, 0, 0], indices[:, 1, 0]), 1)
    assert_uniform(both)


def test_padding_is_never_drawn_and_all_else_is():
    counts = np.array([6, 3, 4, 3, 6, 5, 3])
    tasks = draw(num_tasks=3000, shots=1, queries=2, counts=counts)
    classes, indices = sources(tasks)
    drawn = np.zeros((NUM_CLASSES, MOST))
    np.add.at(drawn, (classes, indices), 1)
    valid = np.arange(MOST) < counts[:, None]
    assert np.all(drawn[~valid] == 0)
    assert np.all(drawn[valid] > 0)
    # Classes are as likely as each other, however many images they have.
    assert_uniform(drawn.sum(1) / 3)
    for row, count in zip(drawn, counts, strict=True):
        np.testing.assert_allclose(row[:count], row.sum() / count, rtol=0.15)


def test_counts_of_full_classes_change_nothing():
    full = draw(counts=np.full(NUM_CLASSES, MOST))
    jax.tree.map(np.testing.assert_array_equal, full, draw())


def test_support_and_query_of_a_class_are_turned_alike():
    upright, turned = draw(), draw(rotate=True)
    rows = [
        np.concatenate([b.inputs.reshape(300, 3, -1, 2, 2) for b in (t.support, t.query)], axis=2)
        for t in (upright, turned)
    ]
    seen = np.zeros((3, 4))
    for task in range(300):
        for way in range(3):
            before, after = rows[0][task, way], rows[1][task, way]
            turns = [k for k in range(4) if np.array_equal(np.rot90(before, k, (1, 2)), after)]
            assert len(turns) == 1
            seen[way, turns[0]] += 1
    assert_uniform(seen)  # the four turns, for each label
    np.testing.assert_array_equal(upright.query.targets, turned.query.targets)


def test_classes_of_a_task_are_turned_independently():
    tasks = draw(num_tasks=1000, rotate=True, ways=2, shots=1, queries=1)
    corner = np.argmax(tasks.support.inputs.reshape(1000, 2, 4), axis=-1)  # where the 250 lies
    both = np.zeros((4, 4))
    np.add.at(both, tuple(corner.T), 1)
    assert_uniform(both)


def test_decoding():
    raw, numbers = draw(), draw(decode=None)
    assert raw.query.inputs.dtype == np.uint8
    assert numbers.query.inputs.dtype == np.float32
    np.testing.assert_array_equal(numbers.query.inputs, raw.query.inputs / np.float32(255))
    shapes = []

    def decode(images):
        shapes.append((images.shape, images.dtype))
        return images.reshape(len(images), -1) * jnp.float32(2)

    own = draw(decode=decode)
    assert shapes == [((6, 2, 2, 1), np.uint8), ((9, 2, 2, 1), np.uint8)]
    np.testing.assert_array_equal(own.support.inputs, 2.0 * raw.support.inputs.reshape(300, 6, 4))


def test_one_key_one_task():
    sampler = episodes(marked(), ways=3, shots=1, queries=1)
    task, again, other = (sampler(None, jax.random.key(seed)) for seed in (5, 5, 6))
    jax.tree.map(np.testing.assert_array_equal, task, again)
    assert np.any(task.support.inputs != other.support.inputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ways": 1}, "ways must be an integer of at least 2; got 1"),
        ({"shots": 0}, "shots must be an integer of at least 1; got 0"),
        ({"queries": 0}, "queries must be an integer of at least 1; got 0"),
        ({"images": marked()[0]}, r"of shape \[C, M, H, W, ch\]; got uint8 of shape \(6, 2, 2, 1"),
        ({"images": marked() / 255.0}, "images must be uint8 .* got float64"),
        ({"counts": [6] * 6}, r"each of the 7 classes; got shape \(6,\), largest 6"),
        ({"counts": [7] + [6] * 6}, r"at most 6 .*; got shape \(7,\), largest 7"),
        ({"ways": 8}, "ways=8 classes .* are of 7 classes: lower ways"),
        ({"queries": 5}, r"shots \+ queries = 7 images .* class 0 has 6: lower shots or queries"),
        ({"counts": [6, 6, 4, 6, 6, 3, 6]}, r"shots \+ queries = 5 images .* class 5 has 3"),
        ({"images": marked()[:, :, :1], "rotate": True}, "rotate needs square .*; got 1 x 2"),
    ],
)
def test_wrong_arguments_are_explained(options, message):
    with pytest.raises(ValueError, match=message):
        draw(**options)


# ---------------------------------------------------------------------------------------------
# In the compiled programs of `fit` and `evaluate`.


def blobs(key, num_classes, noise=20.0):
    """Classes of one pattern each, ``[C, 10, 8, 8, 1]``: easy to tell apart once compared."""
    pattern_key, noise_key = jax.random.split(key)
    patterns = jax.random.uniform(pattern_key, (num_classes, 1, 4, 4, 1), maxval=255.0)
    patterns = patterns.repeat(2, axis=2).repeat(2, axis=3)
    grains = noise * jax.random.normal(noise_key, (num_classes, 10, 8, 8, 1))
    return np.asarray(jnp.clip(patterns + grains, 0, 255), np.uint8)


@pytest.fixture
def learner():
    return maml(
        models.conv_net(3, filters=8, blocks=2),
        losses.cross_entropy,
        inner_lr=1.0,
        partition=all_but("norm"),
    )


def train(learner, sampler, num_steps):
    tx = optax.adam(0.01)
    state = init_state(learner.init(KEY, jnp.zeros((3, 8, 8, 1))), tx)
    step = meta_step(learner.meta_gradient, tx)
    return fit(step, state, sampler, KEY, num_steps=num_steps, meta_batch=8).meta_params


def test_learns_to_tell_unseen_classes_apart(learner):
    images = blobs(jax.random.key(1), 60)
    options = {"ways": 3, "shots": 1, "queries": 3}
    meta_params = train(learner, episodes(images[:40], **options), 100)
    unseen = episodes(images[40:], **options)
    report = evaluate(
        learner, meta_params, unseen, KEY, num_tasks=100, metric=losses.accuracy, task_chunk=10
    )
    assert report.mean[0] < 0.45  # chance
    assert report.mean[1] > 0.8


@pytest.fixture
def no_large_constants():
    """Make JAX complain about every constant of more than 10 kB in a compiled program."""
    name = "jax_captured_constants_warn_bytes"
    before = jax.config.values[name]
    jax.config.update(name, 10_000)
    yield
    jax.config.update(name, before)


@pytest.mark.usefixtures("no_large_constants")
def test_images_are_arguments_of_the_programs_not_constants(learner):
    images = blobs(KEY, 40)  # 25.6 kB
    sampler = episodes(images, ways=3, shots=1, queries=1)
    meta_params = train(learner, sampler, 1)
    evaluate(learner, meta_params, sampler, KEY, num_tasks=1)
    # The complaint is real: a closure over the same images is met with it.
    with pytest.warns(UserWarning, match="constants were captured"):
        evaluate(learner, meta_params, lambda *args: sampler(*args), KEY, num_tasks=1)


def test_other_images_need_no_other_program():
    sampler = episodes(marked(), ways=3, shots=1, queries=1, decode=lambda x: x)
    assert isinstance(sampler, Partial)
    traces = []

    @jax.jit
    def sample(sampler, key):
        traces.append(1)
        return sampler(None, key)

    task = sample(sampler, KEY)
    jax.tree.map(np.testing.assert_array_equal, task, sampler(None, KEY))
    images, counts = sampler.args
    negative = sample(Partial(sampler.func, 255 - images, counts), KEY)
    np.testing.assert_array_equal(negative.query.inputs, 255 - task.query.inputs)
    assert len(traces) == 1
