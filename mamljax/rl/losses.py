"""Losses of a policy on recorded experience; every one averages over the valid steps.

All have the form ``(distribution [E, H], Experience) -> scalar``, so that each can be the inner
loss or the outer one. Where behaviour and policy agree they all have the gradient of `reinforce`;
they differ in their second derivatives, which the meta-gradient needs, and away from it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mamljax import checks
from mamljax.rl.advantages import masked
from mamljax.types import Array, LossFn, PyTree


class Experience(NamedTuple):
    """The targets of a batch of episodes, against which a policy's outputs are scored.

    actions: ``[E, H, A]``.
    rewards: ``[E, H]``.
    advantages: ``[E, H]``.
    valid: ``[E, H]``, 1 for steps taken, 0 after an episode's end.
    behaviour: the distributions that the actions were drawn from.
    broken, clipped: ``[E]``, see `Trajectories`.
    """

    actions: Array
    rewards: Array
    advantages: Array
    valid: Array
    behaviour: PyTree
    broken: Array
    clipped: Array


def reinforce(policy: Any, experience: Experience) -> Array:
    """``-mean(log pi(a | s) A)`` (Williams 1992), the paper's inner loss (equation 4)."""
    return -_mean(policy.log_prob(experience.actions) * _advantages(experience), experience)


def likelihood_ratio(policy: Any, experience: Experience) -> Array:
    """``-mean(pi / behaviour * A)``: the surrogate of TRPO, the paper's outer loss.

    As an inner loss it is the low-variance curvature estimator of Rothfuss et al. 2019, *ProMP*,
    equation 12: its second derivative keeps the products of first derivatives of ``log pi`` that
    `reinforce` lacks.
    """
    return -_mean(_ratio(policy, experience) * _advantages(experience), experience)


def clipped_ratio(epsilon: float = 0.2) -> LossFn:
    """`likelihood_ratio` without reward for ratios outside 1 +- epsilon, as in PPO.

    Schulman et al. 2017, *Proximal policy optimization algorithms*, equation 7.
    """
    checks.non_negative("epsilon", epsilon)

    def loss(policy, experience):
        ratio = _ratio(policy, experience)
        gains = ratio * _advantages(experience)
        limited = jnp.clip(ratio, 1 - epsilon, 1 + epsilon) * _advantages(experience)
        return -_mean(jnp.minimum(gains, limited), experience)

    return loss


def dice(policy: Any, experience: Experience) -> Array:
    """An inner loss whose derivatives of every order are unbiased estimates.

    Foerster et al. 2018, *DiCE*, in the form with advantages of Farquhar et al. 2019, *Loaded
    DiCE*, equation 14, at lambda 1. Its value is 0 where it is differentiated.
    """
    log_probs = masked(policy.log_prob(experience.actions), experience.valid)
    dependencies = jnp.cumsum(log_probs, axis=1)
    gains = _magic_box(dependencies) - _magic_box(dependencies - log_probs)
    return -_mean(gains * _advantages(experience), experience)


def mean_return(policy: Any, experience: Experience) -> Array:
    """The undiscounted sum of rewards of an episode, averaged: a metric, not a loss.

    Of episodes that are all broken it is NaN, and `evaluate` counts the task as diverged. Where
    rewards are negative, nothing is not the best that can be had.
    """
    del policy
    found = jnp.mean(jnp.sum(experience.rewards, axis=1))
    return jnp.where(jnp.all(experience.broken), jnp.nan, found)


def broken_episodes(policy: Any, experience: Experience) -> Array:
    """The number of episodes that are broken, see `Trajectories`: a metric, not a loss.

    Their return ends where they broke, so that `mean_return` says little where there are many; of
    negative rewards it is the better for it. With ``evaluate(..., info={"broken": ...})`` they are
    counted beside the return.
    """
    del policy
    return jnp.sum(experience.broken, dtype=experience.rewards.dtype)


def negative_return(policy: Any, experience: Experience) -> Array:
    """Minus `mean_return`: what evaluation and tuning call the loss."""
    return -mean_return(policy, experience)


def divergence(policy: Any, experience: Experience) -> Array:
    """The mean KL divergence of the policy from the behaviour, KL(behaviour || policy)."""
    return _mean(experience.behaviour.kl(policy), experience)


def _mean(values: Array, experience: Experience) -> Array:
    """The mean over the valid steps; NaN without any, with a gradient of 0."""
    steps = jnp.sum(experience.valid)
    total = jnp.sum(masked(values, experience.valid))
    return jnp.where(steps > 0, total / jnp.maximum(steps, 1.0), jnp.nan)


def _advantages(experience: Experience) -> Array:
    """Zero where nothing counts: as factors they would poison derivatives."""
    return masked(experience.advantages, experience.valid)


def _ratio(policy: Any, experience: Experience) -> Array:
    actions = experience.actions
    change = policy.log_prob(actions) - experience.behaviour.log_prob(actions)
    # Before the exponential, whose derivative would be infinite where nothing counts.
    return jnp.exp(masked(change, experience.valid))


def _magic_box(x: Array) -> Array:
    """1, with the derivatives of ``exp(x)``."""
    return jnp.exp(x - jax.lax.stop_gradient(x))
