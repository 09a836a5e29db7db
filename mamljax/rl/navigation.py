"""Two-dimensional navigation: a point must move to a goal that it is not told."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mamljax import checks
from mamljax.rl.env import Env, EnvState
from mamljax.types import Array

REWARDS = ("distance", "squared_distance")


class Goal(NamedTuple):
    """The task: where to go, ``[2]``."""

    position: Array


def navigation(*, reward: str = "distance", reach: float = 0.5) -> Env:
    """The point of Finn et al. 2017, section 5.3.

    It starts at the origin, sees its position, and moves by a tenth of its action, each entry of
    which is clipped to [-1, 1]: steps are up to 0.1 long on each axis, and the policy's actions are
    scaled to that range, as in the authors' code (rllab's normalised environments). An episode ends
    where both axes are within 0.01 of the goal.

    Args:
      reward: ``distance``, minus the distance to the goal after the step, as in the authors' code,
        which the published returns come from; ``squared_distance`` as in the paper's text.
      reach: goals are uniform in ``[-reach, reach]`` on both axes.
    """
    checks.one_of("reward", reward, REWARDS)
    checks.non_negative("reach", reach)

    def sample_task(key):
        return Goal(jax.random.uniform(key, (2,), minval=-reach, maxval=reach))

    def reset(task, key):
        del task, key
        position = jnp.zeros(2)
        return EnvState((), position, jnp.zeros(()), jnp.array(False))

    def step(task, state, action):
        position = state.observation + 0.1 * jnp.clip(action, -1.0, 1.0)
        offset = position - task.position
        squared = jnp.sum(jnp.square(offset))
        earned = -jnp.sqrt(squared) if reward == "distance" else -squared
        return EnvState((), position, earned, jnp.all(jnp.abs(offset) < 0.01))

    return Env(sample_task, reset, step, observation_size=2, action_size=2)
