"""Policies: densities, divergences and Fisher information against closed forms and sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mamljax.models import Categorical, Gaussian, categorical_policy, gaussian_policy

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


def categorical(*shape):
    return Categorical(jnp.asarray(RNG.normal(size=shape)))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("some", [gaussian, categorical])
def test_fisher_is_the_hessian_of_the_divergence(some):
    policy, tangent = some(2, 3), some(2, 3)

    def gradient(other):
        return jax.grad(lambda other: jnp.sum(policy.kl(other)))(other)

    expected = jax.jvp(gradient, (policy,), (tangent,))[1]
    for found, leaf in zip(policy.fisher(tangent), expected, strict=True):
        np.testing.assert_allclose(found, leaf, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_a_choice_agrees_with_sums_over_all_possibilities():
    one, other = categorical(2, 4), categorical(2, 4)
    p, q = (np.exp(x.logits) / np.exp(x.logits).sum(-1, keepdims=True) for x in (one, other))
    every = jnp.broadcast_to(jnp.eye(4)[:, None], (4, 2, 4))
    found = jax.vmap(one.log_prob)(every)
    np.testing.assert_allclose(found, np.log(p).T, rtol=1e-12)
    np.testing.assert_allclose(one.kl(other), np.sum(p * np.log(p / q), axis=-1), rtol=1e-12)
    np.testing.assert_allclose(one.kl(one), 0, atol=1e-15)
    shifted = Categorical(one.logits + 7.0)  # logits are known up to a constant
    np.testing.assert_allclose(shifted.log_prob(every[0]), one.log_prob(every[0]), rtol=1e-12)
    np.testing.assert_allclose(one.fisher(Categorical(jnp.ones((2, 4)))).logits, 0, atol=1e-15)
    drawn = jax.vmap(one.sample)(jax.random.split(jax.random.key(0), 20000))
    np.testing.assert_allclose(drawn.mean(0), p, atol=0.015)
    assert set(np.unique(drawn)) == {0.0, 1.0}
    np.testing.assert_array_equal(drawn.sum(-1), 1)


def test_a_choice_that_is_ruled_out_is_never_made_and_breaks_nothing():
    ruled_out = Categorical(jnp.array([[0.0, -jnp.inf, 0.0]]))
    actions = jnp.array([[1.0, 0.0, 0.0]])
    assert ruled_out.log_prob(actions)[0] == pytest.approx(np.log(0.5))
    assert ruled_out.kl(ruled_out)[0] == 0
    assert ruled_out.log_prob(jnp.zeros((1, 3)))[0] == 0
    assert not jax.vmap(ruled_out.sample)(jax.random.split(jax.random.key(1), 100))[..., 1].any()


def test_every_action_is_about_as_likely_at_first():
    policy = categorical_policy(3, hidden=(8,))
    params = policy.init(jax.random.key(0), jnp.zeros((1, 2)))
    found = policy.apply(params, jax.random.normal(jax.random.key(1), (5, 4, 2)))
    assert found.logits.shape == (5, 4, 3)
    np.testing.assert_allclose(jax.nn.softmax(found.logits), 1 / 3, atol=0.02)
    for options in ({"num_actions": 1}, {"num_actions": 2, "hidden": (0,)}):
        with pytest.raises(ValueError, match="must be"):
            categorical_policy(**options)


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
