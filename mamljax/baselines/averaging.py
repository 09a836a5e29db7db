"""Multi-task averaging: one regressor per task, then their mean (Finn et al. 2017, app. C.1)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mamljax import checks
from mamljax.objective import task_loss
from mamljax.types import Array, LossFn, Model, Params, Sampler

PENALTIES = ("none", "l2", "mean")


class Averaged(NamedTuple):
    """The averaged parameters, and each regressor's final query error on its own task ``[R]``."""

    params: Params
    errors: Array


def train_regressors(
    model: Model,
    loss_fn: LossFn,
    sampler: Sampler,
    key: Array,
    *,
    num_regressors: int,
    num_steps: int,
    tx: optax.GradientTransformation,
    penalty: str = "none",
    strength: float | Array = 0.0,
    task_chunk: int = 50,
) -> Averaged:
    """Train a regressor per task, each from its own random weights, and average their parameters.

    Each minimises its support loss plus ``strength`` times a penalty: nothing, the squared norm of
    its parameters (``l2``), or their squared distance to the mean of the regressors trained so far
    (``mean``). The last makes every regressor depend on all before it, so they are trained one
    after another; the others are independent and are trained `task_chunk` at a time.

    Args:
      model, loss_fn: what is fitted.
      sampler: one task with plenty of support points; its query set measures the final error.
      key: of all tasks and initial weights.
      num_regressors: how many tasks ``R``.
      num_steps: full-batch optimizer steps per regressor.
      tx: the optimizer.
      penalty: one of `PENALTIES`.
      strength: the penalty's weight; may be traced, so that strengths can be swept by `jax.vmap`.
      task_chunk: regressors trained at a time where they are independent.
    """
    checks.at_least("num_regressors", num_regressors, 1)
    checks.at_least("num_steps", num_steps, 1)
    checks.one_of("penalty", penalty, PENALTIES)
    loss = task_loss(model, loss_fn)

    def train_one(key, target):
        task_key, init_key = jax.random.split(key)
        task = sampler(None, task_key)
        params = model.init(init_key, task.support.inputs)

        def penalised(params):
            away = optax.tree.sub(params, target)
            return loss(params, task.support, None, 0) + strength * optax.tree.norm(
                away, squared=True
            )

        def step(carry, _):
            params, opt_state = carry
            updates, opt_state = tx.update(jax.grad(penalised)(params), opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), None

        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), None, num_steps)
        return params, loss(params, task.query, None, 0)

    keys = jax.random.split(key, num_regressors)
    shapes = jax.eval_shape(lambda key: model.init(key, sampler(None, key).support.inputs), key)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    if penalty == "mean":

        def after_another(total, indexed_key):
            index, key = indexed_key
            # The first regressor has none before it: the mean of none is taken as zero.
            mean = jax.tree.map(lambda x: x / jnp.maximum(index, 1), total)
            params, error = train_one(key, mean)
            return optax.tree.add(total, params), error

        total, errors = jax.lax.scan(after_another, zeros, (jnp.arange(num_regressors), keys))
        return Averaged(jax.tree.map(lambda x: x / num_regressors, total), errors)
    params, errors = jax.lax.map(
        lambda key: train_one(key, zeros), keys, batch_size=min(task_chunk, num_regressors)
    )
    return Averaged(jax.tree.map(lambda x: jnp.mean(x, axis=0), params), errors)
