"""Stochastic policies: networks whose output is a distribution over actions."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.models.linen import from_linen
from mamljax.types import Array, Model, exportable


@exportable
class Gaussian(NamedTuple):
    """Independent normal distributions of the entries of an action.

    mean, log_std: ``[..., A]`` each.
    """

    mean: Array
    log_std: Array

    def sample(self, key: Array) -> Array:
        """One action each, ``[..., A]``."""
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self.mean + jnp.exp(self.log_std) * noise

    def log_prob(self, actions: Array) -> Array:
        """Log-densities of ``[..., A]`` actions, ``[...]``."""
        scaled = (actions - self.mean) * jnp.exp(-self.log_std)
        density = -0.5 * jnp.square(scaled) - self.log_std - 0.5 * math.log(2 * math.pi)
        return jnp.sum(density, axis=-1)

    def kl(self, other: "Gaussian") -> Array:
        """The Kullback-Leibler divergence KL(self || other), ``[...]``."""
        ratio = jnp.exp(2 * (self.log_std - other.log_std))
        shift = jnp.square((self.mean - other.mean) * jnp.exp(-other.log_std))
        return jnp.sum(other.log_std - self.log_std + 0.5 * (ratio + shift - 1), axis=-1)

    def fisher(self, tangent: "Gaussian") -> "Gaussian":
        """The Fisher information times a change of mean and log_std: the Hessian of `kl` at 0."""
        return Gaussian(jnp.exp(-2 * self.log_std) * tangent.mean, 2 * tangent.log_std)


@exportable
class Categorical(NamedTuple):
    """A choice among A possibilities; an action is a one-hot row, as an environment sees it.

    ``jnp.argmax(action)`` is its number, ``action @ values`` what it stands for.

    logits: ``[..., A]``, log-probabilities up to a constant.
    """

    logits: Array

    def sample(self, key: Array) -> Array:
        """One action each, ``[..., A]``, of zeros and a one."""
        chosen = jax.random.categorical(key, self.logits)
        return jax.nn.one_hot(chosen, self.logits.shape[-1], dtype=self.logits.dtype)

    def log_prob(self, actions: Array) -> Array:
        """Log-probabilities of ``[..., A]`` actions, ``[...]``; 0 for a row of zeros."""
        # Not a product: a possibility that is ruled out, at minus infinity, is times 0 NaN.
        chosen = jnp.where(actions > 0, jax.nn.log_softmax(self.logits), 0.0)
        return jnp.sum(chosen, axis=-1)

    def kl(self, other: "Categorical") -> Array:
        """The Kullback-Leibler divergence KL(self || other), ``[...]``."""
        log_p, log_q = jax.nn.log_softmax(self.logits), jax.nn.log_softmax(other.logits)
        return _weighted_sum(jnp.exp(log_p), jnp.where(jnp.exp(log_p) > 0, log_p - log_q, 0.0))

    def fisher(self, tangent: "Categorical") -> "Categorical":
        """The Fisher information times a change of logits: ``(diag(p) - p p^T) v``."""
        p = jax.nn.softmax(self.logits)
        mean = _weighted_sum(p, tangent.logits)
        return Categorical(p * (tangent.logits - mean[..., None]))


def _weighted_sum(weights: Array, values: Array) -> Array:
    return jnp.sum(weights * values, axis=-1)


class CategoricalPolicy(nn.Module):
    """Dense layers with ReLU to the logits, which begin near 0: every action is about as likely."""

    num_actions: int
    hidden: Sequence[int]

    @nn.compact
    def __call__(self, x: Array) -> Categorical:
        """``[..., D]`` observations to distributions over ``[..., A]`` actions."""
        for width in self.hidden:
            x = nn.relu(nn.Dense(width, kernel_init=nn.initializers.xavier_uniform())(x))
        small = nn.initializers.variance_scaling(1e-4, "fan_avg", "uniform")
        return Categorical(nn.Dense(self.num_actions, kernel_init=small)(x))


def categorical_policy(num_actions: int, *, hidden: Sequence[int] = (100, 100)) -> Model:
    """A policy over a finite number of actions: ``[..., D] -> Categorical [..., A]``.

    Its actions are one-hot rows, so that ``env.action_size`` is the number of actions.

    Args:
      num_actions: ``A``, 2 or more.
      hidden: widths of the hidden layers.

    Raises:
      ArgumentError: for a size that is too small.
    """
    checks.at_least("num_actions", num_actions, 2)
    return from_linen(CategoricalPolicy(num_actions, checks.sizes("hidden", hidden)))


class GaussianHead(nn.Module):
    """A dense layer to the mean; a log standard deviation that ignores the input."""

    action_size: int
    init_std: float
    min_std: float

    @nn.compact
    def __call__(self, x: Array) -> Gaussian:
        """``[..., F]`` features to distributions of ``[..., A]`` actions."""
        return gaussian_head(self, x)


class GaussianPolicy(nn.Module):
    """Dense layers with ReLU, and the head of a Gaussian."""

    action_size: int
    hidden: Sequence[int]
    init_std: float
    min_std: float

    @nn.compact
    def __call__(self, x: Array) -> Gaussian:
        """``[..., D]`` observations to distributions of ``[..., A]`` actions."""
        for width in self.hidden:
            x = nn.relu(nn.Dense(width, kernel_init=nn.initializers.xavier_uniform())(x))
        return gaussian_head(self, x)


def gaussian_head(module: Any, x: Array) -> Gaussian:
    """The head of a Gaussian, with its parameters in the module that calls it."""
    mean = nn.Dense(module.action_size, kernel_init=nn.initializers.xavier_uniform())(x)
    start = nn.initializers.constant(math.log(module.init_std))
    log_std = module.param("log_std", start, (module.action_size,))
    log_std = jnp.maximum(log_std, math.log(module.min_std))
    return Gaussian(mean, jnp.broadcast_to(log_std, mean.shape))


def gaussian_policy(
    action_size: int,
    *,
    hidden: Sequence[int] = (100, 100),
    init_std: float = 1.0,
    min_std: float = 1e-6,
) -> Model:
    """The paper's policy (Finn et al. 2017, section 5.3): ``[..., D] -> Gaussian [..., A]``.

    Args:
      action_size: entries ``A`` of an action.
      hidden: widths of the hidden layers.
      init_std: the standard deviation before training; it is a parameter like any other, and
        adapts.
      min_std: its lower bound.

    Raises:
      ArgumentError: for a size below 1, or standard deviations but 0 < min_std <= init_std.
    """
    checks.at_least("action_size", action_size, 1)
    widths = checks.sizes("hidden", hidden)
    check_deviations(init_std, min_std)
    return from_linen(GaussianPolicy(action_size, widths, init_std, min_std))


def check_deviations(init_std: float, min_std: float) -> None:
    """Refuse standard deviations but 0 < min_std <= init_std."""
    checks.finite("init_std", init_std)
    checks.finite("min_std", min_std)
    if not 0 < min_std <= init_std:
        raise ArgumentError(
            f"standard deviations must be 0 < min_std <= init_std; got min_std={min_std!r} and "
            f"init_std={init_std!r}."
        )
