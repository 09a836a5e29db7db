"""Losses and metrics of ``(outputs, targets)`` that refuse to broadcast.

Each averages over the examples. Targets may be `Weighted`: the mean is then by weight, and 0 where
no example has any.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mamljax.checks import ArgumentError
from mamljax.types import Array, Weighted


def mean_squared_error(outputs: Array, targets: Array | Weighted) -> Array:
    """The mean of squared differences over all entries.

    Raises:
      ArgumentError: if the shapes differ: ``[K, 1]`` against ``[K]`` would broadcast to ``[K, K]``.
    """
    found, wanted, weights = _counted("mean_squared_error", outputs, targets)
    if found.shape != wanted.shape:
        raise ArgumentError(
            f"mean_squared_error: outputs have shape {found.shape} and targets {wanted.shape}; "
            "give both the same shape."
        )
    for x in (found, wanted):
        if not any(jnp.issubdtype(x.dtype, kind) for kind in (jnp.floating, jnp.integer)):
            raise ArgumentError(
                f"mean_squared_error: outputs and targets must be real numbers; got {x.dtype}."
            )
    return _mean(jnp.square(found - wanted), weights)


def cross_entropy(logits: Array, labels: Array | Weighted) -> Array:
    """The mean softmax cross-entropy of ``[K, N]`` logits against ``[K]`` integer labels.

    The MAML authors' code sums over the rows and divides by the shots instead, which is N times
    this: an inner step size of theirs is N times as large here (0.4 in 5-way becomes 2.0).

    A logit of minus infinity rules its class out. A label outside 0 to N - 1 makes the loss and its
    gradient NaN, since nothing can be raised inside `jax.jit`; `fit` stops there.

    Raises:
      ArgumentError: if the shapes do not match, or the labels are not integers; and where labels
        are a NumPy array, known before anything is compiled, if one lies outside 0 to N - 1.
    """
    logits, found, weights = _counted("cross_entropy", logits, labels)
    # A product with one-hot rows: its derivatives are products again, where indexing would scatter.
    expected = _rows("cross_entropy", logits, found)
    # Not 0 times the minus infinity of a class that is ruled out.
    terms = jnp.where(expected == 0, 0, expected * jax.nn.log_softmax(logits))
    return -_mean(jnp.sum(terms, axis=1), weights)


def accuracy(logits: Array, labels: Array | Weighted) -> Array:
    """The fraction of ``[K]`` integer labels at which the ``[K, N]`` logits are largest.

    Raises:
      ArgumentError: as `cross_entropy`; likewise a label outside 0 to N - 1 gives NaN.
    """
    logits, found, weights = _counted("accuracy", logits, labels)
    rows = _rows("accuracy", logits, found)
    best = jnp.argmax(logits, axis=1)[:, None]
    # The row of a wrong label is NaN throughout, and so is what it scores.
    hits = jnp.take_along_axis(rows, best, axis=1)
    return _mean(hits[:, 0], weights)


def one_hot(
    labels: Array | np.ndarray, classes: int, dtype: Any, *, name: str = "one_hot"
) -> Array:
    """Rows ``[K, N]`` of 0 and a single 1; all NaN for a label outside 0 to N - 1.

    Args:
      labels: ``[K]`` integers.
      classes: how many, ``N``.
      dtype: of the rows.
      name: what errors call the caller.

    Raises:
      ArgumentError: unless the labels are a vector of integers. Where they are a NumPy array, known
        before anything is compiled, also if one lies outside 0 to N - 1.
    """
    expected = f"{name}: labels must be integers in 0 to N - 1 of shape [K]"
    if isinstance(labels, Weighted):
        raise ArgumentError(f"{expected}, without weights: this takes no padding.")
    found = labels if isinstance(labels, np.ndarray) else jnp.asarray(labels)
    if found.ndim != 1 or not jnp.issubdtype(found.dtype, jnp.integer):
        raise ArgumentError(f"{expected}; got dtype {found.dtype} and shape {found.shape}.")
    if isinstance(found, np.ndarray) and found.size:
        low, high = found.min(), found.max()
        if low < 0 or high >= classes:
            raise ArgumentError(
                f"{expected}; got labels from {low} to {high} for N = {classes} outputs. Give the "
                "network as many outputs as a task has classes."
            )
    column = jnp.asarray(found)[:, None]
    known = (column >= 0) & (column < classes)
    row = (column == jnp.arange(classes)[None]).astype(dtype)
    return jnp.where(known, row, jnp.nan)


def _counted(name: str, outputs: Any, targets: Any) -> tuple[Any, Any, Array | None]:
    """Outputs, plain targets and weights, with zeros in place of what does not count."""
    if not isinstance(targets, Weighted):
        known = isinstance(targets, np.ndarray)
        return jnp.asarray(outputs), targets if known else jnp.asarray(targets), None
    outputs, targets, weights = map(jnp.asarray, (outputs, *targets))
    lengths = {x.shape[:1] for x in (outputs, targets)}
    if weights.ndim != 1 or lengths != {weights.shape}:
        raise ArgumentError(
            f"{name}: weights must have shape [K], and outputs and targets the leading axis K; got "
            f"{weights.shape}, {outputs.shape} and {targets.shape}."
        )

    def cleared(x):
        # Before the loss, not after: 0 times the infinite derivative of padding would be NaN.
        counts = (weights != 0).reshape(-1, *(1,) * (x.ndim - 1))
        return jnp.where(counts, x, jnp.zeros((), x.dtype))

    return cleared(outputs), cleared(targets), weights


def _mean(values: Array, weights: Array | None) -> Array:
    """The mean over all entries, by the weights ``[K]`` of the leading axis."""
    if weights is None:
        return jnp.mean(values)
    weights = weights.astype(values.dtype)
    total = jnp.sum(weights)
    of_each = jnp.mean(values.reshape(len(values), -1), axis=1)
    return jnp.sum(weights * of_each) / jnp.where(total == 0, 1, total)


def _rows(name: str, logits: Array, labels: Array | np.ndarray) -> Array:
    """The one-hot rows of labels that fit the logits."""
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ArgumentError(
            f"{name}: logits must have shape [K, N] and labels [K]; got {logits.shape} and "
            f"{labels.shape}. Labels are class indices, not one-hot rows: for rows of "
            "probabilities take the mean of optax.softmax_cross_entropy."
        )
    return one_hot(labels, logits.shape[1], logits.dtype, name=name)
