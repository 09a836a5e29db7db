"""The Gaussian policy: densities, divergences and Fisher information against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mamljax.models import Gaussian, gaussian_policy

RNG = np.random.default_rng(0)


def gaussian(*shape):
    mean, log_std = RNG.normal(size=(2, *shape)) * 0.5
    return Gaussian(jnp.asarray(mean), jnp.asarray(log_std))


def test_the_density_integrates_to_one():
    policy = Gaussian(jnp.full((4001, 1), 0.3), jnp.full((4001, 1), -0.5))
    grid = jnp.linspace(-8, 8, 4001)[:, None]
    assert jnp.sum(jnp.exp(policy.log_prob(grid))) * 16 / 4000 == pytest.approx(1, rel=1e-3)


def test_samples_have_the_mean_and_deviation():
    policy = Gaussian(jnp.full((20000, 2), 2.0), jnp.full((20000, 2), -1.0))
    found = policy.sample(jax.random.key(0))
    np.testing.assert_allclose(found.mean(0), 2, atol=0.02)
    np.testing.assert_allclose(found.std(0), np.exp(-1), rtol=0.03)


def test_divergence_is_the_mean_difference_of_log_densities():
    one, other = gaussian(1, 2), gaussian(1, 2)
    many = jax.tree.map(lambda x: jnp.broadcast_to(x, (400_000, 2)), one)
    actions = many.sample(jax.random.key(1))
    far = jax.tree.map(lambda x: jnp.broadcast_to(x, (400_000, 2)), other)
    sampled = jnp.mean(many.log_prob(actions) - far.log_prob(actions))
    assert one.kl(other)[0] == pytest.approx(float(sampled), rel=0.02)
    assert one.kl(one)[0] == pytest.approx(0, abs=1e-6)


@pytest.mark.usefixtures("x64")
def test_fisher_is_the_hessian_of_the_divergence():
    policy, tangent = gaussian(3), gaussian(3)

    def gradient(other):
        return jax.grad(lambda other: policy.kl(other))(other)

    expected = jax.jvp(gradient, (policy,), (tangent,))[1]
    for found, leaf in zip(policy.fisher(tangent), expected, strict=True):
        np.testing.assert_allclose(found, leaf, rtol=1e-10)


def test_the_network_is_the_papers():
    policy = gaussian_policy(2)
    params = policy.init(jax.random.key(0), jnp.zeros((1, 20)))
    shapes = sorted(x.shape for x in jax.tree.leaves(params))
    assert shapes == sorted([(20, 100), (100,), (100, 100), (100,), (100, 2), (2,), (2,)])
    output = policy.apply(params, jnp.ones((5, 4, 20)))
    assert output.mean.shape == output.log_std.shape == (5, 4, 2)
    assert not jnp.any(output.log_std)


def test_the_deviation_has_a_floor():
    policy = gaussian_policy(1, hidden=(), min_std=0.1)
    params = policy.init(jax.random.key(0), jnp.zeros((1, 2))) | {"log_std": jnp.array([-50.0])}
    assert policy.apply(params, jnp.zeros((1, 2))).log_std[0, 0] == pytest.approx(np.log(0.1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"action_size": 0}, "action_size must be an integer of at least 1"),
        ({"action_size": 1, "hidden": (0,)}, "hidden must be"),
        ({"action_size": 1, "hidden": 3}, "hidden must be a sequence of integers"),
        ({"action_size": 1, "init_std": None}, "init_std must be a finite number; got None"),
        ({"action_size": 1, "init_std": 0.0}, "0 < min_std <= init_std"),
        ({"action_size": 1, "min_std": -1.0}, "0 < min_std <= init_std"),
    ],
)
def test_bad_sizes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        gaussian_policy(**options)
