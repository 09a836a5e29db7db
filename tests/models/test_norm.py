"""Normalisation: whose statistics, which parameters, and pooling on the way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mamljax.models import Norm, max_pool
from mamljax.models.norm import moments

KEY = jax.random.key(0)
SHAPE = (5, 6, 4, 3)
KINDS = ["batch", "layer"]


def features(shape=SHAPE, spread=1.0):
    """Channels and examples of different means; a small spread shows what epsilon does."""
    noise_key, channel_key, example_key = jax.random.split(KEY, 3)
    each = (len(shape) - 2) * (1,)
    channels = jax.random.normal(channel_key, (1, *each, shape[-1]))
    examples = jax.random.normal(example_key, (shape[0], *each, 1))
    return spread * (jax.random.normal(noise_key, shape) + channels + examples)


def by_hand(kind, x):
    """Normalised with numpy, in double precision."""
    x = np.asarray(x, np.float64)
    axes = tuple(range(x.ndim - 1)) if kind == "batch" else tuple(range(1, x.ndim))
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-3)


def params_of(norm, x=None):
    return norm.init(KEY, features() if x is None else x).get("params", {})


@pytest.mark.parametrize("spread", [1.0, 0.02])
@pytest.mark.parametrize("shape", [SHAPE, (7, 4)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_statistics(kind, shape, spread):
    x = features(shape, spread)
    found = Norm(kind, offset=False).apply({}, x)
    np.testing.assert_allclose(found, by_hand(kind, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("offset", [False, True])
def test_which_parameters_exist_and_what_they_do(kind, scale, offset, randomised):
    norm, x = Norm(kind, scale, offset), features()
    params = params_of(norm)
    expected = {"scale": np.ones(3)} if scale else {}
    expected |= {"offset": np.zeros(3)} if offset else {}
    assert params.keys() == expected.keys()
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    # By default there is an offset alone.
    assert params_of(Norm(kind)).keys() == {"offset"}
    if params:
        params = randomised(params)
    factor, shift = (params.get(name, start) for name, start in (("scale", 1.0), ("offset", 0.0)))
    expected = by_hand(kind, x) * np.asarray(factor) + np.asarray(shift)
    found = norm.apply({"params": params}, x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_none_changes_nothing_and_has_no_parameters():
    norm, x = Norm("none", scale=True), features()
    assert params_of(norm) == {}
    np.testing.assert_array_equal(norm.apply({}, x), x)
    np.testing.assert_array_equal(norm.apply({}, x, pool=max_pool), max_pool(x))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("scale", [None, 0.7, -0.7])
@pytest.mark.parametrize("kind", KINDS)
def test_pooling_on_the_way_is_pooling_the_result(kind, scale, offset, assert_close):
    # Before the rest where that is allowed; a negative factor turns the order of numbers round.
    norm, x = Norm(kind, scale is not None, offset), features()
    params = {} if scale is None else {"scale": scale * jnp.array([1.0, -1.0, 2.0])}
    params |= {"offset": jnp.array([0.3, -0.2, 0.1])} if offset else {}
    weights = jax.random.normal(jax.random.key(1), (5, 3, 2, 3))

    def value_and_gradients(apply):
        def weighted(params, x):
            y = apply({"params": params}, x)
            return jnp.sum(weights * y), y

        return jax.grad(weighted, (0, 1), has_aux=True)(params, x)

    found = value_and_gradients(lambda variables, x: norm.apply(variables, x, pool=max_pool))
    expected = value_and_gradients(lambda variables, x: max_pool(norm.apply(variables, x)))
    assert_close(found, expected, 1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_are_those_of_the_features_before_pooling(kind):
    x = features()
    found = Norm(kind, offset=False).apply({}, x, pool=max_pool)
    np.testing.assert_allclose(found, max_pool(by_hand(kind, x)), rtol=1e-4, atol=1e-5)
    assert np.mean(found) > 0.5  # the statistics of the pooled features would leave 0


def test_own_epsilon():
    x = features((7, 4), spread=0.02)
    expected = np.asarray(x - x.mean(0, keepdims=True)) / np.sqrt(x.var(0, keepdims=True) + 0.5)
    found = Norm("batch", offset=False, epsilon=0.5).apply({}, x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_wrong_kind_is_explained():
    with pytest.raises(ValueError, match=r"norm must be one of .*Did you mean 'batch'"):
        params_of(Norm("batchnorm"))


def test_every_inner_step_may_have_parameters_of_its_own(randomised):
    norm, x = Norm("batch", scale=True, steps=3), features()
    params = randomised(params_of(norm))
    assert jax.tree.map(jnp.shape, params) == {"scale": (3, 3), "offset": (3, 3)}
    for step, row in ((0, 0), (2, 2), (7, 2)):  # later steps take the last one's
        one = jax.tree.map(lambda rows, row=row: rows[row], params)
        expected = Norm("batch", scale=True).apply({"params": one}, x)
        np.testing.assert_array_equal(norm.apply({"params": params}, x, step=step), expected)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("axes", [(0,), (0, 1, 2), (1, 2, 3)])
def test_derivatives_of_the_moments_are_those_of_their_formulas(axes, assert_close):
    x = features()

    def formulas(x, axes):
        mean = jnp.mean(x, axes, keepdims=True)
        return mean, jnp.mean(x**2, axes, keepdims=True) - mean**2

    def derivatives(function):
        def value(x):
            mean, variance = function(x, axes)
            return jnp.sum(jnp.sin(mean) * jnp.sqrt(variance))

        slope = jax.grad(lambda x: jnp.sum(jax.grad(value)(x) * jnp.cos(x)))
        curvature = jax.grad(lambda x: jnp.sum(slope(x) * jnp.sin(x)))
        pushed = jax.jvp(jax.grad(value), (x,), (jnp.cos(x),))[1]
        return value(x), jax.grad(value)(x), slope(x), curvature(x), pushed

    assert_close(derivatives(moments), derivatives(formulas), 1e-9)
