"""Checks of arguments at the public door. Each error names the argument, what came and the fix."""

import difflib
import importlib.util
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

ARRAYS = (jax.Array, np.ndarray, jax.ShapeDtypeStruct)
SCALARS = (numbers.Number, np.generic)


class ArgumentError(ValueError, TypeError):
    """An argument that is not what was expected, by its value or by its type.

    Its message names the argument, what came, what was expected and how to mend it. Whoever
    catches a ValueError or a TypeError catches it too.
    """


def require(module: str, what: str, package: str = "") -> None:
    """Refuse to go on without a package that not every installation has.

    Args:
      module: that the package brings.
      what: needs it.
      package: its name where that is another one.

    Raises:
      ModuleNotFoundError: which says how to install it.
    """
    if importlib.util.find_spec(module) is None:
        package = package or module
        raise ModuleNotFoundError(
            f"{what} needs {package}, which is not installed: pip install {package}", name=module
        )


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


def fraction(name: str, value: Any) -> None:
    """Refuse a number that does not lie from 0 to 1 (traced ones pass)."""
    _number(name, value, lambda x: 0 <= x <= 1, "a number from 0 to 1")


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


def is_hashable(name: str, value: Any) -> None:
    """Refuse a function that has no hash, by which what is compiled of it is kept."""
    try:
        hash(value)
    except TypeError as error:
        raise ArgumentError(
            f"{name} must have a hash, by which its compiled program is kept; got one of "
            f"{type(value).__name__} ({error}). Give a plain function, or a class that does not "
            "define __eq__: of a dataclass, @dataclass(eq=False)."
        ) from error


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
    """The length of the leading axis that all arrays of `tree` share; a ValueError otherwise.

    A tree is of tuples and dicts. A list is refused: it may as well be rows that nobody stacked.
    """
    paths = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: isinstance(x, list))
    if not paths:
        raise ArgumentError(f"{name} holds no arrays.")
    lengths = {}
    for path, leaf in paths:
        where = jax.tree_util.keystr(path, simple=True, separator=".")
        is_numeric(f"{where} in {name}" if where else name, leaf)
        lengths[where] = jnp.shape(leaf)[:1]
    if len(set(lengths.values())) > 1 or () in lengths.values():
        shapes = ", ".join(f"{path}: {shape}" for path, shape in lengths.items())
        raise ArgumentError(
            f"all arrays in {name} must share their leading axis; got leading axes {shapes}."
        )
    return next(iter(lengths.values()))[0]


def is_numeric(name: str, leaf: Any) -> None:
    """Refuse what is no array of numbers."""
    if isinstance(leaf, list):
        raise ArgumentError(
            f"{name} must be an array; got a list of {len(leaf)}. Stack what has one shape "
            "(numpy.stack); pad what has not, and give targets weights (mamljax.Weighted). Several "
            "arrays beside each other go into a tuple or a dict."
        )
    kind = getattr(getattr(leaf, "dtype", None), "kind", None)  # jax's own types have none
    if kind in ("O", "S", "U") or not isinstance(leaf, (*ARRAYS, *SCALARS)):
        found = f"an array of {leaf.dtype}" if kind else type(leaf).__name__
        raise ArgumentError(
            f"{name} must be an array of numbers; got {found}. Pad rows of different lengths, with "
            "weights for the targets (mamljax.Weighted)."
        )


def drawn(name: str, function: Callable[[jax.Array], Any], key: Any, advice: str) -> list[Any]:
    """The shapes of the arrays that a function draws from a key, traced and not computed.

    Functions among its leaves are left out: who knows what they will draw.

    Raises:
      ArgumentError: if it draws arrays, and none depends on the key. NumPy's numbers are like that:
        they are drawn once, when a program is traced, and are constants of it.
    """

    def arrays(key):
        return [leaf for leaf in jax.tree.leaves(function(key)) if not callable(leaf)]

    traced, shapes = jax.make_jaxpr(arrays, return_shape=True)(key)
    reached = set(map(id, traced.jaxpr.invars))
    for equation in traced.jaxpr.eqns:
        if any(id(variable) in reached for variable in equation.invars):
            reached.update(map(id, equation.outvars))
    if shapes and not any(id(variable) in reached for variable in traced.jaxpr.outvars):
        raise ArgumentError(
            f"{name} must draw from its key; what it returns does not depend on it, and would "
            "always be the same. Draw with jax.random: numbers of NumPy or Python are drawn once, "
            f"when the program is compiled. {advice}"
        )
    return shapes


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
