"""Losses of ``(outputs, targets)`` that refuse to broadcast."""

import jax
import jax.numpy as jnp


def mean_squared_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """The mean of squared differences over all entries.

    Raises:
      ValueError: if the shapes differ (``[K, 1]`` against ``[K]`` would broadcast to ``[K, K]``).
    """
    if jnp.shape(outputs) != jnp.shape(targets):
        raise ValueError(
            f"mean_squared_error: outputs have shape {jnp.shape(outputs)} and targets "
            f"{jnp.shape(targets)}; give both the same shape."
        )
    return jnp.mean(jnp.square(outputs - targets))
