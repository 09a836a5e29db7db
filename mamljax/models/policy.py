"""Stochastic policies: networks whose output is a distribution over actions."""

import math
from collections.abc import Sequence
from typing import NamedTuple

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


class GaussianPolicy(nn.Module):
    """Dense layers with ReLU to the mean; a log standard deviation that ignores the input."""

    action_size: int
    hidden: Sequence[int]
    init_std: float
    min_std: float

    @nn.compact
    def __call__(self, x: Array) -> Gaussian:
        """``[..., D]`` observations to distributions of ``[..., A]`` actions."""
        init = nn.initializers.xavier_uniform()
        for width in self.hidden:
            x = nn.relu(nn.Dense(width, kernel_init=init)(x))
        mean = nn.Dense(self.action_size, kernel_init=init)(x)
        start = nn.initializers.constant(math.log(self.init_std))
        log_std = self.param("log_std", start, (self.action_size,))
        log_std = jnp.maximum(log_std, math.log(self.min_std))
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
    checks.finite("init_std", init_std)
    checks.finite("min_std", min_std)
    if not 0 < min_std <= init_std:
        raise ArgumentError(
            f"standard deviations must be 0 < min_std <= init_std; got min_std={min_std!r} and "
            f"init_std={init_std!r}."
        )
    return from_linen(GaussianPolicy(action_size, widths, init_std, min_std))
