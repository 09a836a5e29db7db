"""The memory-augmented network: its memory, its shapes, and that it can remember."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from mamljax import Batch, evaluate, fit, init_state, meta_step
from mamljax.baselines import mann
from mamljax.baselines.mann import MemoryCell
from mamljax.losses import accuracy

KEY = jax.random.key(0)
SIZES = {"hidden": 16, "slots": 6, "width": 5, "reads": 2}


@pytest.fixture
def cell():
    """A small cell's step, ``(state, inputs, label) -> (state, logits)``, and its first state."""
    module = MemoryCell(ways=3, **SIZES, decay=0.9)
    start = module.start(jnp.float32)
    variables = module.init(KEY, start, jnp.ones(4), jnp.zeros(3))
    return jax.jit(lambda *example: module.apply(variables, *example)), start


def test_its_controller_is_the_lstm_of_flax():
    module = MemoryCell(ways=3, **SIZES, decay=0.9)
    hidden, start = SIZES["hidden"], module.start(jnp.float32)
    key, *keys = jax.random.split(KEY, 4)
    carry, last = (jax.random.normal(k, (hidden,)) for k in keys[:2])
    read = jax.random.normal(keys[2], start.read.shape)
    state = start._replace(controller=(carry, last), read=read)
    params = module.init(key, state, jnp.ones(4), jnp.zeros(3))["params"]
    bias = jax.random.normal(key, (4 * hidden,))
    params["of_example"]["bias"] = bias
    after, _ = module.apply({"params": params}, state, jnp.ones(4), jnp.eye(3)[1])

    example, of_state = params["of_example"]["kernel"], params["of_state"]["kernel"]
    kernel = jnp.concatenate([example, of_state[hidden:]])  # flax's inputs: example, label and read
    gates = ("i", "f", "o", "g")
    theirs = {
        f"i{gate}": {"kernel": part}
        for gate, part in zip(gates, jnp.split(kernel, 4, axis=1), strict=True)
    } | {
        f"h{gate}": {"kernel": part, "bias": b}
        for gate, part, b in zip(
            gates, jnp.split(of_state[:hidden], 4, axis=1), jnp.split(bias, 4), strict=True
        )
    }
    seen = jnp.concatenate([jnp.ones(4), jnp.eye(3)[1], read.ravel()])
    expected, _ = nn.OptimizedLSTMCell(hidden).apply({"params": theirs}, (carry, last), seen)
    chex.assert_trees_all_close(after.controller, expected, rtol=1e-5, atol=1e-6)


def test_writing_goes_to_the_least_used_slots_and_reading_to_all(cell):
    step, start = cell
    first, logits = step(start, jnp.ones(4), jnp.eye(3)[0])
    assert logits.shape == (3,)
    # Nothing was read before, so each head writes to its own unused slot, and only there.
    assert np.all(np.any(first.memory[:2] != 0, axis=1))
    assert not first.memory[2:].any()
    np.testing.assert_allclose(first.read_weights, np.full((2, 6), 1 / 6), rtol=1e-6)
    written = first.usage - jnp.sum(first.read_weights, axis=0)
    assert np.all(written[:2] > 0)
    np.testing.assert_allclose(written[2:], np.zeros(4), atol=1e-6)
    # Then to what was read last, and to the next unused slots.
    second, _ = step(first, -jnp.ones(4), jnp.eye(3)[1])
    np.testing.assert_allclose(np.sum(second.read_weights, axis=1), np.ones(2), rtol=1e-6)
    share = np.linalg.norm(second.memory, axis=1)
    assert np.all(share[2:4] > 2 * share[4:])
    # Usage decays; two reads and two writes of weight one each come on top.
    np.testing.assert_allclose(np.sum(second.usage), 0.9 * np.sum(first.usage) + 4, rtol=1e-5)


def test_the_least_used_slots_are_cleared_before_they_are_written_to(cell):
    step, start = cell
    full = start._replace(memory=jnp.full((6, 5), 100.0), usage=jnp.arange(6.0)[::-1])
    after, _ = step(full, jnp.ones(4), jnp.zeros(3))
    np.testing.assert_array_equal(after.memory[:4], full.memory[:4])
    assert np.abs(after.memory[4:]).max() <= 1


def test_queries_are_answered_one_by_one_whatever_the_shape_of_inputs(clusters_of):
    task = clusters_of(ways=3, shots=2, queries=4)(None, KEY)
    learner = mann(ways=3, **SIZES)
    meta_params = learner.init(KEY, task.support.inputs)
    adapt, predict = jax.jit(learner.adapt), jax.jit(learner.predict)
    params = adapt(meta_params, task.support, KEY).params
    assert params.memory.memory.shape == (6, 5)
    logits = predict(params, task.query.inputs)
    assert logits.shape == (12, 3)
    alone = predict(params, task.query.inputs[5:6])
    np.testing.assert_allclose(alone[0], logits[5], rtol=1e-5, atol=1e-6)
    square = Batch(task.support.inputs.reshape(6, 2, 2, 1), task.support.targets)
    same = adapt(meta_params, square, KEY).params
    np.testing.assert_allclose(same.memory.memory, params.memory.memory, rtol=1e-5, atol=1e-6)
    other = adapt(meta_params, task.support, jax.random.key(1)).params  # another order
    assert np.abs(other.memory.memory - params.memory.memory).max() > 1e-3


def test_it_learns_to_recall(clusters_of):
    """Classes are new in every task, so only the support set can tell."""
    sampler = clusters_of(ways=3, shots=1, queries=1, noise=0.1)
    learner, tx = mann(ways=3, **SIZES | {"hidden": 32}), optax.adam(0.01)
    state = init_state(learner.init(KEY, jnp.zeros((1, 4))), tx)
    step = meta_step(learner.meta_gradient, tx)
    state = fit(step, state, sampler, KEY, num_steps=200, meta_batch=32)
    report = evaluate(
        learner, state.meta_params, sampler, jax.random.key(1), num_tasks=200, metric=accuracy
    )
    assert report.mean.shape == (1,)
    assert report.mean[0] > 0.75  # chance is one third


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slots": 1}, "reads=2 heads need a slot each"),
        ({"hidden": 0}, "hidden must be an integer of at least 1"),
        ({"decay": 1.5}, "decay must be a number from 0 to 1"),
    ],
)
def test_impossible_sizes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        mann(ways=3, **SIZES | options)
