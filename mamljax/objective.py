"""Objectives of meta-learning: the query loss of adapted parameters, one task at a time."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.types import AdaptFn, Array, Batch, LossFn, Model, ObjectiveFn, TaskLossFn


def task_loss(model: Model, loss_fn: LossFn) -> TaskLossFn:
    """Compose a model and a loss of ``(outputs, targets)`` into the loss of parameters on a batch.

    Raises:
      ArgumentError: for a model that is none, such as a raw Flax module; while tracing, if the
        loss is not a floating-point scalar.
    """
    checks.is_model("model", model)
    checks.is_function("loss_fn", loss_fn, "(outputs, targets) -> scalar")

    def loss(params, batch, key, step):
        outputs = model.apply(params, batch.inputs, key=key, step=step)
        return checks.scalar("loss_fn", loss_fn(outputs, batch.targets))

    return loss


def query_loss(adapt: AdaptFn, loss_fn: TaskLossFn) -> ObjectiveFn:
    """The query loss after the last inner step (MAML, equation 2)."""

    def objective(meta_params, task, key):
        support_key, query_key = jax.random.split(key)
        adapted = adapt(meta_params, task.support, support_key)
        return loss_fn(adapted.params, task.query, query_key, adapted.support_losses.shape[0])

    return objective


def distance_moved(adapt: AdaptFn) -> ObjectiveFn:
    """Half the squared distance that adaptation moves the parameters.

    Its gradient, with the adapted parameters held constant, is Reptile's: the meta-parameters minus
    the adapted ones (Nichol et al. 2018, *On first-order meta-learning algorithms*, equation 1).
    No split is needed: where the support set is a `Batch`, adaptation sees the query set too.
    """

    def objective(meta_params, task, key):
        data = task.support
        if isinstance(data, Batch):
            data = jax.tree.map(lambda *both: jnp.concatenate(both), data, task.query)
        adapted = jax.lax.stop_gradient(adapt(meta_params, data, key).params)
        moved = jax.tree.map(lambda a, b: jnp.sum(jnp.square(a - b)), meta_params, adapted)
        return 0.5 * jnp.sum(jnp.stack(jax.tree.leaves(moved)))

    return objective


def annealed_weights(num_steps: int, progress: Any) -> Array:
    """Weights for `multi_step_loss` that move to the last step while training goes on.

    As the authors of MAML++ do: from equal weights the others fall linearly, but not below 0.03 of
    that, until from ``progress = 1`` only the last step counts.

    Args:
      num_steps: inner steps ``S``.
      progress: of the annealing, 0 at its start; may be traced.

    Returns:
      ``[S]``, adding up to 1.
    """
    checks.at_least("num_steps", num_steps, 1)
    others = jnp.maximum(1.0 - progress, 0.03) / num_steps
    others = jnp.where(progress < 1.0, others, 0.0)
    return jnp.full(num_steps, others).at[-1].set(1.0 - (num_steps - 1) * others)


def multi_step_loss(
    adapt: AdaptFn, loss_fn: TaskLossFn, weights: Any, *, name: str = "weights"
) -> ObjectiveFn:
    """A weighted sum of the query losses after each inner step.

    Antoniou et al. 2019, *How to train your MAML*, equation 4.

    Args:
      adapt: adaptation in ``S`` inner steps.
      loss_fn: the loss of parameters on a batch.
      weights: ``[S]``, one weight per inner step; all on the last step gives `query_loss`.
      name: what errors call them.

    Raises:
      ArgumentError: unless `weights` is a vector with one entry per inner step.
    """
    if np.ndim(weights) != 1:
        raise ArgumentError(
            f"{name} must have shape [S], one weight per inner step; got {np.shape(weights)}."
        )

    def objective(meta_params, task, key):
        support_key, query_key = jax.random.split(key)

        def observe(params, step):
            return loss_fn(params, task.query, query_key, step)

        losses = adapt(meta_params, task.support, support_key, observe=observe).observed[1:]
        if losses.shape != np.shape(weights):
            raise ArgumentError(
                f"{name} must have one entry per inner step: {losses.shape[0]} steps, but {name} "
                f"of shape {np.shape(weights)}."
            )
        return jnp.dot(jnp.asarray(weights, losses.dtype), losses)

    return objective
