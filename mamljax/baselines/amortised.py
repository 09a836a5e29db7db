"""Methods that adapt by reading the support set once, without a gradient."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mamljax.checks import ArgumentError
from mamljax.inner import without_statistics
from mamljax.meta import backprop
from mamljax.objective import query_loss, task_loss
from mamljax.types import (
    Adapted,
    Array,
    Batch,
    Learner,
    LossFn,
    Model,
    Params,
    PyTree,
    exportable,
)


@exportable
class Encoded(NamedTuple):
    """The adapted parameters of an `amortised` method: its weights, and what it read."""

    meta_params: Params
    memory: PyTree


def amortised(
    model: Model,
    encode: Callable[[Params, Batch, Array | None], PyTree],
    loss_fn: LossFn,
    *,
    task_chunk: int | None = None,
    mesh: Mesh | None = None,
) -> Learner:
    """A learner that adapts in one pass: encode the support set, then answer from the encoding.

    It takes no inner steps, so its scores in `evaluate` have shape ``[1]``.

    Args:
      model: ``init`` makes the meta-parameters; ``apply`` takes them as `Encoded`, with the memory,
        and as `condition` leaves them where the model has it.
      encode: ``(meta_params, support, key) -> memory``, a pytree of floating-point arrays.
      loss_fn: ``(outputs, targets) -> scalar``, averaged over the queries.
      task_chunk, mesh: see `backprop`.

    Raises:
      ArgumentError: when adapting, if asked for inner steps.
      ArgumentError: when adapting, if the support set is not one `Batch`.
    """

    def adapt(meta_params, support, key, *, num_steps=None, observe=None):
        if num_steps not in (None, 0):
            raise ArgumentError(
                f"num_steps={num_steps!r}: this learner reads its support set once and takes no "
                "inner steps; leave num_steps out, or use 0."
            )
        if not isinstance(support, Batch):
            raise ArgumentError(
                "this learner reads one support set, a mamljax.Batch(inputs, targets); got "
                f"{type(support).__name__}."
            )
        meta_params = without_statistics(meta_params)
        memory = encode(meta_params, support, key)
        if model.condition is not None:
            meta_params = model.condition(meta_params, support.inputs, 0)
        params = Encoded(meta_params, memory)
        observed = observe and jax.tree.map(
            lambda x: jnp.asarray(x)[None], observe(params, jnp.zeros((), jnp.int32))
        )
        return Adapted(params, jnp.zeros((0,)), observed)

    loss = task_loss(model, loss_fn)
    objective = query_loss(adapt, loss)
    meta_gradient = backprop(objective, task_chunk=task_chunk, mesh=mesh)
    return Learner(model.init, adapt, model.apply, loss_fn, objective, meta_gradient)


def refuse_support_statistics(method: str, embedding: Model) -> None:
    """Refuse an embedding with ``norm="support"`` for a method that embeds sets otherwise."""
    if embedding.condition is not None:
        raise ArgumentError(
            f"{method} does not take a network with norm='support': it does not embed a support "
            "set and then queries. Take norm='layer' where predictions must not depend on each "
            "other."
        )
