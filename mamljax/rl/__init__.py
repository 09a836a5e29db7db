"""Meta-reinforcement learning: environments, rollouts, policy gradients, trust regions.

An `Env` is a family of tasks. `on_policy` makes a sampler of it, for `evaluate`; `recorded` makes
that a sampler of training tasks, for `fit` with `trpo_step` of the learner from `maml`.
"""

from mamljax.rl import losses
from mamljax.rl.brax_env import brax_environment, from_brax
from mamljax.rl.env import Env, EnvState, reveal_task
from mamljax.rl.learner import maml, trpo_step
from mamljax.rl.locomotion import LOCOMOTION, locomotion
from mamljax.rl.navigation import navigation
from mamljax.rl.rollout import Trajectories, rollout
from mamljax.rl.sampler import on_policy, recorded
from mamljax.rl.trpo import backtrack, natural_gradient, policy_arguments, trpo, trust_region
from mamljax.rl.viewer import write_rollouts

__all__ = [
    "LOCOMOTION",
    "Env",
    "EnvState",
    "Trajectories",
    "backtrack",
    "brax_environment",
    "from_brax",
    "locomotion",
    "losses",
    "maml",
    "natural_gradient",
    "navigation",
    "on_policy",
    "policy_arguments",
    "recorded",
    "reveal_task",
    "rollout",
    "trpo",
    "trpo_step",
    "trust_region",
    "write_rollouts",
]
