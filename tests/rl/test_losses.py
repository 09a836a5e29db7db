"""Losses of recorded experience: closed forms, their gradients, and unbiased second derivatives."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mamljax.models import Gaussian
from mamljax.rl import losses
from mamljax.rl.losses import Experience

RNG = np.random.default_rng(0)
VALID = np.array([[1, 1, 1, 0], [1, 1, 1, 1.0]])


def policy_at(shift):
    """Distributions ``[2, 4, 1]`` whose every parameter depends on a number."""
    start = np.linspace(-1, 1, 8).reshape(2, 4, 1)
    return Gaussian(jnp.asarray(start) + shift, jnp.full((2, 4, 1), -0.3) + 0.5 * shift)


def experience_at(shift):
    actions, rewards, advantages = RNG.normal(size=(3, 2, 4))
    return Experience(
        jnp.asarray(actions)[..., None],
        jnp.asarray(rewards * VALID),
        jnp.asarray(advantages * VALID),
        jnp.asarray(VALID),
        policy_at(shift),
        jnp.zeros(2, bool),
        jnp.zeros(2),
    )


@pytest.mark.usefixtures("x64")
def test_all_have_the_gradient_of_reinforce_where_the_data_come_from():
    data = experience_at(0.1)
    gradients = [
        jax.grad(lambda shift, loss=loss: loss(policy_at(shift), data))(0.1)
        for loss in (
            losses.reinforce,
            losses.likelihood_ratio,
            losses.clipped_ratio(0.2),
            losses.dice,
        )
    ]
    log_prob = jax.jacobian(lambda shift: policy_at(shift).log_prob(data.actions))(0.1)
    expected = -np.sum(log_prob * data.advantages * VALID) / 7
    np.testing.assert_allclose(gradients, expected, rtol=1e-9)


def test_steps_after_the_end_do_not_count():
    data = experience_at(0.0)
    changed = data._replace(
        actions=data.actions.at[0, 3].set(9.0), advantages=data.advantages.at[0, 3].set(9.0)
    )
    for loss in (losses.reinforce, losses.likelihood_ratio, losses.dice, losses.divergence):
        one, other = (loss(policy_at(0.2), d) for d in (data, changed))
        assert one == pytest.approx(float(other), rel=1e-6)


@pytest.mark.parametrize(
    "loss",
    [losses.reinforce, losses.likelihood_ratio, losses.clipped_ratio(0.2), losses.dice],
    ids=["reinforce", "likelihood_ratio", "clipped_ratio", "dice"],
)
def test_nothing_that_is_not_valid_poisons_a_loss(loss):
    data = experience_at(0.0)
    spoilt = data._replace(
        advantages=data.advantages.at[0, 3].set(jnp.nan),
        behaviour=Gaussian(data.behaviour.mean.at[0, 3].set(jnp.nan), data.behaviour.log_std),
    )
    found, expected = (
        jax.value_and_grad(lambda x, d=d: loss(policy_at(x), d))(0.2) for d in (spoilt, data)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    # Without a valid step there is nothing to average, and nothing to learn.
    none = data._replace(valid=jnp.zeros((2, 4)))
    value, gradient = jax.value_and_grad(lambda x: loss(policy_at(x), none))(0.2)
    assert np.isnan(value)
    assert gradient == 0


def test_ratios_beyond_the_clip_earn_nothing():
    data = experience_at(0.0)
    policy = policy_at(0.4)
    ratio = np.exp(policy.log_prob(data.actions) - data.behaviour.log_prob(data.actions))
    gains = np.minimum(ratio * data.advantages, np.clip(ratio, 0.9, 1.1) * data.advantages)
    expected = -(gains * VALID).sum() / 7
    assert losses.clipped_ratio(0.1)(policy, data) == pytest.approx(expected, rel=1e-5)
    assert not np.allclose(ratio, np.clip(ratio, 0.9, 1.1))


def test_divergence_and_returns():
    data = experience_at(0.0)
    assert losses.divergence(policy_at(0.0), data) == pytest.approx(0, abs=1e-6)
    kl = np.asarray(data.behaviour.kl(policy_at(0.3)))
    expected = (kl * VALID).sum() / 7
    assert losses.divergence(policy_at(0.3), data) == pytest.approx(expected, rel=1e-5)
    returned = data.rewards.sum(1).mean()
    assert losses.mean_return(None, data) == pytest.approx(float(returned))
    assert losses.negative_return(None, data) == pytest.approx(-float(returned))
    one_broke = data._replace(broken=jnp.array([True, False]))
    assert losses.mean_return(None, one_broke) == pytest.approx(float(returned))
    assert np.isnan(losses.mean_return(None, data._replace(broken=jnp.ones(2, bool))))


class Coin:
    """A policy over two actions, with ``log pi(1) = log_sigmoid(logit)``."""

    def __init__(self, logits):
        self.logits = logits

    def log_prob(self, actions):
        return jax.nn.log_sigmoid(jnp.where(actions[..., 0] > 0, self.logits, -self.logits))


def expected_return(logit, payoff):
    """Of two steps of a coin; the second reward depends on both actions, so order matters."""
    total = 0.0
    for actions in itertools.product((0, 1), repeat=2):
        probability = jnp.prod(jax.nn.sigmoid(jnp.array([logit if a else -logit for a in actions])))
        total = total + probability * (payoff[0][actions[0]] + payoff[1][actions[0]][actions[1]])
    return total


@pytest.mark.usefixtures("x64")
def test_dice_has_the_second_derivative_of_the_expected_return():
    """In expectation over all trajectories; `reinforce` has not, and LVC lacks the cross terms."""
    logit, payoff = 0.3, (np.array([0.2, 1.0]), np.array([[0.5, -1.0], [2.0, 0.1]]))
    second = jax.grad(jax.grad(expected_return))(logit, payoff)
    found = dict.fromkeys(("dice", "reinforce"), 0.0)
    for actions in itertools.product((0, 1), repeat=2):
        rewards = np.array([payoff[0][actions[0]], payoff[1][actions[0]][actions[1]]])
        probability = np.prod([1 / (1 + np.exp(-logit if a else logit)) for a in actions])
        data = Experience(
            jnp.asarray(actions, float)[None, :, None],
            jnp.asarray(rewards)[None],
            jnp.asarray(np.cumsum(rewards[::-1])[::-1].copy())[None],  # returns, no baseline
            jnp.ones((1, 2)),
            Coin(jnp.full((1, 2), logit)),
            jnp.zeros(1, bool),
            jnp.zeros(1),
        )
        for name in found:
            loss = getattr(losses, name)
            of = jax.grad(
                jax.grad(lambda x, loss=loss, data=data: loss(Coin(x * jnp.ones((1, 2))), data))
            )
            found[name] -= 2 * probability * of(logit)  # losses are means over two steps
    assert found["dice"] == pytest.approx(float(second), rel=1e-9)
    assert abs(found["reinforce"] - second) > 0.1


@pytest.mark.parametrize("epsilon", [-0.1, float("nan")])
def test_a_bad_clip_is_refused(epsilon):
    with pytest.raises(ValueError, match="epsilon must be a finite number"):
        losses.clipped_ratio(epsilon)
