"""Balanced tasks from labelled examples, with as many shots each or with their own number."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mamljax import evaluate, fit, init_state, losses, maml, meta_step, models
from mamljax.checks import ArgumentError
from mamljax.tasks import from_labelled, sample_tasks

KEY = jax.random.key(0)
NAMES = np.array(["bass", "cello", "flute", "horn", "oboe"])
SIZES = [6, 9, 5, 7, 6]
# Every example says where it comes from: class, then place in the file; classes lie mixed.
ROWS = np.random.default_rng(0).permutation(np.repeat(np.arange(5), SIZES))
WHERE = np.stack([ROWS + 1, np.arange(len(ROWS)) + 1], axis=1).astype(np.float32)


def draw(inputs=WHERE, labels=NAMES[ROWS], *, num_tasks=300, **options):
    sizes = {"ways": 3, "shots": 2, "queries": 3} | options
    sample = jax.jit(sample_tasks, static_argnums=3)
    found = sample(from_labelled(inputs, labels, **sizes), None, KEY, num_tasks)
    return jax.tree.map(np.asarray, found)


@pytest.mark.parametrize("labels", [NAMES[ROWS], 10 * ROWS - 7, list(ROWS), ROWS.astype(np.uint8)])
def test_tasks_are_balanced_and_disjoint(labels):
    tasks = draw(labels=labels)
    assert tasks.support.inputs.shape == (300, 6, 2)
    assert tasks.query.inputs.shape == (300, 9, 2)
    np.testing.assert_array_equal(tasks.support.targets, [[0, 0, 1, 1, 2, 2]] * 300)
    np.testing.assert_array_equal(tasks.query.targets, [[0, 0, 0, 1, 1, 1, 2, 2, 2]] * 300)
    parts = [b.inputs.reshape(300, 3, -1, 2) for b in (tasks.support, tasks.query)]
    both = np.concatenate(parts, axis=2)
    np.testing.assert_array_equal(both[..., 0], both[..., :1, 0].repeat(5, axis=2))
    assert all(len(set(task)) == 3 for task in both[..., 0, 0].tolist())
    assert all(len(set(task)) == 15 for task in both[..., 1].reshape(300, -1).tolist())
    # What was drawn is what was given, and everything is drawn.
    np.testing.assert_array_equal(ROWS[both[..., 1].astype(int) - 1] + 1, both[..., 0])
    assert len(np.unique(both[..., 1])) == len(ROWS)


def test_trees_of_arrays():
    inputs = {"where": WHERE, "sound": (np.arange(len(ROWS)), WHERE.astype(np.float16))}
    task = from_labelled(inputs, ROWS, ways=2, shots=1, queries=2)(None, KEY)
    np.testing.assert_array_equal(
        task.query.inputs["sound"][0] + 1, task.query.inputs["where"][:, 1]
    )
    assert task.query.inputs["sound"][1].dtype == jnp.float16


def test_each_task_may_have_its_own_number_of_shots():
    tasks = draw(shots=(1, 3), queries=2)
    labels, weights = tasks.support.targets
    np.testing.assert_array_equal(labels, [[0, 0, 0, 1, 1, 1, 2, 2, 2]] * 300)
    of_class = weights.reshape(300, 3, 3)
    np.testing.assert_array_equal(of_class, of_class[:, :1].repeat(3, axis=1))
    number = of_class[:, 0].sum(1)
    np.testing.assert_array_equal(of_class[:, 0], np.arange(3) < number[:, None])
    assert min(np.bincount(number.astype(int), minlength=4)[1:]) > 70  # a third of 300 each
    # Padding is zeros, examples are none.
    np.testing.assert_array_equal(tasks.support.inputs.all(2), weights > 0)


def test_padding_changes_no_adaptation():
    learner = maml(models.mlp((4, 3)), losses.cross_entropy, inner_lr=0.5, num_steps=2)
    params = learner.init(KEY, jnp.zeros((1, 2)))
    task = from_labelled(WHERE, ROWS, ways=3, shots=(1, 3), queries=2)(None, jax.random.key(4))
    labels, weights = task.support.targets
    kept = np.flatnonzero(weights)
    assert 0 < len(kept) < 9
    alone = task.support._replace(
        inputs=task.support.inputs[kept], targets=jnp.asarray(labels)[kept]
    )
    found, expected = (
        learner.adapt(params, support, KEY).params for support in (task.support, alone)
    )
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_training_and_testing_with_any_number_of_shots():
    rng = np.random.default_rng(1)
    rows = np.repeat(np.arange(20), 10)
    signals = rng.normal(size=(20, 6))[rows] + 0.1 * rng.normal(size=(200, 6))
    sampler = from_labelled(signals, rows, ways=2, shots=(1, 3), queries=3)
    learner, tx = maml(models.mlp((16, 2)), losses.cross_entropy, inner_lr=1.0), optax.adam(0.01)
    state = init_state(learner.init(KEY, jnp.zeros((1, 6))), tx)
    step = meta_step(learner.meta_gradient, tx)
    state = fit(step, state, sampler, KEY, num_steps=60, meta_batch=8)
    report = evaluate(
        learner, state.meta_params, sampler, KEY, num_tasks=50, metric=losses.accuracy
    )
    assert report.mean[0] < 0.65  # chance
    assert report.mean[1] > 0.85


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ways": 6}, "ways=6 classes are needed .* 33 labels are of 5 classes"),
        ({"ways": 1}, "ways must be an integer of at least 2"),
        ({"shots": 3}, "6 examples are needed per class, but class 'flute' has 5"),
        ({"shots": (1, 3)}, "6 examples are needed per class, but class 'flute' has 5"),
        ({"shots": (2, 1)}, r"shots must be a number or \(fewest, most\); got \(2, 1\)"),
        ({"shots": (1, 2, 3)}, r"shots must be a number or \(fewest, most\)"),
        ({"shots": (0, 2)}, "shots must be an integer of at least 1; got 0"),
        ({"shots": 1.5}, "shots must be an integer of at least 1; got 1.5"),
        ({"queries": 0}, "queries must be an integer of at least 1"),
        ({"labels": ROWS[:-1]}, r"share their leading axis; .*inputs: \(33,\), labels: \(32,\)"),
        ({"labels": np.eye(5)[ROWS]}, r"labels must be integers or strings.*float64 .* \(33, 5\)"),
        ({"labels": ROWS / 2}, "labels must be integers or strings of shape .* float64"),
        ({"labels": [[1], [2, 3]]}, "labels must be integers or strings"),
        ({"labels": []}, "labels must be integers or strings"),
        ({"inputs": list(WHERE)}, r"inputs in inputs and labels .* a list of 33.*stack"),
        ({"inputs": np.array([[1], [2, 3]], object)}, "array of numbers; got an array of object"),
    ],
    ids=str,
)
def test_wrong_arguments_are_explained(options, message):
    with pytest.raises(ArgumentError, match=message):
        draw(**options)
