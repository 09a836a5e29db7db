"""Advantages from rewards: returns, a linear baseline, generalised advantage estimation."""

import jax
import jax.numpy as jnp

from mamljax import checks
from mamljax.types import Array

RIDGE = 1e-5
"""The penalty on the baseline's squared coefficients, as in the authors' code."""


def masked(values: Array, valid: Array) -> Array:
    """The values where they are valid, and 0 elsewhere, whatever is there.

    A product with `valid` would keep what is not a number: 0 times NaN is NaN.
    """
    return jnp.where(valid > 0, values, 0)


def discounted_sum(x: Array, discount: float) -> Array:
    """``y[t] = x[t] + discount * y[t + 1]`` along the last axis, ``[E, H] -> [E, H]``."""

    def add(later, now):
        total = now + discount * later
        return total, total

    start = jnp.zeros(x.shape[:-1], x.dtype)
    _, totals = jax.lax.scan(add, start, jnp.moveaxis(x, -1, 0), reverse=True)
    return jnp.moveaxis(totals, 0, -1)


def advantages(
    rewards: Array, values: Array, valid: Array, *, discount: float = 0.99, gae_lambda: float = 1.0
) -> Array:
    """Generalised advantage estimates (Schulman et al. 2016, equation 16), ``[E, H]``.

    Nothing is added for what might follow the last step, whether an episode ended there or ran
    into the time limit, as in the authors' code. With ``gae_lambda=1`` these are the discounted
    returns minus the values.

    Args:
      rewards: ``[E, H]``, 0 where not valid.
      values: ``[E, H]``, the baseline's prediction of the return from each step on.
      valid: ``[E, H]``, 1 or 0.
      discount: of the reward one step later, from 0 to 1.
      gae_lambda: 1 for returns, 0 for one-step differences.

    Raises:
      ArgumentError: for a discount or a lambda that does not lie from 0 to 1.
    """
    checks.fraction("discount", discount)
    checks.fraction("gae_lambda", gae_lambda)
    values = masked(values, valid)
    following = jnp.concatenate([values[:, 1:], jnp.zeros_like(values[:, :1])], axis=1)
    gains = discounted_sum(rewards + discount * following - values, discount * gae_lambda)
    return masked(gains, valid)


def linear_baseline(observations: Array, returns: Array, valid: Array) -> Array:
    """Returns predicted by the linear model of them that fits these episodes best, ``[E, H]``.

    Features are the observation o clipped to [-10, 10], its square, t/100, its square and cube,
    and 1 (Duan et al. 2016, *Benchmarking deep reinforcement learning for continuous control*),
    fitted by least squares with the penalty `RIDGE`.

    Args:
      observations: ``[E, H, D]``.
      returns: ``[E, H]``.
      valid: ``[E, H]``, 1 or 0; other steps are left out of the fit.
    """
    clipped = jnp.clip(masked(observations, valid[..., None]), -10.0, 10.0)
    time = jnp.broadcast_to(jnp.arange(returns.shape[1]) / 100.0, returns.shape)[..., None]
    powers = [clipped, jnp.square(clipped), time, time**2, time**3, jnp.ones_like(time)]
    features = jnp.concatenate(powers, axis=-1)
    size = features.shape[-1]
    rows = (features * valid[..., None]).reshape(-1, size)
    # The penalty as further rows, and a QR factorisation: normal equations would square the
    # condition number, which is too much for float32.
    rows = jnp.concatenate([rows, jnp.sqrt(RIDGE) * jnp.eye(size, dtype=rows.dtype)])
    wanted = jnp.concatenate([masked(returns, valid).reshape(-1), jnp.zeros(size, rows.dtype)])
    return features @ _least_squares(rows, wanted)


# One matrix at a time, also under `vmap`: a batch of them waits, on CPU, for tasks that it gives to
# the pool of threads it runs in itself, and hangs once every thread waits like that.
@jax.custom_batching.sequential_vmap
def _least_squares(rows: Array, wanted: Array) -> Array:
    """The w that minimises ``|rows w - wanted|``, ``[N, D], [N] -> [D]``."""
    q, r = jnp.linalg.qr(rows)
    return jax.scipy.linalg.solve_triangular(r, wanted @ q)


def standardised(values: Array, valid: Array) -> Array:
    """Mean 0 and standard deviation 1 over the valid steps, and 0 elsewhere, ``[E, H]``."""
    count = jnp.maximum(jnp.sum(valid), 1.0)
    values = masked(values, valid)
    centred = masked(values - jnp.sum(values) / count, valid)
    return centred / (jnp.sqrt(jnp.sum(jnp.square(centred)) / count) + 1e-8)
