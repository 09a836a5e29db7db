"""Named algorithms: each is one composition of the core pieces, with its reference."""

from typing import Any

import optax
from jax.sharding import Mesh

from mamljax import checks
from mamljax.inner import inner_update, unroll
from mamljax.meta import backprop
from mamljax.objective import query_loss, task_loss
from mamljax.partition import all_parameters
from mamljax.types import Learner, LossFn, Model, Partition


def maml(
    model: Model,
    loss_fn: LossFn,
    *,
    inner_lr: Any = 0.01,
    num_steps: int = 1,
    first_order: bool = False,
    inner_tx: optax.GradientTransformation | None = None,
    partition: Partition | None = None,
    remat: bool = False,
    scan_unroll: int = 1,
    task_chunk: int | None = None,
    mesh: Mesh | None = None,
) -> Learner:
    """Model-agnostic meta-learning (Finn, Abbeel, Levine 2017, algorithm 1).

    Args:
      model: the network, from `mamljax.models`.
      loss_fn: ``(outputs, targets) -> scalar``, averaged over the examples.
      inner_lr: alpha, the step size of inner gradient descent: a number or an optax schedule.
      num_steps: inner steps in training.
      first_order: drop the second derivatives, see `fomaml`.
      inner_tx: another inner optimizer than ``optax.sgd(inner_lr)``; `inner_lr` is then unused.
      partition: which parameters adapt; all by default.
      remat, scan_unroll: see `unroll`.
      task_chunk, mesh: see `backprop`.

    >>> import jax, jax.numpy as jnp
    >>> from mamljax import Batch, losses, maml, models
    >>> learner = maml(models.mlp((8, 1)), losses.mean_squared_error, inner_lr=0.1)
    >>> support = Batch(inputs=jnp.ones((5, 1)), targets=jnp.ones((5, 1)))
    >>> meta_params = learner.init(jax.random.key(0), support.inputs)
    >>> adapted = learner.adapt(meta_params, support, jax.random.key(1), num_steps=10)
    >>> bool(adapted.support_losses[-1] < adapted.support_losses[0])
    True
    """
    checks.step_size("inner_lr", inner_lr)
    tx = optax.sgd(inner_lr) if inner_tx is None else inner_tx
    partition = all_parameters() if partition is None else partition
    loss = task_loss(model, loss_fn)
    update = inner_update(loss, partition, tx, first_order=first_order)
    adapt = unroll(update, partition, tx, num_steps, remat=remat, scan_unroll=scan_unroll)
    objective = query_loss(adapt, loss)
    meta_gradient = backprop(objective, task_chunk=task_chunk, mesh=mesh)
    return Learner(model.init, adapt, model.apply, loss_fn, objective, meta_gradient)


def fomaml(model: Model, loss_fn: LossFn, **options: Any) -> Learner:
    """First-order MAML: the meta-gradient is the query gradient at the adapted parameters.

    Finn et al. 2017, section 5.2. Takes the options of `maml`.
    """
    return maml(model, loss_fn, first_order=True, **options)
