"""Multi-task averaging: one regressor per task, then their mean (Finn et al. 2017, app. C.1)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mamljax import checks
from mamljax.objective import task_loss
from mamljax.types import Array, LossFn, Model, Params, Sampler

PENALTIES = ("none", "l2", "mean")
STARTS = ("own", "common", "previous")


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
    start: str = "own",
    task_chunk: int = 50,
) -> Averaged:
    """Train a regressor per task, each from random weights, and average their parameters.

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
      start: one of `STARTS`: every regressor has random weights of its ``own``, or all have those
        of the first in ``common``, or each goes on from the ``previous`` one's trained weights.
      task_chunk: regressors trained at a time where they are independent.
    """
    checks.at_least("num_regressors", num_regressors, 1)
    checks.at_least("num_steps", num_steps, 1)
    checks.one_of("penalty", penalty, PENALTIES)
    checks.one_of("start", start, STARTS)
    loss = task_loss(model, loss_fn)

    def initial(key):
        task_key, init_key = jax.random.split(key)
        return model.init(init_key, sampler(None, task_key).support.inputs)

    def train_one(key, target, params):
        task = sampler(None, jax.random.split(key)[0])

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
    first = initial(keys[0])
    zeros = optax.tree.zeros_like(first)

    def begin(key, previous):
        return initial(key) if start == "own" else previous

    if penalty == "mean" or start == "previous":

        def after_another(carry, indexed_key):
            (total, previous), (index, key) = carry, indexed_key
            # The first regressor has none before it: the mean of none is taken as zero.
            mean = jax.tree.map(lambda x: x / jnp.maximum(index, 1), total)
            target = mean if penalty == "mean" else zeros
            params, error = train_one(key, target, begin(key, previous))
            following = params if start == "previous" else first
            return (optax.tree.add(total, params), following), error

        indexed_keys = (jnp.arange(num_regressors), keys)
        (total, _), errors = jax.lax.scan(after_another, (zeros, first), indexed_keys)
        return Averaged(jax.tree.map(lambda x: x / num_regressors, total), errors)
    params, errors = jax.lax.map(
        lambda key: train_one(key, zeros, begin(key, first)),
        keys,
        batch_size=min(task_chunk, num_regressors),
    )
    return Averaged(jax.tree.map(lambda x: jnp.mean(x, axis=0), params), errors)
