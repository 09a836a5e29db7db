"""From one task to a batch of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from mamljax import Batch, Task, sharding
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
        return task._replace(query=Batch(task.query.inputs, jnp.zeros((0, 3))))  # nothing in it

    found = sample_tasks(sampler, 2.0, KEY, 14, task_chunk=task_chunk, mesh=mesh)
    expected = sample_tasks(sampler, 2.0, KEY, 14)
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        assert a.shape == b.shape
        if a.size:  # jax cannot fetch an empty array that lies on several devices
            np.testing.assert_array_equal(a, b)


def test_size_of_a_chunk_is_checked():
    with pytest.raises(ValueError, match="task_chunk must be an integer of at least 1; got 0"):
        sample_tasks(noise, 1.0, KEY, 4, task_chunk=0)
