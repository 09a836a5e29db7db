"""Flax Linen modules as a `Model`."""

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import jax
from flax import errors, linen, traverse_util

from mamljax.checks import ArgumentError
from mamljax.models import modes
from mamljax.models.modes import Mode
from mamljax.models.norm import KEPT
from mamljax.types import Model, PyTree, WithStatistics


def from_linen(module: linen.Module, *, norm: str = "batch", **call_options: Any) -> Model:
    """A model from a Flax Linen module; its ``params`` collection is what is learned.

    The module's call may take ``step`` (the inner step) and the flags of `mamljax.models.modes`,
    which also says what becomes of batch statistics and dropout. A module with other collections
    has them in ``WithState(params, state)``, by collection.

    Args:
      module: an unbound module.
      norm: ``batch``; ``support``, by which a learner predicts with the statistics of its support
        set (those of the library's `Norm` and of Flax's BatchNorm); or ``running`` to read fixed
        running averages.
      call_options: passed to each call; they win over what is offered.

    Raises:
      ArgumentError: for what is no module; while tracing, for a layer that asks for running
        averages without ``norm="running"``, a call that writes to state, or draws without a key.
    """
    if not isinstance(module, linen.Module):
        raise ArgumentError(
            f"from_linen: module must be an instance of flax.linen.Module; got {module!r}. "
            "For flax.nnx use from_nnx, for a function from_function."
        )
    modes.check_norm(norm)

    def options(mode, step):
        return modes.offered(module, mode, step, call_options)

    def variables_of(key, inputs):
        """Parameters, and what is kept of the other collections."""
        params_key, other_key = jax.random.split(key)
        rngs = {"params": params_key, "dropout": other_key}
        mode = Mode(norm == "running", deterministic=True)
        with _governed(mode) as averages:
            variables = dict(module.init(rngs, inputs, **options(mode, 0)))
        modes.refuse_without_averages(norm, averages)
        params = variables.pop("params", {})
        if norm != "running":
            variables = _without(variables, averages)
        return params, variables

    def init(key, inputs):
        return modes.with_state(*variables_of(key, inputs))

    def called(params, inputs, mode, *, key, step, averages_in=None):
        """Outputs, and the averages that the layers have written."""
        params, state = modes.parameters_and_state(params)
        state = modes.filled(state, lambda: variables_of(jax.random.key(0), inputs)[1])
        written = ["batch_stats", KEPT] if mode.keeping else ["batch_stats"]
        with _explained(), _governed(mode) as averages:
            outputs, after = module.apply(
                _joined({"params": params, **state}, averages_in or {}),
                inputs,
                rngs=key,  # every stream, whatever its name, is derived from it
                mutable=[] if mode.running else written,
                **options(mode, step),
            )
        kept = {KEPT: after.pop(KEPT)} if KEPT in after else {}
        before, rest = _flat(state), _flat(_without(dict(after), averages))
        modes.refuse_writes(
            ["/".join(path) for path, x in rest.items() if before.get(path) is not x]
        )
        of_flax = {path: x for path, x in _flat(after).items() if path not in rest}
        return outputs, kept | traverse_util.unflatten_dict(of_flax)

    def apply(params, inputs, *, key=None, step=0):
        averages = None
        if isinstance(params, WithStatistics):
            params, averages = params
        mode = Mode(norm == "running" or averages is not None, deterministic=key is None)
        outputs, _ = called(params, inputs, mode, key=key, step=step, averages_in=averages)
        return outputs

    def condition(params, inputs, step=0):
        mode = Mode(running=False, deterministic=True, keeping=True)
        _, averages = called(params, inputs, mode, key=None, step=step)
        if not averages:
            raise ArgumentError(
                "norm='support' needs a module with batch norms (models.Norm, or Flax's "
                "BatchNorm); this one has none: leave norm out."
            )
        return WithStatistics(params, averages)

    return Model(init, apply, condition if norm == "support" else None)


@contextlib.contextmanager
def _governed(mode: Mode) -> Iterator[set[tuple[str, ...]]]:
    """Enforce a mode in all layers; yields the paths of those with running averages."""
    averages = set()

    def interceptor(next_call, args, kwargs, context):
        module = context.module
        if context.method_name != "__call__":
            return next_call(*args, **kwargs)
        if hasattr(module, "use_running_average"):
            averages.add(module.path)
        call = inspect.signature(type(module).__call__)
        try:
            bound = call.bind(module, *args, **kwargs)
        except TypeError:  # which the call will say in its own words
            return next_call(*args, **kwargs)
        where = "/".join(module.path) or type(module).__name__
        flags = modes.enforced(module, bound, mode, where)
        before = {name: getattr(module, name) for name in flags}
        # Only this bound copy of the module changes, and only while it is called.
        try:
            for name, value in flags.items():
                object.__setattr__(module, name, value)
            return next_call(*bound.args[1:], **bound.kwargs)
        finally:
            for name, value in before.items():
                object.__setattr__(module, name, value)

    with linen.intercept_methods(interceptor):
        yield averages


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turn Flax's errors on state into those of `modes`."""
    try:
        yield
    except errors.InvalidRngError as error:
        if "needs PRNG for" not in str(error):
            raise
        modes.refuse_draws(str(error).split(" (")[0])
    except errors.ModifyScopeVariableError as error:
        modes.refuse_writes([str(error).split(" (")[0]])
    except (errors.ScopeCollectionNotFound, errors.ScopeVariableNotFoundError) as error:
        raise ArgumentError(
            f"params lack a part of the module's state: {str(error).split(' (')[0]} Take "
            "WithState(params, state), as the model's init makes it."
        ) from error


def _joined(variables: PyTree, more: PyTree) -> PyTree:
    return traverse_util.unflatten_dict(_flat(variables) | _flat(more)) if more else variables


def _flat(variables: PyTree) -> dict[tuple[str, ...], Any]:
    return traverse_util.flatten_dict(variables)


def _without(variables: PyTree, owners: set[tuple[str, ...]]) -> PyTree:
    """Collections without what lies right below the `owners`' paths."""
    flat = {path: x for path, x in _flat(variables).items() if path[1:-1] not in owners}
    return traverse_util.unflatten_dict(flat)
