"""The outer loop: differentiate the mean objective over tasks, then update the meta-parameters.

This is the only module that maps over tasks in training (MAML, algorithm 1, lines 4 and 8).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh

from mamljax import checks
from mamljax.sharding import SHARED, TASK_AXIS, divide, share_tasks, tasks_at_a_time
from mamljax.types import (
    Array,
    Learner,
    MetaGradientFn,
    Metrics,
    ObjectiveFn,
    Params,
    PyTree,
    StepFn,
    Task,
    TrainState,
    WithState,
)


def backprop(
    objective: ObjectiveFn, *, task_chunk: int | None = None, mesh: Mesh | None = None
) -> MetaGradientFn:
    """The exact gradient of the mean objective over tasks, by reverse-mode differentiation.

    Args:
      objective: the meta-loss of one task.
      task_chunk: differentiate this many tasks at a time and add up their gradients, which bounds
        memory. Every number gives the same gradient up to rounding. None takes what is fastest by
        the size of the data and the parameters: on CPU many tasks of small networks, one of large.
      mesh: split the tasks over the ``task`` axis of a device mesh, see `sharding.task_mesh`.

    Raises:
      ArgumentError: if the leaves of the tasks disagree on the number of tasks, or the mesh does
        not divide it.
    """
    if task_chunk is not None:
        checks.at_least("task_chunk", task_chunk, 1)

    def total_loss(meta_params, tasks, keys):
        losses = jax.vmap(objective, in_axes=(None, 0, 0))(meta_params, tasks, keys)
        return jnp.sum(losses), losses

    total_gradient = jax.grad(total_loss, has_aux=True)

    def in_chunks(meta_params, tasks_and_keys):
        tasks, keys = tasks_and_keys
        num_tasks = keys.shape[0]
        one_task = jax.eval_shape(lambda: jax.tree.map(lambda x: x[0], tasks))
        chunk = tasks_at_a_time(task_chunk, one_task, meta_params)
        if chunk >= num_tasks:
            return total_gradient(meta_params, tasks, keys)

        def add_chunk(total, chunk_data):
            grads, losses = total_gradient(meta_params, *chunk_data)
            return optax.tree.add(total, grads), losses

        chunks, rest = divide((tasks, keys), chunk)
        grads, losses = jax.lax.scan(add_chunk, optax.tree.zeros_like(meta_params), chunks)
        losses = losses.reshape(-1)
        if num_tasks % chunk:
            grads, last = add_chunk(grads, rest)
            losses = jnp.concatenate([losses, last])
        return grads, losses

    def on_each_device(meta_params, tasks_and_keys):
        grads, losses = in_chunks(meta_params, tasks_and_keys)
        # Every device is told all losses: those on other machines could not be read.
        share = jax.lax.axis_index(TASK_AXIS)
        everyones = jnp.zeros((jax.lax.axis_size(TASK_AXIS), *losses.shape), losses.dtype)
        # One flat vector makes one all-reduce, several times faster on CPU than one per leaf.
        flat, unravel = ravel_pytree((grads, everyones.at[share].set(losses)))
        grads, losses = unravel(jax.lax.psum(flat, TASK_AXIS))
        return grads, losses.reshape(-1)

    def meta_gradient(meta_params, tasks, key):
        num_tasks = checks.leading_axis("tasks", tasks)
        keys = jax.random.split(key, num_tasks)
        gradient = in_chunks
        if mesh is not None:
            gradient = share_tasks(on_each_device, mesh, num_tasks, SHARED)
        grads, losses = gradient(meta_params, (tasks, keys))
        grads = jax.tree.map(lambda g: g / num_tasks, grads)
        # In half precision the squares of large entries would overflow, and those of small vanish.
        wide = jax.tree.map(lambda g: g.astype(jnp.promote_types(g.dtype, jnp.float32)), grads)
        return grads, Metrics(jnp.mean(losses), losses, optax.tree.norm(wide))

    return meta_gradient


def meta_step(
    meta_gradient: MetaGradientFn,
    tx: optax.GradientTransformation,
    *,
    extra_args: Callable[[Params, Task, Array], dict[str, Any]] | None = None,
    info: Callable[[Task, PyTree], dict[str, Array]] | None = None,
) -> StepFn:
    """One meta-update with any optax transformation (MAML, algorithm 1, line 8).

    Line searches and trust regions get what optax passes them: ``value``, ``grad`` and
    ``value_fn``, the mean objective over the same tasks as a function of the meta-parameters.

    Args:
      meta_gradient: from `backprop`.
      tx: the outer optimizer.
      extra_args: ``(meta_params, tasks, key) -> arguments by name``, passed to `tx` besides.
      info: ``(tasks, opt_state) -> scalars by name`` after the update, worth logging; they become
        ``Metrics.info``.
    """
    tx = optax.with_extra_args_support(tx)

    def step(state, tasks, key):
        def value_fn(meta_params):
            return meta_gradient(meta_params, tasks, key)[1].loss  # XLA drops the unused gradient

        grads, metrics = meta_gradient(state.meta_params, tasks, key)
        updates, opt_state = tx.update(
            grads,
            state.opt_state,
            state.meta_params,
            value=metrics.loss,
            grad=grads,
            value_fn=value_fn,
            **(extra_args(state.meta_params, tasks, key) if extra_args else {}),
        )
        if info:
            metrics = metrics._replace(info=info(tasks, opt_state))
        meta_params = _with_state_of(
            state.meta_params, optax.apply_updates(state.meta_params, updates)
        )
        return TrainState(state.step + 1, meta_params, opt_state), metrics

    return step


def _with_state_of(before: Params, after: Params) -> Params:
    """`after` with the state of `before`, which decay and noise would move without a gradient."""

    def kept(old, new):
        return new._replace(state=old.state) if isinstance(old, WithState) else new

    return jax.tree.map(kept, before, after, is_leaf=lambda x: isinstance(x, WithState))


def annealed_step(
    learner_at: Callable[[Array], Learner], tx: optax.GradientTransformation, **options: Any
) -> StepFn:
    """A meta-update by a learner that changes with the meta-iteration, such as MAML++'s.

    Args:
      learner_at: from the meta-iteration, traced, to the learner. Only its meta-gradient may
        change: parameters, and how they adapt, stay the same.
      tx, options: see `meta_step`.
    """

    def step(state, tasks, key):
        return meta_step(learner_at(state.step).meta_gradient, tx, **options)(state, tasks, key)

    return step


def init_state(meta_params: Params, tx: optax.GradientTransformation) -> TrainState:
    """The state before the first meta-step."""
    return TrainState(jnp.zeros((), jnp.int32), meta_params, tx.init(meta_params))
