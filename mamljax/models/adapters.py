"""Adapters: Flax Linen, Flax NNX or a plain function as a `Model`.

Batch statistics. A module with batch normalisation runs in *current-batch mode*: statistics are
those of the batch at hand, in training and at test, support and query separately, as in MAML
(transductive over the query batch). Running averages are never read and never kept. In Linen
build `BatchNorm` with ``use_running_average=False`` (or pass ``train=True`` on to your module); in
NNX the adapter sets it.

Stochastic layers. Where a `key` is given they draw from it; without one a module whose call takes
``deterministic`` gets True, and NNX dropout is switched off.
"""

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.types import Model, Params, PyTree

if TYPE_CHECKING:
    from flax import linen, nnx


def from_function(
    apply: Callable[[Params, PyTree], PyTree],
    init: Callable[[jax.Array, PyTree], Params] | None = None,
) -> Model:
    """A model from a plain ``apply(params, inputs)``.

    Args:
      apply: the forward pass; it may also take the keywords ``key`` and ``step``.
      init: ``(key, inputs) -> params``; needed only by whoever asks the learner to initialise.
    """
    keywords = ("key", "step")
    checks.is_function("apply", apply, "(params, inputs) -> outputs", offered=keywords)
    offered = _accepts(apply, keywords)

    def missing(key, inputs):
        raise ArgumentError(
            "this model was made by from_function without init, so it cannot make parameters: "
            "pass init=(key, inputs) -> params, or start from parameters of your own."
        )

    def apply_params(params, inputs, *, key=None, step=0):
        return apply(params, inputs, **offered(key=key, step=step))

    return Model(init or missing, apply_params)


def from_linen(module: "linen.Module", **call_options: Any) -> Model:
    """A model from a Flax Linen module; its ``params`` collection is what is learned.

    The module's call may take ``step`` (the inner step) and ``deterministic``. Collections other
    than ``params`` are made afresh in each call and dropped (current-batch mode, see above).

    Args:
      module: an unbound module.
      call_options: passed to each call, such as ``train=True``.
    """
    from flax import linen
    from flax.core import DenyList

    if not isinstance(module, linen.Module):
        raise ArgumentError(
            f"from_linen: module must be an instance of flax.linen.Module; got {module!r}. "
            "For flax.nnx use from_nnx, for a function from_function."
        )
    offered = _accepts(module.__call__, ("step", "deterministic"), besides=call_options)

    def init(key, inputs):
        params_key, other_key = jax.random.split(key)
        rngs = {"params": params_key, "dropout": other_key}
        options = offered(step=0, deterministic=True) | call_options
        return module.init(rngs, inputs, **options)["params"]

    def apply(params, inputs, *, key=None, step=0):
        outputs, _ = module.apply(
            {"params": params},
            inputs,
            rngs=key,  # every stream, whatever its name, is derived from it
            mutable=DenyList("params"),
            **offered(step=step, deterministic=key is None),
            **call_options,
        )
        return outputs

    return Model(init, apply)


def from_nnx(build: "Callable[[nnx.Rngs], nnx.Module]") -> Model:
    """A model from a function that builds a Flax NNX module; its `nnx.Param` variables are learned.

    Args:
      build: ``(rngs) -> module``, such as ``lambda rngs: nnx.Linear(1, 1, rngs=rngs)``.
    """
    from flax import nnx

    if isinstance(build, nnx.Module):
        raise ArgumentError(
            f"from_nnx: build must be a function of rngs, not a module ({type(build).__name__}): "
            "pass lambda rngs: ..., which builds it."
        )
    checks.is_function("build", build, "(nnx.Rngs) -> nnx.Module")
    module = build(nnx.Rngs(0))
    if not isinstance(module, nnx.Module):
        raise ArgumentError(
            f"from_nnx: build must return a flax.nnx.Module; got {type(module).__name__}."
        )
    graph, template, other = nnx.split(module, nnx.Param, ...)
    offered = _accepts(module.__call__, ("step",))
    # A module may draw from streams of its own making, beside the one it was built with.
    streams = sorted({x.tag for _, x in nnx.iter_graph(module) if isinstance(x, nnx.RngStream)})

    def init(key, inputs):
        del inputs  # NNX modules know their sizes
        return nnx.to_pure_dict(nnx.split(build(nnx.Rngs(key)), nnx.Param, ...)[1])

    def apply(params, inputs, *, key=None, step=0):
        state = jax.tree.map(lambda x: x, template)
        nnx.replace_by_pure_dict(state, params)
        merged = nnx.merge(graph, state, other, copy=True)
        merged.set_attributes(
            use_running_average=False, deterministic=key is None, raise_if_not_found=False
        )
        if key is not None:
            keys = jax.random.split(key, len(streams))
            nnx.reseed(merged, **dict(zip(streams, keys, strict=True)))
        return merged(inputs, **offered(step=step))

    return Model(init, apply)


def _accepts(function: Callable, names: tuple[str, ...], besides: dict[str, Any] | None = None):
    """A function that keeps, of the keywords it is given, those that `function` can take."""
    parameters = inspect.signature(function).parameters
    kept = {name for name in names if name in parameters and name not in (besides or {})}
    return functools.partial(_keep, kept)


def _keep(kept: set[str], **offered: Any) -> dict[str, Any]:
    return {name: value for name, value in offered.items() if name in kept}
