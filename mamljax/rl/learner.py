"""MAML for reinforcement learning: the same pieces, with trajectories as data."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from mamljax import checks
from mamljax.inner import inner_update, unroll
from mamljax.inner_optim import InnerRule, with_rule
from mamljax.meta import backprop, meta_step
from mamljax.objective import query_loss, task_loss
from mamljax.partition import all_parameters
from mamljax.rl.losses import likelihood_ratio, mean_return, negative_return, reinforce
from mamljax.rl.objective import credit_for_data
from mamljax.rl.trpo import Backtracked, policy_arguments, trpo
from mamljax.types import Array, Learner, LossFn, Model, Partition, PyTree, Recurrent, StepFn, Task


def maml(
    policy: Model | Recurrent,
    *,
    inner_lr: Any = 0.1,
    num_steps: int = 1,
    inner_loss: LossFn = reinforce,
    outer_loss: LossFn = likelihood_ratio,
    data_credit: float = 0.0,
    first_order: bool = False,
    inner_tx: optax.GradientTransformation | InnerRule | None = None,
    partition: Partition | None = None,
    task_chunk: int | None = None,
    mesh: Mesh | None = None,
) -> Learner:
    """MAML for policies (Finn et al. 2017, algorithm 3).

    Adapts by policy gradient on trajectories; the meta-loss is the surrogate of the adapted
    policy's trajectories. With ``num_steps=0`` one policy is trained on all tasks: pretraining,
    or, on `reveal_task`, the oracle.

    Args:
      policy: from observations to distributions, such as `models.gaussian_policy`,
        `models.categorical_policy` or, with a memory, `models.recurrent_policy`.
      inner_lr: alpha, a number or an optax schedule of the inner step.
      num_steps: inner steps in training.
      inner_loss, outer_loss: from `mamljax.rl.losses`.
      data_credit: above 0, the weight of E-MAML's correction, see `credit_for_data`.
      first_order: drop the second derivatives.
      inner_tx: another inner optimizer, or an `InnerRule` that is meta-learned, such as
        `inner_optim.learned_sgd`; `inner_lr` is then unused.
      partition: which parameters adapt; all by default.
      task_chunk, mesh: see `backprop`.
    """
    checks.is_model("policy", policy)
    policy = Model(policy.init, policy.apply)
    checks.step_size("inner_lr", inner_lr)
    checks.non_negative("data_credit", data_credit)
    partition = all_parameters() if partition is None else partition
    loss, tx = task_loss(policy, inner_loss), optax.sgd(inner_lr) if inner_tx is None else inner_tx
    init, partition, tx = with_rule(tx, policy.init, partition)
    adapt = unroll(inner_update(loss, partition, tx, first_order=first_order), num_steps)
    objective = query_loss(adapt, task_loss(policy, outer_loss))
    if data_credit:
        objective = credit_for_data(objective, adapt, policy.apply, weight=data_credit)
    meta_gradient = backprop(objective, task_chunk=task_chunk, mesh=mesh)
    return Learner(init, adapt, policy.apply, negative_return, objective, meta_gradient)


def trpo_step(
    learner: Learner,
    tx: optax.GradientTransformation | None = None,
    *,
    curvature_tasks: int | None = None,
    curvature_support: int | None = None,
    curvature_query: int | None = None,
    task_chunk: int | None = None,
    mesh: Mesh | None = None,
) -> StepFn:
    """A meta-step by trust region, of a learner from `maml`.

    Args:
      learner: what is trained.
      tx: the outer update, `trpo()` by default.
      curvature_tasks, curvature_support, curvature_query, task_chunk, mesh: see `policy_arguments`.
    """
    arguments = policy_arguments(
        learner,
        curvature_tasks=curvature_tasks,
        curvature_support=curvature_support,
        curvature_query=curvature_query,
        task_chunk=task_chunk,
        mesh=mesh,
    )
    tx = trpo() if tx is None else tx
    return meta_step(learner.meta_gradient, tx, extra_args=arguments, info=training_info)


def ppo_step(learner: Learner, tx: optax.GradientTransformation, *, epochs: int = 5) -> StepFn:
    """A meta-step that goes over the same tasks several times, with any optimizer.

    For a learner whose `outer_loss` is `losses.clipped_ratio`, which removes the incentive to go
    far from the policy that drew the data (ProMP: Rothfuss et al. 2019, section 5).

    Args:
      learner: what is trained.
      tx: such as ``optax.adam(1e-3)``.
      epochs: gradient steps on each batch of tasks.
    """
    checks.at_least("epochs", epochs, 1)
    one_step = meta_step(learner.meta_gradient, tx, info=training_info)

    def step(state, tasks, key):
        after, metrics = one_step(state, tasks, key)

        def again(_, carried):
            return one_step(carried, tasks, key)[0]

        after = jax.lax.fori_loop(1, epochs, again, after)
        return after._replace(step=state.step + 1), metrics

    return step


def training_info(tasks: Task, opt_state: PyTree) -> dict[str, Array]:
    """Return what to watch in training: returns, clipped actions, exploration, `backtrack`."""
    before, after = tasks.support.data.targets, tasks.query.targets
    info = {"return_after": jnp.mean(jax.vmap(mean_return, (None, 0))(None, after))}
    broken = jnp.sum(after.broken)
    if before.rewards.shape[1]:  # there are inner steps
        first = jax.tree.map(lambda x: x[:, 0], before)
        info["return_before"] = jnp.mean(jax.vmap(mean_return, (None, 0))(None, first))
        broken = broken + jnp.sum(before.broken)
    info |= {"broken_episodes": broken, "clipped": jnp.mean(after.clipped)}
    if hasattr(after.behaviour, "log_std"):
        info["log_std"] = jnp.mean(after.behaviour.log_std)
    for found in jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, Backtracked)):
        if isinstance(found, Backtracked):
            info |= {"kl": found.kl, "step_size": found.step_size, "reason": found.reason}
    return info
