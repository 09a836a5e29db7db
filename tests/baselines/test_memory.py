"""The memory module: a stream against a loop, its loss, and that it learns to recall."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mamljax import Batch, Task, evaluate, fit, init_state, meta_step, models
from mamljax.baselines import memory_module
from mamljax.baselines.memory import (
    empty,
    margin_loss,
    nearest_of_each_class,
    similarity,
    write,
)
from mamljax.baselines.metric import identity
from mamljax.losses import accuracy

KEY = jax.random.key(0)
SIZES = {"width": 4, "slots": 5}


def unit(*degrees):
    """Keys in the plane by their angle."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def in_a_loop(keys, labels, slots, ways, margin):
    """The paper's section 2 on one stream: the memory after it, and each example's loss."""
    memory, losses = [None] * slots, []  # (key, class, when it was written)
    for now, (key, label) in enumerate(zip(keys, labels, strict=True)):
        filled = [(slot, *entry) for slot, entry in enumerate(memory) if entry is not None]
        similar = [(key @ k, slot, c) for slot, k, c, _ in filled]
        right = max((s for s, _, c in similar if c == label), default=0.0)
        # Of the other classes those without a key are as similar as what is orthogonal.
        known = {c for _, _, c in similar} - {label}
        wrong = max([s for s, _, c in similar if c != label] + [0.0] * (len(known) < ways - 1))
        losses.append(max(0.0, wrong - right + margin))
        _, slot, found = max(similar, default=(0, 0, None))
        if found == label:
            key = key + memory[slot][0]
            key = key / np.linalg.norm(key)
        else:
            ages = [np.inf if e is None else now - e[2] for e in memory]
            slot = int(np.argmax(ages))
        memory[slot] = key, label, now
    return memory, losses


def test_a_stream_is_that_of_a_loop():
    # Averaged (0, 10), wrong though near (15), evicting the oldest (the fourth class), and again.
    keys = unit(0, 90, 10, 15, 180, 100, 270, 5, 200)
    labels = np.array([0, 1, 0, 2, 2, 1, 0, 2, 1])
    memory = empty(3, 2, 3, jnp.float32)
    learner = memory_module(identity(), ways=3, width=2, slots=3)
    losses = []
    for key, label in zip(jnp.float32(keys), labels, strict=True):
        answer = similarity(key[None], nearest_of_each_class(memory, key[None]))
        losses.append(margin_loss(0.1)(answer, label[None]))
        memory = jax.jit(write)(memory, key, jnp.eye(3)[label])
    expected, expected_losses = in_a_loop(keys, labels, 3, 3, 0.1)
    np.testing.assert_allclose(memory.keys, [key for key, _, _ in expected], atol=1e-6)
    np.testing.assert_array_equal(np.argmax(memory.values, axis=1), [c for _, c, _ in expected])
    np.testing.assert_array_equal(memory.ages, [len(keys) - 1 - when for *_, when in expected])
    np.testing.assert_allclose(losses, expected_losses, atol=1e-6)
    # The learner's objective is the mean over such a stream, support set first.
    params = {"body": (), "head": {"kernel": jnp.eye(2), "bias": jnp.zeros(2)}}
    task = Task(Batch(jnp.float32(keys[:4]), labels[:4]), Batch(jnp.float32(keys[4:]), labels[4:]))
    found = learner.objective(params, task, KEY)
    draws = jax.random.split(KEY, 4)
    orders = jax.random.permutation(draws[0], 4), 4 + jax.random.permutation(draws[1], 5)
    order = np.concatenate(orders)
    _, shuffled = in_a_loop(keys[order], labels[order], 3, 3, 0.1)
    np.testing.assert_allclose(found, np.mean(shuffled), atol=1e-6)


def test_a_query_has_the_class_of_the_nearest_key():
    learner = memory_module(identity(), ways=3, width=2, slots=6)
    params = {"body": (), "head": {"kernel": jnp.eye(2), "bias": jnp.zeros(2)}}
    support = Batch(jnp.float32(5 * unit(0, 90, 180)), jnp.array([2, 0, 1]))
    adapted = jax.jit(learner.adapt)(params, support, KEY).params
    answers = learner.predict(adapted, jnp.float32(unit(30, 170, 80, 60)))
    np.testing.assert_array_equal(jnp.argmax(answers, axis=1), [2, 1, 0, 0])
    np.testing.assert_allclose(answers[0], np.cos(np.radians([60, 150, 30])), atol=1e-6)


def test_gradients_reach_the_example_that_is_answered_alone(clusters_of):
    """Moving what was remembered before changes the loss, but is not what is differentiated."""
    learner = memory_module(identity(), ways=3, **SIZES)
    task = clusters_of(ways=3, shots=1, queries=1)(None, KEY)
    params = learner.init(KEY, task.support.inputs)
    remembered = jax.lax.stop_gradient(learner.adapt(params, task.support, KEY).params.memory)

    def of_queries(params, memory):
        adapted = learner.adapt(params, task.support, KEY).params
        answers = learner.predict(adapted._replace(memory=memory), task.query.inputs)
        return learner.loss_fn(answers, task.query.targets)

    def through_both(params):
        return of_queries(params, learner.adapt(params, task.support, KEY).params.memory)

    found, expected = jax.grad(through_both)(params), jax.grad(of_queries)(params, remembered)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, expected)


def test_it_learns_to_recall(clusters_of):
    """Two of the four features are noise that drowns the others: the embedding must drop them."""

    def sampler(meta_params, key):
        task_key, noise_key = jax.random.split(key)
        task = clusters_of(ways=3, shots=1, queries=2, noise=0.1)(meta_params, task_key)
        noise = 5 * jax.random.normal(noise_key, (9, 4)) * jnp.array([[0.0, 0.0, 1.0, 1.0]])
        support = task.support._replace(inputs=task.support.inputs + noise[:3])
        return Task(support, task.query._replace(inputs=task.query.inputs + noise[3:]))

    learner = memory_module(models.mlp((16, 8), activation="tanh"), ways=3, **SIZES)
    tx = optax.adam(0.01)
    start = init_state(learner.init(KEY, jnp.zeros((1, 4))), tx)
    state = fit(
        meta_step(learner.meta_gradient, tx), start, sampler, KEY, num_steps=200, meta_batch=16
    )
    before, after = (
        evaluate(learner, s.meta_params, sampler, jax.random.key(1), num_tasks=200, metric=accuracy)
        for s in (start, state)
    )
    assert after.mean.shape == (1,)
    assert before.mean[0] < 0.55
    assert after.mean[0] > 0.75


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ways": 1}, "ways must be an integer of at least 2"),
        ({"slots": 0}, "slots must be an integer of at least 1"),
        ({"width": 0}, "width must be an integer of at least 1"),
        ({"margin": 0.0}, "margin must be"),
    ],
)
def test_impossible_sizes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        memory_module(identity(), **{"ways": 3, **SIZES} | options)
