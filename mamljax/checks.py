"""Checks of arguments at the public door. Each error names the argument, what came and the fix."""

import difflib
import inspect
import math
import numbers
import operator
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


class ArgumentError(ValueError, TypeError):
    """An argument that is not what was expected, by its value or by its type.

    Its message names the argument, what came, what was expected and how to mend it. Whoever
    catches a ValueError or a TypeError catches it too.
    """


def at_least(name: str, value: Any, minimum: int) -> int:
    """Return `value` if it is an integer of at least `minimum`, else raise a ValueError."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < minimum:
        raise ArgumentError(f"{name} must be an integer of at least {minimum}; got {value!r}.")
    return number


def sizes(name: str, value: Any) -> tuple[int, ...]:
    """Return a sequence of integers of at least 1 as a tuple, else raise a ValueError."""
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise ArgumentError(f"{name} must be a sequence of integers of at least 1; got {value!r}.")
    return tuple(at_least(name, size, 1) for size in value)


def step_size(name: str, value: Any) -> None:
    """Refuse what is neither a finite number >= 0 (traced ones pass) nor a schedule of numbers."""
    if not callable(value):
        non_negative(name, value)
        return
    expected = f"{name} must be a finite number >= 0 or a schedule step -> number"
    try:
        found = jax.eval_shape(value, jax.ShapeDtypeStruct((), jnp.int32))
    except TypeError as error:
        raise ArgumentError(
            f"{expected}; got {value!r}, which fails on a traced step. optax makes schedules, such "
            "as optax.linear_schedule."
        ) from error
    if not (isinstance(found, jax.ShapeDtypeStruct) and _is_real_scalar(found)):
        raise ArgumentError(f"{expected}; got {value!r}, which returns {found}.")


def finite(name: str, value: Any) -> None:
    """Refuse what is not a finite number (traced ones pass)."""
    _number(name, value, lambda x: True, "a finite number")


def non_negative(name: str, value: Any) -> None:
    """Refuse a number that is negative or not finite (traced ones pass)."""
    _number(name, value, lambda x: x >= 0, "a finite number >= 0")


def positive(name: str, value: Any) -> None:
    """Refuse a number that is not finite and greater than 0 (traced ones pass)."""
    _number(name, value, lambda x: x > 0, "a finite number > 0")


def _number(name: str, value: Any, good: Callable[[float], bool], expected: str) -> None:
    if isinstance(value, (jax.Array, np.ndarray)):
        real = _is_real_scalar(value)
    else:
        real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if real and isinstance(value, Tracer):
        return
    if not (real and math.isfinite(value) and good(float(value))):
        raise ArgumentError(f"{name} must be {expected}; got {value!r}.")


def _is_real_scalar(value: jax.Array | np.ndarray | jax.ShapeDtypeStruct) -> bool:
    kinds = (jnp.floating, jnp.integer)
    return value.shape == () and any(jnp.issubdtype(value.dtype, kind) for kind in kinds)


def is_function(name: str, value: Any, signature: str, *, offered: Collection[str] = ()) -> None:
    """Refuse what cannot be called as `signature` says: ``(a, b) -> c`` with two arguments.

    Of the keywords that are `offered` it may ask for some.
    """
    if not isinstance(value, Callable):
        raise ArgumentError(f"{name} must be a function {signature}; got {type(value).__name__}.")
    try:
        own = inspect.signature(value)
    except ValueError:  # some of Python's own functions tell none
        return
    asked = {keyword: None for keyword in offered if keyword in own.parameters}
    try:
        own.bind(*signature.partition("->")[0].split(","), **asked)
    except TypeError as error:
        raise ArgumentError(f"{name} must be a function {signature}; got one of {own}.") from error


def is_model(name: str, value: Any) -> None:
    """Refuse what is no `mamljax.Model`: a named tuple of the functions `init` and `apply`."""
    functions = [getattr(value, field, None) for field in ("init", "apply")]
    if not (isinstance(value, tuple) and all(map(callable, functions))):
        kind = f"class {value.__name__}" if isinstance(value, type) else type(value).__name__
        raise ArgumentError(
            f"{name} must be a mamljax.Model; got {kind}. Wrap a Flax Linen module by "
            "models.from_linen(module), a function that builds a Flax NNX module by "
            "models.from_nnx(lambda rngs: ...), and any other function by "
            "models.from_function(apply, init)."
        )


def scalar(name: str, value: Any) -> jax.Array:
    """Return a loss or metric as an array if it is a floating-point scalar, else a ValueError."""
    value = jnp.asarray(value)
    if value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise ArgumentError(
            f"{name} must return a floating-point scalar; got shape {value.shape} and dtype "
            f"{value.dtype}. Average it over the examples."
        )
    return value


def leading_axis(name: str, tree: Any) -> int:
    """The length of the leading axis that all leaves of `tree` share; a ValueError otherwise."""
    paths = jax.tree_util.tree_leaves_with_path(tree)
    if not paths:
        raise ArgumentError(f"{name} holds no arrays.")
    lengths = {
        jax.tree_util.keystr(path, simple=True, separator="."): jnp.shape(leaf)[:1]
        for path, leaf in paths
    }
    if len(set(lengths.values())) > 1 or () in lengths.values():
        shapes = ", ".join(f"{path}: {shape}" for path, shape in lengths.items())
        raise ArgumentError(
            f"all arrays in {name} must share their leading axis; got leading axes {shapes}."
        )
    return next(iter(lengths.values()))[0]


def one_of(name: str, value: Any, allowed: Collection[str]) -> None:
    """Refuse a value that is not among the `allowed` names, with the nearest one as a hint."""
    if not isinstance(value, str) or value not in allowed:
        near = difflib.get_close_matches(str(value), allowed, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ArgumentError(f"{name} must be one of {sorted(allowed)}; got {value!r}.{hint}")


def regular_expression(name: str, value: Any) -> re.Pattern[str]:
    """Return a compiled regular expression, or refuse what is none."""
    if not isinstance(value, str):
        raise ArgumentError(f"{name} must be a regular expression, as a string; got {value!r}.")
    try:
        return re.compile(value)
    except re.error as error:
        raise ArgumentError(f"{name}={value!r} is not a regular expression: {error}.") from error


def interval(name: str, bounds: Any) -> None:
    """Refuse anything but a pair of finite numbers ``low <= high``."""
    pair = tuple(bounds) if isinstance(bounds, (tuple, list)) else ()
    finite = all(isinstance(x, numbers.Real) and math.isfinite(x) for x in pair)
    if len(pair) != 2 or not finite or pair[0] > pair[1]:
        raise ArgumentError(f"{name} must be (low, high), finite and low <= high; got {bounds!r}.")
