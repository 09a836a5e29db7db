"""One network trained on all tasks at once: fine-tuned (pretrain), or told the task (oracle)."""

from typing import Any

from jax.sharding import Mesh

from mamljax.algorithms import maml
from mamljax.meta import backprop
from mamljax.objective import query_loss
from mamljax.types import Learner, LossFn, Model, Partition


def pretrain(
    model: Model,
    loss_fn: LossFn,
    *,
    inner_lr: Any,
    num_steps: int = 1,
    partition: Partition | None = None,
    task_chunk: int | None = None,
    mesh: Mesh | None = None,
) -> Learner:
    """Joint training on all tasks, then gradient descent on the support set.

    Finn et al. 2017, section 5.1. Joint training is MAML's objective with no inner step; the
    fine-tuning step size only matters at test, see `tune_inner_lr`.

    Args:
      model, loss_fn: see `maml`.
      inner_lr, num_steps, partition: of fine-tuning.
      task_chunk, mesh: see `backprop`.
    """
    fine_tuned = maml(model, loss_fn, inner_lr=inner_lr, num_steps=num_steps, partition=partition)
    joint = query_loss(maml(model, loss_fn, num_steps=0).adapt, fine_tuned.loss)
    meta_gradient = backprop(joint, task_chunk=task_chunk, mesh=mesh)
    return fine_tuned._replace(objective=joint, meta_gradient=meta_gradient)


def oracle(model: Model, loss_fn: LossFn, *, num_steps: int = 1, **options: Any) -> Learner:
    """Joint training with the task's parameters among the inputs: it knows, and never adapts.

    Use it with a sampler that reveals the task, such as ``sinusoid(..., reveal=True)``.
    """
    return pretrain(model, loss_fn, inner_lr=0.0, num_steps=num_steps, **options)
