"""Modes of modules with state: one rule for Flax Linen and Flax NNX.

    argument or attribute    with a key      without a key
    train, training          True            True
    deterministic            False           True
    use_running_average      by the norm     by the norm

The four are offered to the call of the outermost module, which takes those it names. They are then
enforced: below it no layer draws without a key, and every layer with running averages does as the
norm says, whatever it is told. ``norm="batch"`` takes the statistics of the batch at hand, in
training and at test, support and query separately, as in MAML (transductive over the query batch);
running averages are never read and never kept. ``norm="support"`` (Linen) does the same while a
learner adapts; what it then predicts goes by the statistics of its support set, so that predictions
do not depend on each other. ``norm="running"`` reads fixed averages, such as those of a pretrained
backbone, which are part of what `init` makes.

All other state is as `init` drew it, at every call. A call that would write to it is refused.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.types import Params, PyTree, WithState

AVERAGES = ("batch", "running", "support")
"""The norms that adapters offer."""

GOVERNED = ("use_running_average", "deterministic")
"""Attributes that mark a layer as one to be told what to do."""


class Mode(NamedTuple):
    """What the layers of a module have to do in one call.

    running: read averages that were kept, instead of the statistics of the batch.
    deterministic: draw nothing.
    keeping: make the statistics of this very batch the averages that are kept.
    """

    running: bool
    deterministic: bool
    keeping: bool = False


def offered(module: Any, mode: Mode, step: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Arguments for the outermost call: of those that the adapters know, what it names.

    A flag that the module has as an attribute already is left to `enforced`.

    Args:
      module: the outermost one.
      mode: of this call.
      step: the inner step.
      options: the user's own arguments, which win.
    """
    known = {
        "train": True,
        "training": True,
        "deterministic": mode.deterministic,
        "use_running_average": mode.running,
        "step": step,
    }
    named = inspect.signature(module.__call__).parameters
    governed = {name for name in GOVERNED if getattr(module, name, None) is not None}
    asked = [name for name in known if name in named and name not in governed]
    return {name: known[name] for name in asked} | options


def enforced(
    module: Any, arguments: inspect.BoundArguments, mode: Mode, where: str
) -> dict[str, Any]:
    """Set flags in a layer's bound arguments; returns those to be set as its attributes instead.

    A layer is governed where it has an attribute of the flag's name, as Flax's own have.

    Raises:
      ArgumentError: for one that asks for running averages where the norm is that of the batch.
    """
    attributes = {}
    wanted = {"use_running_average": mode.running, "deterministic": mode.deterministic}
    if mode.keeping and hasattr(module, "use_running_average"):
        attributes["momentum"] = 0.0  # of what was kept before
    for flag, value in wanted.items():
        if not hasattr(module, flag):
            continue
        told = arguments.arguments.get(flag)
        asked = getattr(module, flag) if told is None else told
        if flag == "use_running_average" and asked and not mode.running:
            raise ArgumentError(
                f"{where} reads running averages (use_running_average=True), but norm='batch' "
                "normalises by the batch at hand. To keep and use its averages, as those of a "
                "pretrained backbone, pass norm='running' to the adapter; else build it with "
                "use_running_average=False, or by a flag that the module's call takes as train."
            )
        if flag == "deterministic" and asked and not mode.deterministic:
            continue  # the module's own wish, to draw less
        in_call = told is not None or (
            getattr(module, flag) is None and flag in arguments.signature.parameters
        )
        if in_call:
            arguments.arguments[flag] = value
        else:
            attributes[flag] = value
    return attributes


def check_norm(norm: str) -> None:
    """Refuse a norm that is not among `AVERAGES`."""
    checks.one_of("norm", norm, AVERAGES)


def refuse_without_averages(norm: str, found: Any) -> None:
    """Refuse running averages of a module that has none."""
    if norm == "running" and not found:
        raise ArgumentError(
            "norm='running' needs a module with running averages (an attribute "
            "use_running_average, as Flax's BatchNorm has); this one has none: leave norm out."
        )


def refuse_writes(written: list[str]) -> None:
    """Refuse a call that wrote to state, by its paths."""
    if written:
        raise ArgumentError(
            f"the module's call writes to its state {written}, which a model cannot: it is as init "
            "drew it, at every call. Freeze it in the call (update_stats=False of a spectral "
            "norm); running averages are left to layers with use_running_average, as Flax's "
            "BatchNorm."
        )


def refuse_draws(what: str) -> None:
    """Refuse a call that draws though it has no key."""
    raise ArgumentError(
        f"the module draws random numbers ({what}), but was called without a key, as predictions "
        "are. Let its call take deterministic, which is then True, and draw nothing; or pass a key."
    )


def with_state(params: Params, state: PyTree) -> Params:
    """Parameters beside state, where there is any; what is not floating-point becomes None."""
    if not jax.tree.leaves(state):
        return params
    return WithState(params, jax.tree.map(lambda x: x if _is_floating(x) else None, state))


def parameters_and_state(params: Params) -> tuple[Params, PyTree]:
    """Return both; without gradients for the state."""
    if isinstance(params, WithState):
        return params.params, jax.lax.stop_gradient(params.state)
    return params, {}


def filled(state: PyTree, drawn: Callable[[], PyTree]) -> PyTree:
    """Put what `drawn` returns where a state has None; it is only called if there is any."""

    def is_none(x):
        return x is None

    if not any(map(is_none, jax.tree.leaves(state, is_leaf=is_none))):
        return state
    return jax.tree.map(lambda x, y: y if x is None else x, state, drawn(), is_leaf=is_none)


def _is_floating(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.inexact)
