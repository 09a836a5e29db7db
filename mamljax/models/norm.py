"""Normalisation with its choices spelled out: whose statistics, and which parameters exist."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from mamljax import checks

NORMS = ("none", "batch", "layer")

CHOICES = (*NORMS, "support")
"""The norms of a network; ``support`` is ``batch`` whose predictions go by the support set."""

KEPT = "support_statistics"
"""The collection in which `Norm` keeps the statistics of a support set."""


def layer_and_model(norm: str) -> tuple[str, str]:
    """One of `CHOICES` as the kind of each `Norm` and the norm of `from_linen`.

    Raises:
      ArgumentError: for an unknown name.
    """
    checks.one_of("norm", norm, CHOICES)
    return ("batch", "support") if norm == "support" else (norm, "batch")


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def moments(x: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Mean and variance over some axes, which keep the length 1."""
    mean = jnp.mean(x, axes, keepdims=True)
    return mean, jnp.mean(jnp.square(x - mean), axes, keepdims=True)


@moments.defjvp
def _moments_jvp(axes, primals, tangents):
    # By itself, automatic differentiation stores the differences from the mean.
    (x,), (moved,) = primals, tangents
    mean, variance = moments(x, axes)
    of_mean = jnp.mean(moved, axes, keepdims=True)
    of_variance = 2 * (jnp.mean(x * moved, axes, keepdims=True) - mean * of_mean)
    return (mean, variance), (of_mean, of_variance)


class Norm(nn.Module):
    """Subtract the mean, divide by the standard deviation, then scale and shift.

    Differentiable in both modes, to any order.

    Attributes:
      kind: ``batch`` takes the statistics of the current batch, per channel, in training and at
        test, for the support and the query set separately, as the MAML authors do (transductive:
        a prediction depends on the batch it is made in; there are no running averages). Under
        ``from_linen(..., norm="support")`` predictions have the statistics of the support set.
        ``layer`` takes them over all features of one example. ``none`` changes nothing.
      scale: learn a factor per channel (gamma), from 1.
      offset: learn a shift per channel (beta), from 0.
      epsilon: added to the variance.
      steps: give each of this many inner steps a scale and an offset of its own; later steps take
        the last one's (MAML++, Antoniou et al. 2019, section 4). None shares them.
    """

    kind: str = "batch"
    scale: bool = False
    offset: bool = True
    epsilon: float = 1e-3
    steps: int | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, *, pool: Callable = lambda x: x, step: jax.Array | int = 0
    ) -> jax.Array:
        """``[K, ..., F] -> [K, ..., F]``.

        Args:
          x: the features.
          pool: a pooling of the result. Without a factor (or without a norm) it is applied before
            the rest: a maximum commutes with what increases, and less is left to normalise. The
            statistics are those of all of `x` in either case.
          step: the inner step.
        """
        checks.one_of("norm", self.kind, NORMS)
        if self.kind == "none":
            return pool(x)
        axes = tuple(range(1, x.ndim)) if self.kind == "layer" else tuple(range(x.ndim - 1))
        mean, variance = self._statistics(x, axes)
        channel = (1,) * (x.ndim - 1) + x.shape[-1:]
        scale = self._parameter("scale", nn.initializers.ones, x, step) if self.scale else None
        x = (x if self.scale else pool(x)) - mean
        x = x * jax.lax.rsqrt(variance + self.epsilon)
        if scale is not None:
            x = x * scale.reshape(channel)
        if self.offset:
            x = x + self._parameter("offset", nn.initializers.zeros, x, step).reshape(channel)
        return pool(x) if self.scale else x

    def _statistics(self, x: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
        """Mean and variance: those of `x`, or of the support set where these were kept."""
        if self.kind == "batch" and self.has_variable(KEPT, "mean"):
            return self.get_variable(KEPT, "mean"), self.get_variable(KEPT, "variance")
        mean, variance = moments(x, axes)
        asked = self.is_mutable_collection(KEPT) and not self.is_initializing()
        if self.kind == "batch" and asked:
            self.put_variable(KEPT, "mean", mean)
            self.put_variable(KEPT, "variance", variance)
        return mean, variance

    def _parameter(self, name: str, init: Callable, x: jax.Array, step: jax.Array | int):
        if self.steps is None:
            return self.param(name, init, x.shape[-1:])
        return self.param(name, init, (self.steps, x.shape[-1]))[jnp.minimum(step, self.steps - 1)]
