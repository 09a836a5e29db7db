"""Returns, advantages and the linear baseline against NumPy loops and a least-squares solve."""

import jax.numpy as jnp
import numpy as np
import pytest

from mamljax.rl.advantages import (
    RIDGE,
    advantages,
    discounted_sum,
    linear_baseline,
    standardised,
)

RNG = np.random.default_rng(0)
LENGTHS = np.array([7, 4, 1, 7])  # the time limit is 7
VALID = (np.arange(7) < LENGTHS[:, None]).astype(np.float32)
REWARDS = (RNG.normal(size=(4, 7)) * VALID).astype(np.float32)
VALUES = RNG.normal(size=(4, 7)).astype(np.float32)


def test_returns_are_those_of_a_loop():
    found = discounted_sum(jnp.asarray(REWARDS), 0.9)
    for episode, length in enumerate(LENGTHS):
        for t in range(length):
            expected = sum(0.9 ** (u - t) * REWARDS[episode, u] for u in range(t, length))
            assert found[episode, t] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.5, 1.0])
def test_advantages_are_those_of_a_loop_without_a_bootstrap(gae_lambda):
    found = advantages(REWARDS, VALUES, VALID, discount=0.9, gae_lambda=gae_lambda)
    for episode, length in enumerate(LENGTHS):
        total = 0.0
        for t in reversed(range(length)):
            after = VALUES[episode, t + 1] if t + 1 < length else 0.0
            delta = REWARDS[episode, t] + 0.9 * after - VALUES[episode, t]
            total = delta + 0.9 * gae_lambda * total
            assert found[episode, t] == pytest.approx(total, rel=1e-4, abs=1e-5)
    assert not np.any(found * (1 - VALID))


@pytest.mark.parametrize("name", ["discount", "gae_lambda"])
@pytest.mark.parametrize("value", [-0.1, 1.01, np.nan, "0.9"])
def test_discounts_lie_from_0_to_1(name, value):
    with pytest.raises(ValueError, match=rf"{name} must be a number from 0 to 1; got"):
        advantages(REWARDS, VALUES, VALID, **{name: value})


def test_what_is_not_valid_may_be_anything():
    spoilt = np.where(VALID > 0, VALUES, np.nan)
    seen = RNG.normal(size=(4, 7, 2)).astype(np.float32)
    for found, expected in (
        (advantages(REWARDS, spoilt, VALID), advantages(REWARDS, VALUES, VALID)),
        (standardised(spoilt, VALID), standardised(VALUES, VALID)),
        (
            linear_baseline(np.where(VALID[..., None] > 0, seen, np.inf), spoilt, VALID) * VALID,
            linear_baseline(seen, VALUES, VALID) * VALID,
        ),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_at_lambda_one_advantages_are_returns_minus_values():
    found = advantages(REWARDS, VALUES, VALID, discount=0.9, gae_lambda=1.0)
    expected = (discounted_sum(REWARDS, 0.9) - VALUES) * VALID
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_baseline_is_the_least_squares_fit():
    episodes, horizon, size = 6, 20, 3
    valid = (np.arange(horizon) < RNG.integers(5, horizon + 1, (episodes, 1))).astype(np.float32)
    observations = RNG.normal(size=(episodes, horizon, size)).astype(np.float32) * 8
    returns = RNG.normal(size=(episodes, horizon)).astype(np.float32) * valid
    clipped = np.clip(observations, -10, 10).astype(np.float64)
    time = np.broadcast_to(np.arange(horizon)[:, None] / 100, (episodes, horizon, 1))
    features = np.concatenate(
        [clipped, clipped**2, time, time**2, time**3, np.ones_like(time)], axis=-1
    )
    rows = features[valid > 0]
    gram = rows.T @ rows + RIDGE * np.eye(rows.shape[1])
    weights = np.linalg.solve(gram, rows.T @ returns[valid > 0])
    found = linear_baseline(observations, returns, valid)
    np.testing.assert_allclose(found * valid, (features @ weights) * valid, rtol=2e-3, atol=2e-3)


def test_the_baseline_survives_constant_and_huge_observations():
    returns = RNG.normal(size=(3, 5)).astype(np.float32)
    for observations in (np.zeros((3, 5, 2)), np.full((3, 5, 2), 1e20)):
        found = linear_baseline(observations.astype(np.float32), returns, np.ones((3, 5)))
        assert np.isfinite(found).all()
        assert np.square(returns - found).sum() <= np.square(returns - returns.mean()).sum() * 1.01


def test_standardised_over_valid_steps_alone():
    found = np.asarray(standardised(VALUES, VALID))
    assert found[VALID > 0].mean() == pytest.approx(0, abs=1e-6)
    assert found[VALID > 0].std() == pytest.approx(1, rel=1e-5)
    assert not found[VALID == 0].any()
    assert np.isfinite(standardised(jnp.zeros((2, 3)), jnp.zeros((2, 3)))).all()
