"""Two-dimensional navigation (Finn et al. 2017, section 5.3, figure 4, and appendix C.2).

    mamljax train navigation

Trains MAML and the baselines by trust regions, keeps the iterate with the best return on
validation tasks, tests all on the same 40 tasks, and writes report.json, report.md, metrics.jsonl,
TensorBoard events, checkpoints/ and figures/ into the work directory.
"""

from pathlib import Path

import jax
import numpy as np

from experiments.harness.config import Config
from experiments.harness.main import main
from experiments.meta_rl import experiment
from mamljax import rl
from mamljax.running import plots
from mamljax.running.report import Record


def run(config: Config, workdir: Path) -> Record:
    """Run the experiment into `workdir`, or finish it there; returns the report."""
    return experiment.run(config, workdir, build(config), draw)


def build(config: Config) -> rl.Env:
    """The environment of the config."""
    return rl.navigation(reward=config.env.reward, reach=config.env.reach)


def draw(figures: Path, trained: experiment.Trained) -> None:
    """Paths to one goal before and after adaptation: figure 4, on the right.

    There is none of methods that do not adapt by gradient.
    """
    panels, goal = {}, np.zeros(2)
    for name in trained.inner_lr:
        method = trained.methods[name]
        task, steps = experiment.adapted(trained, name)
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
    if not panels:
        return
    reach = 1.6 * trained.config.env.reach
    plots.paths(figures / "paths.png", panels, goal, reach=reach, title="Paths to one goal")


if __name__ == "__main__":
    main(run, "configs/navigation.py")
