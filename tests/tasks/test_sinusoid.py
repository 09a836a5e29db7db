"""Sinusoid tasks: the right curve, the right ranges, and comparable across settings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mamljax.tasks import sample_tasks, sinusoid

KEY = jax.random.key(0)


def draw(num_tasks=2000, shots=5, queries=10, **options):
    return sample_tasks(sinusoid(shots, queries, **options), None, KEY, num_tasks)


def assert_fills(values, low, high):
    """Uniform draws stay within their range and come close to both of its ends."""
    values, margin = np.asarray(values), 0.01 * (high - low)
    assert low <= values.min() < low + margin
    assert high - margin < values.max() <= high
    np.testing.assert_allclose(values.mean(), (low + high) / 2, atol=5 * margin)


def test_shapes():
    tasks = draw(num_tasks=3)
    assert jax.tree.map(jnp.shape, tasks) == (((3, 5, 1), (3, 5, 1)), ((3, 10, 1), (3, 10, 1)))
    assert draw(num_tasks=3, reveal=True).query.inputs.shape == (3, 10, 3)


@pytest.mark.parametrize(
    ("options", "amplitude", "phase", "inputs", "support_inputs"),
    [
        ({}, (0.1, 5.0), (0.0, np.pi), (-5.0, 5.0), (-5.0, 5.0)),
        ({"support_inputs": (0.0, 5.0)}, (0.1, 5.0), (0.0, np.pi), (-5.0, 5.0), (0.0, 5.0)),
        (
            {"amplitude": (1.0, 2.0), "phase": (-1.0, 0.5), "inputs": (2.0, 3.0)},
            (1.0, 2.0),
            (-1.0, 0.5),
            (2.0, 3.0),
            (2.0, 3.0),
        ),
    ],
    ids=["paper", "half of the inputs", "own ranges"],
)
def test_ranges_and_curve(options, amplitude, phase, inputs, support_inputs):
    tasks = draw(reveal=True, **options)
    for batch, bounds in ((tasks.support, support_inputs), (tasks.query, inputs)):
        x, a, b = jnp.split(batch.inputs, 3, axis=-1)
        assert_fills(x, *bounds)
        assert_fills(a, *amplitude)
        assert_fills(b, *phase)
        # One curve per task, for support and query alike.
        np.testing.assert_array_equal(a, jnp.broadcast_to(tasks.query.inputs[:, :1, 1:2], a.shape))
        np.testing.assert_array_equal(b, jnp.broadcast_to(tasks.query.inputs[:, :1, 2:], b.shape))
        expected = np.float64(a) * np.sin(np.float64(x) - np.float64(b))
        np.testing.assert_allclose(batch.targets, expected, atol=5e-6)


def test_a_fixed_sinusoid_can_be_asked_for():
    tasks = draw(num_tasks=4, amplitude=(2.0, 2.0), phase=(0.5, 0.5))
    expected = 2.0 * np.sin(np.float64(tasks.query.inputs) - 0.5)
    np.testing.assert_allclose(tasks.query.targets, expected, atol=2e-6)


def test_oracle_sees_the_same_points():
    plain, revealed = draw(), draw(reveal=True)
    for name in ("support", "query"):
        seen, known = getattr(plain, name), getattr(revealed, name)
        np.testing.assert_array_equal(seen.inputs, known.inputs[..., :1])
        np.testing.assert_array_equal(seen.targets, known.targets)


@pytest.mark.parametrize("options", [{"shots": 10}, {"support_inputs": (0.0, 5.0)}], ids=str)
def test_query_does_not_depend_on_the_support(options):
    np.testing.assert_array_equal(*(draw(**o).query.inputs for o in ({}, options)))
    np.testing.assert_array_equal(*(draw(**o).query.targets for o in ({}, options)))


@pytest.mark.parametrize("options", [{"shots": 1}, {"queries": 3}, {"shots": 7, "queries": 50}])
def test_sinusoid_does_not_depend_on_the_number_of_points(options):
    np.testing.assert_array_equal(
        *(draw(**o, reveal=True).query.inputs[:, 0, 1:] for o in ({}, options))
    )


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0, 1), {}, "shots must be an integer of at least 1; got 0"),
        ((1, -1), {}, "queries must be an integer of at least 1; got -1"),
        ((1, 1), {"amplitude": (5.0, 0.1)}, r"amplitude must be \(low, high\).*got \(5.0, 0.1\)"),
        ((1, 1), {"phase": 3.0}, r"phase must be \(low, high\)"),
        ((1, 1), {"inputs": (0.0, float("inf"))}, r"inputs must be \(low, high\), finite"),
        ((1, 1), {"support_inputs": (0.0, 1.0, 2.0)}, r"support_inputs must be \(low, high\)"),
    ],
)
def test_wrong_arguments_are_explained(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        sinusoid(*arguments, **options)
