"""Flax NNX modules as a `Model`."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx, traverse_util

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.models import modes
from mamljax.models.modes import Mode
from mamljax.types import Model, PyTree


def from_nnx(
    build: Callable[[nnx.Rngs], nnx.Module], *, norm: str = "batch", **call_options: Any
) -> Model:
    """A model from a function that builds a Flax NNX module; its `nnx.Param` variables are learned.

    The module's call may take ``step`` (the inner step) and the flags of `mamljax.models.modes`,
    which also says what becomes of batch statistics and dropout. A module with other variables has
    them in ``WithState(params, state)``.

    Args:
      build: ``(rngs) -> module``, such as ``lambda rngs: nnx.Linear(1, 1, rngs=rngs)``.
      norm: ``batch``, or ``running`` to read fixed running averages.
      call_options: passed to each call; they win over what is offered.

    Raises:
      ArgumentError: for what builds no module; while tracing, for a layer that asks for running
        averages without ``norm="running"``, or a call that writes to state.
    """
    if isinstance(build, nnx.Module):
        raise ArgumentError(
            f"from_nnx: build must be a function of rngs, not a module ({type(build).__name__}): "
            "pass lambda rngs: ..., which builds it."
        )
    checks.is_function("build", build, "(nnx.Rngs) -> nnx.Module")
    modes.check_norm(norm)
    if norm == "support":
        raise ArgumentError(
            "norm='support' is for Linen modules (from_linen), not for NNX yet; for predictions "
            "that do not depend on each other take a layer norm."
        )
    module = build(nnx.Rngs(0))
    if not isinstance(module, nnx.Module):
        raise ArgumentError(
            f"from_nnx: build must return a flax.nnx.Module; got {type(module).__name__}."
        )
    averages = {path for path, x in nnx.iter_graph(module) if _is_layer(x, "use_running_average")}
    modes.refuse_without_averages(norm, averages)
    dropped = averages if norm == "batch" else set()
    graph, template, streams_state, other = nnx.split(module, nnx.Param, nnx.RngState, ...)
    # A module may draw from streams of its own making, beside the one it was built with.
    streams = sorted({x.tag for _, x in nnx.iter_graph(module) if isinstance(x, nnx.RngStream)})

    def init(key, inputs):
        del inputs  # NNX modules know their sizes
        _, params, _, other = nnx.split(build(nnx.Rngs(key)), nnx.Param, nnx.RngState, ...)
        return modes.with_state(nnx.to_pure_dict(params), _kept(other, dropped))

    def apply(params, inputs, *, key=None, step=0):
        params, state = modes.parameters_and_state(params)
        state = modes.filled(state, lambda: _kept(other, dropped))
        merged = nnx.merge(
            graph, _replaced(template, params), streams_state, _replaced(other, state), copy=True
        )
        mode = Mode(norm == "running", deterministic=key is None)
        for path, node in list(nnx.iter_graph(merged)):
            if any(_is_layer(node, flag) for flag in modes.GOVERNED):
                _govern(node, mode, "/".join(map(str, path)))
        if key is not None:
            keys = jax.random.split(key, len(streams))
            nnx.reseed(merged, **dict(zip(streams, keys, strict=True)))
        before = _variables(merged)
        outputs = merged(inputs, **modes.offered(module, mode, step, call_options))
        modes.refuse_writes(
            [
                "/".join(map(str, path))
                for path, x in _variables(merged).items()
                if before.get(path) is not x and path[:-1] not in averages
            ]
        )
        return outputs

    return Model(init, apply)


def _is_layer(node: Any, flag: str) -> bool:
    return isinstance(node, nnx.Module) and hasattr(node, flag)


def _govern(layer: nnx.Module, mode: Mode, where: str) -> None:
    """Enforce a mode in every call of one layer, a copy of the user's."""
    object.__setattr__(layer, "__class__", _governed(type(layer), mode, where))


@functools.cache
def _governed(layer: type, mode: Mode, where: str) -> type:
    signature = inspect.signature(layer.__call__)

    def call(self, *args, **kwargs):
        bound = signature.bind(self, *args, **kwargs)
        for flag, value in modes.enforced(self, bound, mode, where).items():
            if flag in signature.parameters:  # where the call wins over the attribute
                bound.arguments[flag] = value
            else:
                setattr(self, flag, value)
        return layer.__call__(*bound.args, **bound.kwargs)

    return type(layer.__name__, (layer,), {"__call__": call})


def _kept(other: nnx.State, dropped: set[tuple]) -> PyTree:
    """Variables but the averages of the `dropped` layers."""
    flat = traverse_util.flatten_dict(nnx.to_pure_dict(other))
    return traverse_util.unflatten_dict({p: x for p, x in flat.items() if p[:-1] not in dropped})


def _replaced(state: nnx.State, values: PyTree) -> nnx.State:
    """A copy of the state with these values, which may be a part of it."""
    state = jax.tree.map(lambda x: x, state)
    nnx.replace_by_pure_dict(state, values)
    return state


def _variables(module: nnx.Module) -> dict[tuple, Any]:
    """What is neither parameter nor random stream, by path."""
    _, _, _, other = nnx.split(module, nnx.Param, nnx.RngState, ...)
    return traverse_util.flatten_dict(nnx.to_pure_dict(other))
