"""Tasks from a user's own arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from mamljax.tasks import from_arrays, sample_tasks

KEY = jax.random.key(0)
NUM_TASKS, EXAMPLES = 4, 6
# Every example says where it comes from: task number, then example number.
WHERE = np.stack(np.meshgrid(range(NUM_TASKS), range(EXAMPLES), indexing="ij"), axis=-1)
TARGETS = 10 * WHERE[..., 0] + WHERE[..., 1]


def draw(shots=2, queries=3, num_tasks=200):
    sampler = from_arrays(WHERE, TARGETS, shots=shots, queries=queries)
    return sample_tasks(sampler, None, KEY, num_tasks)


@pytest.mark.parametrize(("shots", "queries"), [(2, 3), (1, 5), (5, 1)])
def test_support_and_query_are_disjoint_examples_of_one_task(shots, queries):
    tasks = draw(shots, queries)
    assert tasks.support.inputs.shape == (200, shots, 2)
    assert tasks.query.inputs.shape == (200, queries, 2)
    both = jnp.concatenate([tasks.support.inputs, tasks.query.inputs], axis=1)
    assert all(len(set(numbers)) == 1 for numbers in both[..., 0].tolist())
    assert all(len(set(numbers)) == shots + queries for numbers in both[..., 1].tolist())


def test_every_task_and_example_is_drawn():
    tasks = draw()
    for batch in (tasks.support, tasks.query):
        assert len(np.unique(batch.targets)) == NUM_TASKS * EXAMPLES
    # In no particular order: sorted examples would make every support set the same.
    assert np.any(np.diff(tasks.query.targets, axis=1) < 0)


def test_inputs_keep_their_targets():
    tasks = draw()
    for inputs, targets in (tasks.support, tasks.query):
        np.testing.assert_array_equal(targets, 10 * inputs[..., 0] + inputs[..., 1])


def test_trees_of_arrays():
    inputs = {"where": WHERE, "again": (TARGETS, jnp.float32(TARGETS))}
    task = from_arrays(inputs, TARGETS, shots=1, queries=2)(None, KEY)
    np.testing.assert_array_equal(task.query.inputs["again"][0], task.query.targets)
    np.testing.assert_array_equal(task.query.inputs["again"][1], jnp.float32(task.query.targets))
    assert task.query.inputs["where"].shape == (2, 2)
    assert task.support.inputs["again"][1].dtype == jnp.float32


def test_data_are_an_argument_of_a_compiled_program():
    sampler = from_arrays(WHERE, TARGETS, shots=2, queries=3)
    assert isinstance(sampler, Partial)
    traces = []

    @jax.jit
    def sample(sampler):
        traces.append(1)
        return sampler(None, KEY)

    task = sample(sampler)
    jax.tree.map(np.testing.assert_array_equal, task, sampler(None, KEY))
    # Other data of the same shape: the same examples of them, by the same program.
    negative = sample(jax.tree.map(lambda x: -x, sampler))
    jax.tree.map(np.testing.assert_array_equal, negative, jax.tree.map(lambda x: -x, task))
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("inputs", "targets", "sizes", "message"),
    [
        (WHERE, TARGETS[:3], (1, 1), r"inputs and targets must share .*inputs: \(4,\).*\(3,\)"),
        (WHERE, TARGETS[:, :5], (1, 1), r"of one task must share .*inputs: \(6,\).*\(5,\)"),
        (np.zeros(4), np.zeros(4), (1, 1), "of one task must share their leading axis"),
        ({}, {}, (1, 1), "inputs and targets holds no arrays"),
        # A list of equal rows would pass for four arrays of one task each.
        (list(WHERE), list(TARGETS), (1, 1), r"inputs in inputs and targets .* a list of 4.*stack"),
        ([WHERE[0], WHERE[1, :3]], TARGETS, (1, 1), "a list of 2.*pad what has not"),
        ({"a": [[1.0], [2.0]]}, TARGETS, (1, 1), r"inputs\.a in .* a list of 2"),
        (np.array([[1], [2, 3]], object), TARGETS, (1, 1), "numbers; got an array of object"),
        (np.full((4, 6), "a"), TARGETS, (1, 1), "array of numbers; got an array of <U1"),
        (WHERE[:0], TARGETS[:0], (1, 1), "inputs and targets hold no tasks"),
        (WHERE, TARGETS, (4, 3), r"shots \+ queries = 7 .* hold 6: lower shots or queries"),
        (WHERE, TARGETS, (0, 3), "shots must be an integer of at least 1"),
        (WHERE, TARGETS, (1, 0), "queries must be an integer of at least 1"),
    ],
    ids=str,
)
def test_wrong_arguments_are_explained(inputs, targets, sizes, message):
    with pytest.raises(ValueError, match=message):
        from_arrays(inputs, targets, shots=sizes[0], queries=sizes[1])
