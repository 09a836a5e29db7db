"""From one task to a batch of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mamljax import Batch, Task
from mamljax.tasks import sample_tasks

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
