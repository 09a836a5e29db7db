"""Several processes that train together (`jax.distributed`): all compute, the first one writes.

A program of one process never notices: nothing here talks, or starts a backend, unless
`jax.distributed.initialize` has been called.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

T = TypeVar("T")


def several() -> bool:
    """Return whether this is one of several processes."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Return whether this is the process that writes files and speaks."""
    return not several() or jax.process_index() == 0


def here(tree: Any) -> Any:
    """Arrays that lie, all the same, on the devices of several processes: as this one's own."""

    def own(leaf):
        shared = isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
        return np.asarray(leaf) if shared else leaf

    return jax.tree.map(own, tree)


def by_first(function: Callable[[], T]) -> T | None:
    """Call it in the first process, while the others wait; None in those.

    Raises:
      Exception: what it raised; in the other processes a RuntimeError that names it.
    """
    if not several():
        return function()
    found, failure = None, None
    if is_first():
        try:
            found = function()
        except Exception as error:
            failure = error
    if not from_first(failure is None):
        raise failure or RuntimeError("the first process of this run failed: see what it says.")
    return found


def from_first(tree: Any) -> Any:
    """The first process's values, everywhere; shapes and dtypes must agree already."""
    if not several():
        return tree
    from jax.experimental import multihost_utils  # not needed by a single process

    return multihost_utils.broadcast_one_to_all(tree)
