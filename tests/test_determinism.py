"""One seed, one set of numbers: to the bit, and to rounding where sums are added otherwise."""

import jax
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from mamljax import evaluate, fit, init_state, meta_step, tasks
from mamljax.sharding import task_mesh

STEPS, META_BATCH = 60, 8
ROUNDING = 1e-6
"""Of trained parameters, relative to their norm."""


@pytest.fixture
def trained(learner_of):
    """Parameters after training and test losses, both as vectors, for options of `maml`."""

    def train(*, steps_per_call=20, seed=0, **options):
        learner, sampler, tx = learner_of(**options), tasks.sinusoid(5, 5), optax.adam(1e-3)
        params = learner.init(jax.random.key(seed), np.zeros((1, 1), np.float32))
        step, state = meta_step(learner.meta_gradient, tx), init_state(params, tx)
        state = fit(
            step, state, sampler, jax.random.key(seed + 1),
            num_steps=STEPS, meta_batch=META_BATCH, steps_per_call=steps_per_call,
        )  # fmt: skip
        report = evaluate(learner, state.meta_params, sampler, jax.random.key(2), num_tasks=8)
        return np.asarray(ravel_pytree(state.meta_params)[0]), np.asarray(report.values)

    return train


def test_the_same_seed_gives_the_same_bits(trained):
    for first, second in zip(trained(), trained(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_another_seed_is_another_run(trained):
    assert np.abs(trained()[0] - trained(seed=7)[0]).max() > 0.01


def test_the_length_of_compiled_calls_changes_no_bit(trained):
    for first, second in zip(trained(), trained(steps_per_call=7), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("task_chunk", [1, 3, 4])
def test_tasks_at_a_time_change_results_by_rounding(trained, task_chunk):
    agree(trained(task_chunk=task_chunk), trained())


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_devices_change_results_by_rounding(trained, devices):
    agree(trained(mesh=task_mesh(jax.devices()[:devices])), trained())


def agree(found, expected):
    """Parameters and test losses, to rounding."""
    for ours, theirs in zip(found, expected, strict=True):
        assert np.linalg.norm(ours - theirs) < ROUNDING * np.linalg.norm(theirs)
