"""Bilinear functions whose derivatives are written by hand, as primitives of jax.

Three functions of one trilinear form ``<c, output(a, b)>`` are each other's derivatives. Told so,
jax differentiates each in both modes, to any order, and stores nothing but their operands.
`jax.custom_vjp` could say the same for reverse mode, and refuses the other.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Primitive
from jax.interpreters import ad, batching, mlir

from mamljax.types import Array

NAME = "trilinear_form"
"""Of the primitive, in programs."""


class Trilinear(NamedTuple):
    """The three functions of a trilinear form ``<c, output(a, b)>``.

    output: ``(a, b) -> c``.
    of_first: ``(c, b) -> a``, its gradient in the first argument.
    of_second: ``(a, c) -> b``, its gradient in the second.
    """

    output: Callable[[Array, Array], Array]
    of_first: Callable[[Array, Array], Array]
    of_second: Callable[[Array, Array], Array]


ROLES = {"output": "abc", "of_first": "cba", "of_second": "acb"}
"""Of each function the operands and the result."""
COMPUTES = {roles[-1]: name for name, roles in ROLES.items()}

Mapped = tuple[tuple[bool, bool], ...]
"""For each `jax.vmap` around a function, the outermost first: which operands lead with an axis for
it. One does, and so does the result."""


def differentiable(form: Trilinear) -> Callable[[Array, Array], Array]:
    """The output of a form, differentiable in both modes to any order.

    Args:
      form: whose functions are told apart by identity: what is compiled is kept by them.
    """
    return functools.partial(_primitive.bind, form=form, name="output", mapped=())


def _call(first: Array, second: Array, *, form: Trilinear, name: str, mapped: Mapped) -> Array:
    function = getattr(form, name)
    for leads in reversed(mapped):
        function = jax.vmap(function, [0 if each else None for each in leads])
    return function(first, second)


@functools.cache
def _compiled(form: Trilinear, name: str, mapped: Mapped) -> Callable[[Array, Array], Array]:
    return jax.jit(functools.partial(_call, form=form, name=name, mapped=mapped))


def _evaluate(first: Array, second: Array, **options: Any) -> Array:
    return _compiled(**options)(first, second)


def program(first: Any, second: Any, **options: Any) -> ClosedJaxpr:
    """What an equation of `NAME` computes, in primitives of jax's own.

    Args:
      first, second: its operands, or the shapes of these.
      options: its parameters.
    """
    return jax.make_jaxpr(_compiled(**options))(first, second)


def _shape(first: Any, second: Any, **options: Any) -> Any:
    return program(first, second, **options).out_avals[0]


def _batched(
    operands: Sequence[Array], axes: Sequence[int | None], *, mapped: Mapped, **options: Any
) -> tuple[Array, int]:
    leads = tuple(axis is not None for axis in axes)
    in_front = (
        x if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(operands, axes, strict=True)
    )
    return _primitive.bind(*in_front, mapped=(leads, *mapped), **options), 0


def _transposed(
    operand: int, cotangent: Array, other: Array, *, form: Trilinear, name: str, mapped: Mapped
) -> Array:
    """The cotangent of an operand, from that of the result and the other operand."""
    wanted, given = ROLES[name][operand], ROLES[name][1 - operand]
    values = {ROLES[name][-1]: (cotangent, [True] * len(mapped))}
    values[given] = other, [leads[1 - operand] for leads in mapped]
    function = COMPUTES[wanted]
    (first, first_leads), (second, second_leads) = (values[x] for x in ROLES[function][:2])
    leads = tuple(zip(first_leads, second_leads, strict=True))
    found = _primitive.bind(first, second, form=form, name=function, mapped=leads)
    # An operand that all examples of a `vmap` share collects from all of them.
    shared = [axis for axis, each in enumerate(mapped) if not each[operand]]
    return jnp.sum(found, shared) if shared else found


_primitive = Primitive(NAME)
_primitive.def_impl(_evaluate)
_primitive.def_abstract_eval(
    lambda *operands, **options: program(*operands, **options).out_avals[0]
)
mlir.register_lowering(_primitive, mlir.lower_fun(_call, multiple_results=False))
batching.primitive_batchers[_primitive] = _batched
ad.defbilinear(
    _primitive,
    lambda cotangent, first, second, **options: _transposed(0, cotangent, second, **options),
    lambda cotangent, first, second, **options: _transposed(1, cotangent, first, **options),
)
