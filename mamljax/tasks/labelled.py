"""Classification tasks from labelled examples of any kind: features, signals, images as floats."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.tasks.choice import choose
from mamljax.types import Array, Batch, PyTree, Sampler, Task, Weighted


def from_labelled(
    inputs: PyTree,
    labels: Array | np.ndarray,
    *,
    ways: int,
    shots: int | tuple[int, int],
    queries: int,
) -> Sampler:
    """A sampler of balanced tasks: distinct classes, as many examples of each.

    `episodes` does the same for images that are kept as bytes, class by class.

    Args:
      inputs: arrays ``[n, ...]``; tuples and dicts of them are fine.
      labels: ``[n]`` integers or strings, any names of classes.
      ways: classes per task ``N``, labelled 0 to N - 1 in random order.
      shots: support examples per class ``K``; inputs are ``[N * K, ...]``, labels ``[N * K]``. A
        pair is the fewest and the most: each task draws its own number, the same for its classes,
        and has room for the most. Its support targets are then `Weighted`, 0 where it is padded.
      queries: query examples per class ``Q``.

    Raises:
      ArgumentError: if there are fewer classes than ways, or a class has fewer than K + Q examples.
    """
    checks.at_least("ways", ways, 2)
    fewest, most = _shots(shots)
    checks.at_least("queries", queries, 1)
    names, rows = _by_class(labels)
    number = checks.leading_axis("inputs and labels", {"inputs": inputs, "labels": rows})
    counts = np.bincount(rows)
    if len(names) < ways:
        raise ArgumentError(
            f"ways={ways} classes are needed per task, but the {number} labels are of "
            f"{len(names)} classes: lower ways."
        )
    if (least := counts.min()) < most + queries:
        raise ArgumentError(
            f"shots + queries = {most + queries} examples are needed per class, but class "
            f"{names[counts.argmin()]!r} has {least}: lower shots or queries, or leave it out."
        )
    # By class, where its examples are; the rest of a row is never chosen.
    where = np.zeros((len(names), counts.max()), np.int32)
    where[np.arange(counts.max()) < counts[:, None]] = np.argsort(rows, kind="stable")

    def sampler(inputs, where, counts, meta_params, key):
        del meta_params
        class_key, example_key, shot_key = jax.random.split(key, 3)
        classes, chosen = choose(
            class_key, example_key, counts, where.shape[1], ways, most + queries
        )
        chosen = where[classes[:, None], chosen]  # [N, K + Q]

        def batch(part):
            # By NumPy: labels that are known when a program is compiled can be checked by a loss.
            targets = np.repeat(np.arange(ways, dtype=np.int32), part.shape[1])
            return Batch(jax.tree.map(lambda x: x[part.reshape(-1)], inputs), targets)

        support = batch(chosen[:, :most])
        if fewest < most:
            drawn = jax.random.randint(shot_key, (), fewest, most + 1)
            weights = jnp.tile((jnp.arange(most) < drawn).astype(jnp.float32), ways)
            support = _padded(support, weights)
        return Task(support, batch(chosen[:, most:]))

    # The data travel as an argument: as a constant they would be copied into every program.
    data = jax.tree.map(jnp.asarray, inputs)
    return Partial(sampler, data, jnp.asarray(where), jnp.asarray(counts, jnp.int32))


def _shots(shots: Any) -> tuple[int, int]:
    """The fewest and the most shots of a task."""
    if not isinstance(shots, (tuple, list)):
        return (number := checks.at_least("shots", shots, 1)), number
    pair = checks.sizes("shots", shots)
    if len(pair) != 2 or pair[0] > pair[1]:
        raise ArgumentError(f"shots must be a number or (fewest, most); got {shots!r}.")
    return pair[0], pair[1]


def _by_class(labels: Any) -> tuple[list[Any], np.ndarray]:
    """The names of the classes, and the place of each example's class among them, ``[n]``."""
    try:
        found = np.asarray(labels)
    except ValueError:  # rows of different lengths
        found = np.zeros(())
    if found.ndim != 1 or found.dtype.kind not in "iuUS" or not found.size:
        raise ArgumentError(
            "labels must be integers or strings of shape [n], one for each example; got "
            f"{type(labels).__name__} of {found.dtype} and shape {found.shape}."
        )
    names, rows = np.unique(found, return_inverse=True)
    return names.tolist(), rows


def _padded(batch: Batch, weights: Array) -> Batch:
    """The batch with zeros for what has no weight: no model shall see examples that are none."""

    def cleared(x):
        keep = (weights > 0).reshape(-1, *(1,) * (x.ndim - 1))
        return jnp.where(keep, x, jnp.zeros((), x.dtype))

    return Batch(jax.tree.map(cleared, batch.inputs), Weighted(jnp.asarray(batch.targets), weights))
