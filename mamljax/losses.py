"""Losses and metrics of ``(outputs, targets)`` that refuse to broadcast."""

import jax
import jax.numpy as jnp

from mamljax.checks import ArgumentError


def mean_squared_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """The mean of squared differences over all entries.

    Raises:
      ArgumentError: if the shapes differ: ``[K, 1]`` against ``[K]`` would broadcast to ``[K, K]``.
    """
    if jnp.shape(outputs) != jnp.shape(targets):
        raise ArgumentError(
            f"mean_squared_error: outputs have shape {jnp.shape(outputs)} and targets "
            f"{jnp.shape(targets)}; give both the same shape."
        )
    return jnp.mean(jnp.square(outputs - targets))


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean softmax cross-entropy of ``[K, N]`` logits against ``[K]`` integer labels.

    The MAML authors' code sums over the rows and divides by the shots instead, which is N times
    this: an inner step size of theirs is N times as large here (0.4 in 5-way becomes 2.0).

    A label outside 0 to N - 1 counts as a loss of 0, which no check can find inside `jax.jit`.

    Raises:
      ArgumentError: if the shapes do not match, or the labels are not integers.
    """
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    _check_classification("cross_entropy", logits, labels)
    # A product with one-hot rows: its derivatives are products again, where indexing would scatter.
    expected = jax.nn.one_hot(labels, logits.shape[1], dtype=logits.dtype)
    return -jnp.mean(jnp.sum(expected * jax.nn.log_softmax(logits), axis=1))


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The fraction of ``[K]`` integer labels at which the ``[K, N]`` logits are largest."""
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    _check_classification("accuracy", logits, labels)
    return jnp.mean((jnp.argmax(logits, axis=1) == labels).astype(logits.dtype))


def _check_classification(name: str, logits: jax.Array, labels: jax.Array) -> None:
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ArgumentError(
            f"{name}: logits must have shape [K, N] and labels [K]; got {logits.shape} and "
            f"{labels.shape}. Labels are class indices, not one-hot rows."
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ArgumentError(
            f"{name}: labels must be integers in 0 to N - 1; got dtype {labels.dtype}."
        )
