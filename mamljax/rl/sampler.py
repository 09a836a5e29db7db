"""Tasks from an environment: trajectories of the policy under training are the data."""

import jax
import jax.numpy as jnp

from mamljax import checks
from mamljax.rl.advantages import advantages, discounted_sum, linear_baseline, standardised
from mamljax.rl.env import Env
from mamljax.rl.losses import Experience
from mamljax.rl.rollout import Trajectories, check_policy, rollout, with_memory
from mamljax.tasks.sampling import placed
from mamljax.types import AdaptFn, ApplyFn, Batch, Drawn, PerStep, Recurrent, Sampler, Task


def experience(
    trajectories: Trajectories,
    *,
    discount: float = 0.99,
    gae_lambda: float = 1.0,
    standardise: bool = True,
) -> Batch:
    """Trajectories as a batch, with advantages over the linear baseline fitted to them.

    Args:
      trajectories: of one task.
      discount, gae_lambda: see `advantages`.
      standardise: bring the advantages to mean 0 and standard deviation 1, as the authors do.
    """
    found = trajectories
    returns = discounted_sum(found.rewards, discount)
    values = linear_baseline(found.observations, returns, found.valid)
    gains = advantages(found.rewards, values, found.valid, discount=discount, gae_lambda=gae_lambda)
    targets = Experience(
        found.actions,
        found.rewards,
        standardised(gains, found.valid) if standardise else gains,
        found.valid,
        found.behaviour,
        found.broken,
        found.clipped,
    )
    return Batch(found.observations, targets)


def on_policy(
    env: Env,
    policy: ApplyFn | Recurrent,
    *,
    episodes: int,
    horizon: int,
    discount: float = 0.99,
    gae_lambda: float = 1.0,
    standardise: bool = True,
) -> Sampler:
    """A sampler of tasks whose data are `Drawn`: every use of them rolls out the policy at hand.

    For `evaluate`, and for `recorded`, which makes training tasks of it.

    Args:
      env: the environment.
      policy: ``(params, observations) -> distribution``, a learner's `predict`; see
        `Distribution`. One with a memory is given as it is, a `Recurrent`.
      episodes: per draw, ``E``.
      horizon: steps of an episode, ``H``.
      discount, gae_lambda, standardise: see `experience`.

    Raises:
      ArgumentError: for sizes below 1, and numbers that do not lie from 0 to 1; at the first draw
        for a family whose tasks do not depend on the key, and for what `rollout` refuses.
    """
    checks.at_least("episodes", episodes, 1)
    checks.at_least("horizon", horizon, 1)
    checks.fraction("discount", discount)
    checks.fraction("gae_lambda", gae_lambda)
    options = {"discount": discount, "gae_lambda": gae_lambda, "standardise": standardise}

    def sampler(meta_params, key, *, place=None):
        del meta_params
        checks.drawn(
            "env.sample_task", env.sample_task, key, "A family of a single task returns ()."
        )
        task = placed(env.sample_task, place)(key)

        def draw(params, key):
            seen = (episodes, horizon, env.observation_size)
            seen = jax.ShapeDtypeStruct(seen, jnp.result_type(float))
            whole = with_memory(policy).apply  # of the episodes at once, as they train it
            check_policy(whole, params, seen, env.action_size)
            found = rollout(env, policy, params, task, key, episodes=episodes, horizon=horizon)
            return experience(found, **options)

        return Task(Drawn(draw), Drawn(draw))

    return sampler


def recorded(sampler: Sampler, adapt: AdaptFn) -> Sampler:
    """Adapt to tasks that are `Drawn`, and record what was drawn on the way.

    Lines 4 to 8 of MAML's algorithm 3: the support set holds the trajectories of every inner step,
    the query set those of the adapted policy. Training replays the adaptation on this record.

    Args:
      sampler: from `on_policy`, or any other whose support and query sets are `Drawn`.
      adapt: the learner's.
    """

    def record(meta_params, key, *, place=None):
        task_key, adapt_key, query_key = jax.random.split(key, 3)
        task = placed(sampler, place)(meta_params, task_key)
        adapted = adapt(meta_params, task.support, adapt_key)
        return Task(PerStep(adapted.drawn), task.query.draw(adapted.params, query_key))

    return record
