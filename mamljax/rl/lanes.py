"""`jax.vmap` with the batch on the last axis of every array, where CPUs compute it faster.

XLA computes several neighbours on the last axis of an array at once, as many as a vector of the CPU
has lanes. `jax.vmap` puts the batch in front, and the last axes of a simulator's own arrays are
short: the three coordinates of a point, the four of a rotation. Here a function is traced for one
example, and its equations are computed one by one with the batch behind (`RULES`); those without a
rule go through `jax.vmap`, which comes to the same.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.custom_batching import custom_vmap
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal

from mamljax.types import Array

BACKENDS = ("cpu",)
"""Where `on_lanes` does something: accelerators have not been measured."""

MOST_TERMS = 64
"""Rows of a gather or scatter, and products of a contraction, that are written out one by one."""


@functools.lru_cache(maxsize=16)  # as its programs, which take seconds to trace
def on_lanes(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, computed on lanes wherever `jax.vmap` is applied to it.

    Values are those of `jax.vmap` up to rounding. Nested `jax.vmap` makes one batch of them all.
    Derivatives are those of the function itself, at its usual speed.

    Args:
      function: of pytrees of arrays, by position.
    """
    if jax.default_backend() not in BACKENDS:
        return function
    function = jax.jit(function)  # traced once, whatever the number of nested `jax.vmap`
    whole_batch = custom_vmap(jax.jit(lambda *args: _on_first_axis(function, args)))

    @whole_batch.def_vmap
    def merge(size, mapped, *args):
        args = _all_mapped(size, mapped, args)
        inner = jax.tree.leaves(args)[0].shape[1]
        flat = jax.tree.map(lambda x: x.reshape(size * inner, *x.shape[2:]), args)
        found = jax.tree.map(lambda x: x.reshape(size, inner, *x.shape[1:]), whole_batch(*flat))
        return found, jax.tree.map(lambda _: True, found)

    one = custom_vmap(function)

    @one.def_vmap
    def many(size, mapped, *args):
        found = whole_batch(*_all_mapped(size, mapped, args))
        return found, jax.tree.map(lambda _: True, found)

    differentiable = jax.custom_jvp(one)  # which `custom_vmap` is not in reverse
    differentiable.defjvp(lambda primals, tangents: jax.jvp(function, primals, tangents))
    return differentiable


def _all_mapped(size: int, mapped: Any, args: Any) -> Any:
    """Arguments of which each leads with the batch."""
    leaves, structure = jax.tree.flatten(args)
    return jax.tree.unflatten(
        structure,
        [
            x if leads else jnp.broadcast_to(x, (size, *jnp.shape(x)))
            for x, leads in zip(leaves, jax.tree.leaves(mapped), strict=True)
        ],
    )


def _on_first_axis(function: Callable, args: Any) -> Any:
    """``jax.vmap(function)(*args)``, computed on lanes."""
    leaves, structure = jax.tree.flatten(args)
    size = leaves[0].shape[0]
    example = [jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in leaves]
    program, shapes = jax.make_jaxpr(function, return_shape=True)(
        *jax.tree.unflatten(structure, example)
    )
    values = [Value(jnp.moveaxis(x, 0, -1), batched=True) for x in leaves]
    found = _run(program, values, size)
    leading = [jnp.moveaxis(_behind(value, size), -1, 0) for value in found]
    return jax.tree.unflatten(jax.tree.structure(shapes), leading)


class Value(NamedTuple):
    """An array of the program: with the batch on an axis behind its own, or the same for all."""

    array: Any
    batched: bool

    @property
    def ndim(self) -> int:
        """The number of its own axes."""
        return np.ndim(self.array) - self.batched

    @property
    def known(self) -> bool:
        """Whether its numbers are there while the program is traced."""
        return not self.batched and not isinstance(self.array, Tracer)


Rule = Callable[[JaxprEqn, list[Value], int], Any]
"""``(equation, its inputs, size of the batch) -> its outputs``, all batched; None passes."""


def _run(program: ClosedJaxpr, inputs: Sequence[Value], size: int) -> list[Value]:
    jaxpr = program.jaxpr
    known = {
        variable: Value(constant, batched=False)
        for variable, constant in zip(jaxpr.constvars, program.consts, strict=True)
    }
    known |= dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom):
        if isinstance(atom, Literal):
            return Value(np.asarray(atom.val, _type(atom)), batched=False)
        return known[atom]

    for equation in jaxpr.eqns:
        found = _compute(equation, [read(atom) for atom in equation.invars], size)
        known |= dict(zip(equation.outvars, found, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _compute(equation: JaxprEqn, inputs: list[Value], size: int) -> list[Value]:
    """The outputs of one equation."""
    name = equation.primitive.name
    if name in CALLS:
        return _run(equation.params[CALLS[name]], inputs, size)
    arrays = [value.array for value in inputs]
    if not any(value.batched for value in inputs):
        # Places in arrays are worked out now, so that rules see them; the rest is left to XLA.
        if _integer(equation) and all(value.known for value in inputs):
            with jax.ensure_compile_time_eval():
                found = _bind(equation, arrays)
        else:
            found = _bind(equation, arrays)
        return [Value(array, batched=False) for array in found]
    found = RULES[name](equation, inputs, size) if name in RULES else None
    if found is None:
        found = _in_front(equation, inputs)
    return [Value(array, batched=True) for array in found]


def _integer(equation: JaxprEqn) -> bool:
    """Whether all that comes out are integers or booleans."""
    types = [_type(variable) for variable in equation.outvars]
    return all(
        jnp.issubdtype(kind, jnp.integer) or jnp.issubdtype(kind, np.bool_) for kind in types
    )


def _type(atom: Any) -> Any:
    return atom.aval.dtype


def _bind(equation: JaxprEqn, arrays: Sequence[Any], **changed: Any) -> Sequence[Any]:
    """The equation's operation on other arrays."""
    primitive = equation.primitive
    found = primitive.bind(*arrays, **primitive.get_bind_params(equation.params | changed))
    return found if primitive.multiple_results else [found]


def _in_front(equation: JaxprEqn, inputs: list[Value]) -> list[Array]:
    """What has no rule, by `jax.vmap`."""
    arrays = [jnp.moveaxis(v.array, -1, 0) if v.batched else v.array for v in inputs]
    axes = [0 if value.batched else None for value in inputs]
    found = jax.vmap(lambda *args: tuple(_bind(equation, args)), axes)(*arrays)
    return [jnp.moveaxis(array, 0, -1) for array in found]


def _behind(value: Value, size: int) -> Array:
    """The array with the batch behind, also if it is the same for all."""
    if value.batched:
        return value.array
    return jnp.broadcast_to(jnp.asarray(value.array)[..., None], (*np.shape(value.array), size))


def _elementwise(equation, inputs, size):
    shape = (*equation.outvars[0].aval.shape, size)

    def spread(value):
        array = jnp.asarray(value.array)
        if value.ndim == 0:  # of `select_n` and `clamp`, beside larger ones
            array = array.reshape((1,) * (len(shape) - 1) + (-1,))
        elif not value.batched:
            array = array[..., None]
        return jnp.broadcast_to(array, shape)

    return _bind(equation, [spread(value) for value in inputs])


def _as_before(equation, inputs, size):
    """What works on axes that it counts from the first."""
    del size
    return _bind(equation, [inputs[0].array])


def _with(**changes: Callable[[Any, int, int], Any]) -> Rule:
    """The rule that gives parameters an entry for the batch.

    Args:
      changes: by parameter, ``(its value, own axes of the output, size) -> new value``.
    """

    def rule(equation, inputs, size):
        if any(value.batched for value in inputs[1:]):
            return None
        own = len(equation.outvars[0].aval.shape)
        new = {name: change(equation.params[name], own, size) for name, change in changes.items()}
        arrays = [_behind(inputs[0], size), *(value.array for value in inputs[1:])]
        return _bind(equation, arrays, **new)

    return rule


def _then(entry: Any) -> Callable[[Any, int, int], Any]:
    return lambda value, own, size: None if value is None else (*value, entry)


def _then_size(value: Any, own: int, size: int) -> Any:
    del own
    return (*value, size)


def _then_axis(value: Any, own: int, size: int) -> Any:
    del size
    return (*value, own)


def _concatenate(equation, inputs, size):
    return _bind(equation, [_behind(value, size) for value in inputs])


def _dynamic_slice(equation, inputs, size):
    operand, *starts = inputs
    if any(start.batched for start in starts):
        return None
    sizes = (*equation.params["slice_sizes"], size)
    return [lax.dynamic_slice(operand.array, [*(start.array for start in starts), 0], sizes)]


def _dynamic_update_slice(equation, inputs, size):
    del equation
    operand, update, *starts = inputs
    if any(start.batched for start in starts):
        return None
    places = [*(start.array for start in starts), 0]
    arrays = _behind(operand, size), _behind(update, size)
    return [lax.dynamic_update_slice(*arrays, places)]


def _gather(equation, inputs, size):
    """Rows of the first axis, at places that are known."""
    operand, places = inputs
    rows, numbers = _rows(operand, places), equation.params["dimension_numbers"]
    window = tuple(range(places.ndim - 1, places.ndim - 2 + operand.ndim))
    first = numbers.collapsed_slice_dims == numbers.start_index_map == (0,)
    if rows is None or not first or numbers.offset_dims != window or numbers.operand_batching_dims:
        return None
    array = _behind(operand, size)
    if equation.params["slice_sizes"] != (1, *array.shape[1:-1]):
        return None
    shape = (*np.shape(places.array)[:-1], *array.shape[1:])
    return [jnp.stack([array[row] for row in rows]).reshape(shape)]


def _scatter_add(equation, inputs, size):
    """Rows added to those of the first axis, at places that are known."""
    operand, places, updates = inputs
    rows, numbers = _rows(operand, places), equation.params["dimension_numbers"]
    window = tuple(range(places.ndim - 1, updates.ndim))
    first = numbers.inserted_window_dims == numbers.scatter_dims_to_operand_dims == (0,)
    if rows is None or not first or numbers.update_window_dims != window:
        return None
    if numbers.operand_batching_dims:
        return None
    sums = list(_behind(operand, size))
    added = _behind(updates, size).reshape(len(rows), *np.shape(sums[0]))
    for row, array in zip(rows, added, strict=True):
        sums[row] = sums[row] + array
    return [jnp.stack(sums)]


def _rows(operand: Value, places: Value) -> list[int] | None:
    """The rows that known places name, if there are few, and all within the array."""
    if not places.known or np.shape(places.array)[-1:] != (1,):
        return None
    rows = np.asarray(places.array).ravel()
    length = np.shape(operand.array)[0]
    if not 0 < len(rows) <= MOST_TERMS or length > MOST_TERMS:
        return None
    return rows.tolist() if rows.min() >= 0 and rows.max() < length else None


def _dot_general(equation, inputs, size):
    """A small contraction as a sum of products."""
    contracted, batch = equation.params["dimension_numbers"]
    arrays = []
    for value, axes, shared in zip(inputs, contracted, batch, strict=True):
        free = [axis for axis in range(value.ndim) if axis not in (*axes, *shared)]
        array = value.array if value.batched else jnp.asarray(value.array)[..., None]
        arrays.append((jnp.transpose(array, (*axes, *shared, *free, value.ndim)), len(free)))
    (left, left_free), (right, right_free) = arrays
    number, common = len(contracted[0]), len(batch[0])
    sizes = left.shape[:number]
    if not 0 < math.prod(sizes) <= MOST_TERMS:
        return None
    left = jnp.expand_dims(left, [number + common + left_free + i for i in range(right_free)])
    right = jnp.expand_dims(right, [number + common + i for i in range(left_free)])
    terms = [left[place] * right[place] for place in itertools.product(*map(range, sizes))]
    found = sum(terms[1:], terms[0]).astype(_type(equation.outvars[0]))
    return [jnp.broadcast_to(found, (*found.shape[:-1], size))]


def _scan(equation, inputs, size):
    given = equation.params
    consts, carry = _parts_of_scan(equation)
    shared, begin, rows = inputs[:consts], inputs[consts:carry], inputs[carry:]
    # What the batch does not reach, such as a counter, stays the same for all, and places in an
    # array are known to be.
    reached = [value.batched for value in inputs]
    while True:
        later = _reached(given["jaxpr"], reached)[: len(begin)]
        both = [one or other for one, other in zip(reached[consts:carry], later, strict=True)]
        if both == reached[consts:carry]:
            break
        reached[consts:carry] = both

    def kept(values):
        return [
            _behind(value, size) if batched else value.array
            for value, batched in zip(values, both, strict=True)
        ]

    def step(carried, row):
        values = [Value(*each) for each in zip([*carried, *row], reached[consts:], strict=True)]
        found = _run(given["jaxpr"], [*shared, *values], size)
        return kept(found[: len(begin)]), [_behind(value, size) for value in found[len(begin) :]]

    options = {name: given[name] for name in ("length", "reverse", "unroll")}
    carried, found = lax.scan(step, kept(begin), [value.array for value in rows], **options)
    carried = [Value(*each) for each in zip(carried, both, strict=True)]
    return [*(_behind(value, size) for value in carried), *found]


def _parts_of_scan(equation: JaxprEqn) -> tuple[int, int]:
    """Where its inputs' constants end, and where its carry does.

    By shapes, since each version of jax notes it in another way: rows have an axis more outside.
    """
    inner = equation.params["jaxpr"].jaxpr

    def whole(outside, inside):
        pairs = zip(outside, inside, strict=True)
        return sum(len(out.aval.shape) == len(into.aval.shape) for out, into in pairs)

    carry = whole(equation.invars, inner.invars)
    return carry - whole(equation.outvars, inner.outvars), carry


def _reached(program: ClosedJaxpr, inputs: Sequence[bool]) -> list[bool]:
    """Which outputs of a program depend on the inputs that are marked."""
    marked = {v for v, batched in zip(program.jaxpr.invars, inputs, strict=True) if batched}
    for equation in program.jaxpr.eqns:
        if any(not isinstance(atom, Literal) and atom in marked for atom in equation.invars):
            marked.update(equation.outvars)
    return [not isinstance(v, Literal) and v in marked for v in program.jaxpr.outvars]


CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}
"""Operations that are programs, by name: the parameter that holds the program."""

ELEMENTWISE = (
    "abs", "add", "add_any", "and", "atan2", "ceil", "clamp", "convert_element_type", "copy", "cos",
    "div", "eq", "erf", "erf_inv", "exp", "exp2", "expm1", "floor", "ge", "gt", "integer_pow",
    "is_finite", "le", "log", "log1p", "logistic", "lt", "max", "min", "mul", "ne", "neg", "not",
    "or", "pow", "rem", "round", "rsqrt", "select_n", "sign", "sin", "sqrt", "square", "sub", "tan",
    "tanh", "xor",
)  # fmt: skip
AS_BEFORE = (
    "argmax", "argmin", "cummax", "cummin", "cumprod", "cumsum", "reduce_and", "reduce_max",
    "reduce_min", "reduce_or", "reduce_prod", "reduce_sum", "rev", "split", "squeeze",
)  # fmt: skip

RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(AS_BEFORE, _as_before),
    "broadcast_in_dim": _with(shape=_then_size, broadcast_dimensions=_then_axis),
    "reshape": _with(new_sizes=_then_size),
    "transpose": _with(permutation=_then_axis),
    "slice": _with(start_indices=_then(0), limit_indices=_then_size, strides=_then(1)),
    "pad": _with(padding_config=_then((0, 0, 0))),
    "tile": _with(reps=_then(1)),
    "concatenate": _concatenate,
    "stack": _concatenate,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "gather": _gather,
    "scatter-add": _scatter_add,
    "dot_general": _dot_general,
    "scan": _scan,
}
"""By the name of the operation; others go through `jax.vmap`."""
