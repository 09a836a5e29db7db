"""Random choices of classes and of their examples, without repetition."""

import jax
import jax.numpy as jnp

from mamljax.types import Array


def choose(
    class_key: Array, example_key: Array, counts: Array, most: int, ways: int, number: int
) -> tuple[Array, Array]:
    """Distinct classes, and distinct examples of each, in random order.

    Args:
      class_key, example_key: of the two choices.
      counts: ``[C]``, examples of each class.
      most: the largest of these, as a static number.
      ways: classes to choose ``N``.
      number: examples to choose of each.

    Returns:
      Classes ``[N]``, and the examples' places within them ``[N, number]``.
    """
    num_classes = len(counts)
    classes = _distinct(class_key, jnp.full((), num_classes), num_classes, ways)
    chosen = jax.vmap(lambda key, count: _distinct(key, count, most, number))(
        jax.random.split(example_key, ways), counts[classes]
    )
    return classes, chosen


def _distinct(key: Array, count: Array, most: int, number: int) -> Array:
    """`number` distinct integers below `count` (at most `most`), in random order."""
    scores = jnp.where(jnp.arange(most) < count, jax.random.uniform(key, (most,)), -1.0)
    return jax.lax.top_k(scores, number)[1]
