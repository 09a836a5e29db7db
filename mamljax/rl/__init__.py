"""Meta-reinforcement learning: environments, rollouts, policy gradients, trust regions.

An `Env` is a family of tasks. `on_policy` makes a sampler of it, for `evaluate`; `recorded` makes
that a sampler of training tasks, for `fit` with `trpo_step` of the learner from `maml`.
"""

from mamljax.rl import losses
from mamljax.rl.brax_env import brax_environment, from_brax
from mamljax.rl.env import Env, EnvState, reveal_task
from mamljax.rl.film import write_film
from mamljax.rl.gymnax_env import from_gymnax
from mamljax.rl.learner import maml, ppo_step, trpo_step
from mamljax.rl.navigation import navigation
from mamljax.rl.objective import credit_for_data
from mamljax.rl.robots import LOCOMOTION, locomotion, robot
from mamljax.rl.rollout import Trajectories, episode, rollout
from mamljax.rl.sampler import on_policy, recorded
from mamljax.rl.trials import returns_by_episode, rl2, trials
from mamljax.rl.trpo import backtrack, natural_gradient, policy_arguments, trpo, trust_region
from mamljax.rl.viewer import write_rollouts

__all__ = [
    "LOCOMOTION",
    "Env",
    "EnvState",
    "Trajectories",
    "backtrack",
    "brax_environment",
    "credit_for_data",
    "episode",
    "from_brax",
    "from_gymnax",
    "locomotion",
    "losses",
    "maml",
    "natural_gradient",
    "navigation",
    "on_policy",
    "policy_arguments",
    "ppo_step",
    "recorded",
    "returns_by_episode",
    "reveal_task",
    "rl2",
    "robot",
    "rollout",
    "trials",
    "trpo",
    "trpo_step",
    "trust_region",
    "write_film",
    "write_rollouts",
]
