"""Checks of arguments at the public door. Each error names the argument, what came and the fix."""

import difflib
import math
import numbers
import operator
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def at_least(name: str, value: Any, minimum: int) -> int:
    """Return `value` if it is an integer of at least `minimum`, else raise a ValueError."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < minimum:
        raise ValueError(f"{name} must be an integer of at least {minimum}; got {value!r}.")
    return number


def step_size(name: str, value: Any) -> None:
    """Refuse a step size that is negative or not finite (schedules and traced numbers pass)."""
    if not callable(value):
        _number(name, value, lambda x: x >= 0, "a finite number >= 0")


def positive(name: str, value: Any) -> None:
    """Refuse a number that is not finite and greater than 0 (traced ones pass)."""
    _number(name, value, lambda x: x > 0, "a finite number > 0")


def _number(name: str, value: Any, good: Callable[[float], bool], expected: str) -> None:
    if isinstance(value, Tracer) and value.shape == ():
        return
    scalar = isinstance(value, (jax.Array, np.ndarray)) and value.shape == ()
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (real or scalar) or not (math.isfinite(value) and good(float(value))):
        raise ValueError(f"{name} must be {expected}; got {value!r}.")


def is_function(name: str, value: Any, signature: str) -> None:
    """Refuse what cannot be called, naming the expected signature."""
    if not isinstance(value, Callable):
        raise TypeError(f"{name} must be a function {signature}; got {type(value).__name__}.")


def scalar(name: str, value: Any) -> jax.Array:
    """Return a loss or metric as an array if it is a floating-point scalar, else a ValueError."""
    value = jnp.asarray(value)
    if value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(
            f"{name} must return a floating-point scalar; got shape {value.shape} and dtype "
            f"{value.dtype}. Average it over the examples."
        )
    return value


def leading_axis(name: str, tree: Any) -> int:
    """The length of the leading axis that all leaves of `tree` share; a ValueError otherwise."""
    paths = jax.tree_util.tree_leaves_with_path(tree)
    if not paths:
        raise ValueError(f"{name} holds no arrays.")
    lengths = {
        jax.tree_util.keystr(path, simple=True, separator="."): jnp.shape(leaf)[:1]
        for path, leaf in paths
    }
    if len(set(lengths.values())) > 1 or () in lengths.values():
        shapes = ", ".join(f"{path}: {shape}" for path, shape in lengths.items())
        raise ValueError(
            f"all arrays in {name} must share their leading axis; got leading axes {shapes}."
        )
    return next(iter(lengths.values()))[0]


def one_of(name: str, value: Any, allowed: Collection[str]) -> None:
    """Refuse a value that is not among the `allowed` names, with the nearest one as a hint."""
    if not isinstance(value, str) or value not in allowed:
        near = difflib.get_close_matches(str(value), allowed, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name} must be one of {sorted(allowed)}; got {value!r}.{hint}")


def interval(name: str, bounds: Any) -> None:
    """Refuse anything but a pair of finite numbers ``low <= high``."""
    pair = tuple(bounds) if isinstance(bounds, (tuple, list)) else ()
    finite = all(isinstance(x, numbers.Real) and math.isfinite(x) for x in pair)
    if len(pair) != 2 or not finite or pair[0] > pair[1]:
        raise ValueError(f"{name} must be (low, high), finite and low <= high; got {bounds!r}.")
