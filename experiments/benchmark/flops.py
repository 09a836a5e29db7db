"""The floating-point operations of a function's matrix products, counted in its program."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

from mamljax.models import trilinear


def product_flops(function: Callable, *args: Any) -> int:
    """Multiplications and additions in the products and convolutions of ``function(*args)``.

    Everything else is left out: on the networks here it costs time, but hardly any operations.

    Raises:
      ValueError: for a loop whose length the program does not tell.
    """
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _count(program: Jaxpr) -> int:
    return sum(_cost(equation) for equation in program.eqns)


def _cost(equation: Any) -> int:
    name, parameters = equation.primitive.name, equation.params
    outputs = math.prod(equation.outvars[0].aval.shape) if equation.outvars else 0
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2 * outputs * math.prod(left[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel, (filters, *_) = equation.invars[1].aval.shape, parameters["dimension_numbers"][1]
        return 2 * outputs * math.prod(kernel) // kernel[filters]
    if name == trilinear.NAME:
        operands = (operand.aval for operand in equation.invars)
        return _count(trilinear.program(*operands, **parameters).jaxpr)
    inner = [_count(program) for program in _programs(parameters)]
    if name == "while" and any(inner):
        raise ValueError("a loop of unknown length: its operations cannot be counted.")
    if name == "cond":
        return max(inner)
    times = {"scan": lambda: parameters["length"], "shard_map": lambda: parameters["mesh"].size}
    return sum(inner) * times.get(name, lambda: 1)()


def _programs(parameters: dict[str, Any]) -> Iterator[Jaxpr]:
    for value in parameters.values():
        for item in value if isinstance(value, (tuple, list)) else [value]:
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, Jaxpr):
                yield item
