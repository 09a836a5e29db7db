"""From one task to a batch of them."""

import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from mamljax import Batch, PerStep, Task, evaluate, sharding
from mamljax.checks import ArgumentError
from mamljax.tasks import sample_tasks
from mamljax.tasks.sampling import as_partial

KEY = jax.random.key(0)


def noise(meta_params, key):
    support, query = jax.random.normal(key, (2, 3)) * meta_params
    return Task(Batch(support, support), Batch(query, query))


def test_tasks_are_independent_draws_from_the_same_parameters():
    tasks = sample_tasks(noise, 2.0, KEY, 5)
    assert tasks.support.inputs.shape == (5, 3)
    assert len(np.unique(tasks.query.inputs)) == 15
    np.testing.assert_array_equal(tasks.query.inputs, 2 * sample_tasks(noise, 1.0, KEY, 5).query[0])
    other = sample_tasks(noise, 2.0, jax.random.key(1), 5)
    assert np.all(other.query.inputs != tasks.query.inputs)


def kinds(meta_params, key, *, place=None):
    """Tasks of two kinds in turn; their inputs say which."""
    kind = jax.random.randint(key, (), 0, 2) if place is None else place % 2
    batch = Batch(jnp.full(3, kind, float), jax.random.normal(key, (3,)))
    return Task(batch, batch)


@pytest.mark.parametrize("options", [{}, {"task_chunk": 3}, {"devices": 4}], ids=str)
def test_kinds_of_tasks_come_equally_often(options):
    devices = options.pop("devices", None)
    mesh = sharding.task_mesh(jax.devices()[:devices]) if devices else None
    tasks = sample_tasks(kinds, None, KEY, 8, mesh=mesh, **options)
    found = np.asarray(tasks.query.inputs[:, 0])
    np.testing.assert_array_equal(found, (found[0] + np.arange(8)) % 2)
    assert len(np.unique(tasks.query.targets)) == 24


def test_a_single_task_is_of_any_kind_and_evaluation_has_as_many_of_each(learner_of):
    draw = jax.jit(lambda key: sample_tasks(kinds, None, key, 1).query.inputs[0, 0])
    alone = [float(draw(key)) for key in jax.random.split(KEY, 40)]
    assert 8 < sum(alone) < 32
    learner = learner_of(num_steps=0)
    params = learner.init(KEY, jnp.zeros((3, 1)))

    def sampler(meta_params, key, *, place=None):
        return jax.tree.map(lambda x: x[:, None], kinds(meta_params, key, place=place))

    found = evaluate(
        learner, params, sampler, KEY, num_tasks=10, metric=lambda outputs, targets: outputs[0, 0]
    )
    assert sorted(np.unique(found.values, return_counts=True)[1]) == [5, 5]


@pytest.mark.parametrize("made", [lambda task: tuple(task), lambda task: task.query, lambda _: {}])
def test_sampler_must_return_a_task(made):
    name = type(made(noise(jnp.ones(()), KEY))).__name__
    with pytest.raises(TypeError, match=rf"sampler must return a mamljax\.Task.*got {name}"):
        sample_tasks(lambda params, key: made(noise(params, key)), 1.0, KEY, 2)


@pytest.mark.parametrize("num_tasks", [0, 2.5, None])
def test_number_of_tasks_must_be_positive(num_tasks):
    with pytest.raises(ValueError, match="num_tasks must be an integer of at least 1"):
        sample_tasks(noise, 1.0, KEY, num_tasks)


def test_samplers_pass_through_compiled_functions():
    plain = as_partial(noise)
    assert jax.tree.leaves(plain) == []
    # Two wrappings of one function are one and the same program.
    assert jax.tree.structure(plain) == jax.tree.structure(as_partial(noise))
    holding_data = Partial(lambda data, meta_params, key: noise(data * meta_params, key), 3.0)
    assert as_partial(holding_data) is holding_data
    for sampler, factor in ((plain, 2.0), (holding_data, 6.0)):
        found = jax.jit(sample_tasks, static_argnums=3)(sampler, 2.0, KEY, 4)
        expected = sample_tasks(noise, factor, KEY, 4)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)


@pytest.mark.parametrize("sampler", [None, 3, "noise"])
def test_sampler_must_be_a_function(sampler):
    message = r"sampler must be a function \(meta_params, key\) -> Task; got"
    with pytest.raises(TypeError, match=message):
        as_partial(sampler)


def test_devices_share_the_drawing():
    expected = sample_tasks(noise, 2.0, KEY, 6)
    mesh = sharding.task_mesh(jax.devices()[:3])
    for sampler in (noise, Partial(lambda scale, params, key: noise(scale, key), jnp.array(2.0))):
        found = jax.jit(lambda key, s=sampler: sample_tasks(s, 2.0, key, 6, mesh=mesh))(KEY)
        for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
            np.testing.assert_array_equal(a, b)
        assert len(found.support.inputs.sharding.device_set) == 3
    with pytest.raises(ValueError, match="4 tasks does not divide over 3 devices"):
        sample_tasks(noise, 2.0, KEY, 4, mesh=mesh)


@pytest.mark.parametrize("task_chunk", [1, 2, 3, 7, 10])
@pytest.mark.parametrize("devices", [None, 2])
def test_drawing_in_chunks_draws_the_same(task_chunk, devices):
    mesh = devices and sharding.task_mesh(jax.devices()[:devices])

    def sampler(meta_params, key):
        task = noise(meta_params, key)
        return task._replace(query=Batch(jnp.zeros((0, 3)), jnp.zeros(0)))  # nothing in it

    found = sample_tasks(sampler, 2.0, KEY, 14, task_chunk=task_chunk, mesh=mesh)
    expected = sample_tasks(sampler, 2.0, KEY, 14)
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        assert a.shape == b.shape
        if a.size:  # jax cannot fetch an empty array that lies on several devices
            np.testing.assert_array_equal(a, b)


def test_size_of_a_chunk_is_checked():
    with pytest.raises(ValueError, match="task_chunk must be an integer of at least 1; got 0"):
        sample_tasks(noise, 1.0, KEY, 4, task_chunk=0)


# ---------------------------------------------------------------------------------------------
# What is no sampler of tasks.


def from_numpy(meta_params, key):
    return noise(meta_params, jax.random.key(np.random.default_rng().integers(1000)))


def from_python(meta_params, key):
    x = jnp.full((3,), random.gauss(0, 1))
    return Task(Batch(x, x), Batch(x, x))


def from_a_callback(meta_params, key):
    drawn = jax.ShapeDtypeStruct((3,), jnp.float32)
    x = jax.pure_callback(lambda: np.random.default_rng().random(3, np.float32), drawn)
    return Task(Batch(x, x), Batch(x, x))


@pytest.mark.parametrize("sampler", [from_numpy, from_python, from_a_callback])
@pytest.mark.parametrize("compiled", [False, True])
def test_tasks_that_the_key_does_not_change_are_refused(sampler, compiled):
    sample = jax.jit(sample_tasks, static_argnums=(0, 3)) if compiled else sample_tasks
    with pytest.raises(ArgumentError, match=r"sampler must draw from its key.*tasks\.from_arrays"):
        sample(sampler, 1.0, KEY, 2)


def test_some_of_a_task_may_always_be_the_same():
    def sampler(meta_params, key):
        grid = np.linspace(0, 1, 3)
        return Task(Batch(grid, jax.random.normal(key, (3,))), Batch(grid, grid))

    found = sample_tasks(sampler, None, KEY, 4)
    np.testing.assert_allclose(found.support.inputs, np.linspace([0] * 4, [1] * 4, 3).T)
    assert len(np.unique(found.support.targets)) == 12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t._replace(support=tuple(t.support)), "support must be a mamljax.Batch.*tuple"),
        (
            lambda t: t._replace(query=Batch(t.query.inputs, t.query.targets[:2])),
            r"the query set must share their leading axis; .*inputs: \(3,\), targets: \(2,\)",
        ),
        (
            lambda t: t._replace(query=Batch(t.query.inputs, t.query.targets[0])),
            r"the query set must share",
        ),
        (
            lambda t: t._replace(support=Batch(list(t.support.inputs), t.support.targets)),
            r"inputs in the support set must be an array; got a list of 3",
        ),
        (
            lambda t: t._replace(support=PerStep(Batch(t.support.inputs, t.support.targets[:1]))),
            r"the support set must share",
        ),
        (
            lambda t: t._replace(query=Batch(np.array(["a", "b", "c"]), t.query.targets)),
            "inputs in the query set must be an array of numbers; got an array of <U1",
        ),
    ],
)
def test_sets_that_are_not_examples_side_by_side_are_refused(change, message):
    with pytest.raises(ArgumentError, match=message):
        sample_tasks(lambda params, key: change(noise(params, key)), 1.0, KEY, 2)
