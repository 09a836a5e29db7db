"""Half-cheetah and ant (Finn et al. 2017, section 5.3, figure 5, and appendix C.2).

    mamljax train locomotion:cheetah_direction

Trains MAML and the baselines by trust regions in Brax, keeps the iterate with the best return on
validation tasks, tests all on the same 40 tasks, and writes report.json, report.md, metrics.jsonl,
TensorBoard events, checkpoints/, figures/ and a page that plays episodes before and after
adaptation into the work directory.
"""

from pathlib import Path
from typing import Any

import jax

from experiments.harness.config import Config
from experiments.harness.main import main
from experiments.meta_rl import experiment
from mamljax import rl
from mamljax.running.report import Record


def run(config: Config, workdir: Path) -> Record:
    """Run the experiment into `workdir`, or finish it there; returns the report."""
    return experiment.run(config, workdir, build(config), draw)


def build(config: Config) -> rl.Env:
    """The environment of the config."""
    scale = config.env.action_scale
    return rl.locomotion(config.env.name, action_scale=scale, **_physics(config))


def _physics(config: Config) -> dict[str, Any]:
    return {
        "dt": config.env.dt or None,
        "start_noise": config.env.start_noise,
        "backend": config.env.backend,
    }


def draw(figures: Path, trained: experiment.Trained) -> None:
    """A page for each method that plays an episode before and after adaptation."""
    config = trained.config
    robot = rl.robot(config.env.name, **_physics(config))
    for name in trained.inner_lr:
        method = trained.methods[name]
        task, steps = experiment.adapted(trained, name)

        @jax.jit
        def film(params, env=method.env, policy=method.policy, task=task):
            return rl.episode(
                env, policy.apply, params, task, trained.key, horizon=config.env.horizon
            )

        films = {
            f"after {s} gradient step{'' if s == 1 else 's'}": film(steps[s])
            for s in range(min(2, len(steps)))
        }
        told = ", ".join(f"{field} {value:.3g}" for field, value in task._asdict().items())
        shown = config.env.name.replace("_", " ")
        rl.write_rollouts(figures / f"{name}.html", robot, films, title=f"{shown}: {name}, {told}")


if __name__ == "__main__":
    main(run, "configs/locomotion.py")
