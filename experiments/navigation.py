"""Two-dimensional navigation (Finn et al. 2017, section 5.3, figure 4, and appendix C.2).

    python -m experiments.navigation --config=configs/navigation.py --workdir=runs/navigation

Trains MAML and the baselines by trust regions, keeps the iterate with the best return on
validation tasks, tests all on the same 40 tasks, and writes report.json, report.md, metrics.jsonl,
TensorBoard events, checkpoints/ and figures/ into the work directory.
"""

from pathlib import Path
from typing import Any

from experiments import meta_rl, settings
from experiments.settings import Config
from mamljax import rl


def run(config: Config, workdir: Path) -> dict[str, Any]:
    """Run the experiment into `workdir`, or finish it there; returns the report."""
    with settings.refusing_bad_values():
        env = rl.navigation(reward=config.env.reward, reach=config.env.reach)
    return meta_rl.run(config, workdir, env)


if __name__ == "__main__":
    settings.main(run, "configs/navigation.py")
