"""Two-dimensional navigation (Finn et al. 2017, section 5.3, figure 4, and appendix C.2).

    python -m experiments.navigation --config=configs/navigation.py --workdir=runs/navigation

Trains MAML and the baselines by trust regions, keeps the iterate with the best return on
validation tasks, tests all on the same 40 tasks, and writes report.json, report.md, metrics.jsonl,
TensorBoard events, checkpoints/ and figures/ into the work directory.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import meta_rl, settings
from experiments.settings import Config
from mamljax import plots, rl


def run(config: Config, workdir: Path) -> dict[str, Any]:
    """Run the experiment into `workdir`, or finish it there; returns the report."""
    with settings.refusing_bad_values():
        env = build(config)
    return meta_rl.run(config, workdir, env, draw)


def build(config: Config) -> rl.Env:
    """The environment of the config."""
    return rl.navigation(reward=config.env.reward, reach=config.env.reach)


def draw(figures: Path, trained: meta_rl.Trained) -> None:
    """Paths to one goal before and after adaptation: figure 4, on the right."""
    panels, goal = {}, np.zeros(2)
    for name in trained.inner_lr:
        method = trained.methods[name]
        task, steps = meta_rl.adapted(trained, name)
        goal = np.asarray(task.position)

        @jax.jit
        def walk(params, env=method.env, policy=method.policy, task=task):
            return rl.rollout(
                env,
                policy.apply,
                params,
                task,
                trained.key,
                episodes=3,
                horizon=trained.config.env.horizon,
            ).observations

        panels[name] = {
            f"{s} step{'' if s == 1 else 's'}": np.asarray(walk(params))
            for s, params in enumerate(steps)
        }
    reach = 1.6 * trained.config.env.reach
    plots.paths(figures / "paths.png", panels, goal, reach=reach, title="Paths to one goal")


if __name__ == "__main__":
    settings.main(run, "configs/navigation.py")
