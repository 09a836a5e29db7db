"""The figures of meta-reinforcement learning: returns against steps, and over training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.settings import Config
from mamljax import metrics, plots
from mamljax.plots import Curve


def draw(workdir: Path, config: Config, results: Sequence[dict[str, Any]]) -> None:
    """Draw all figures of a run into ``figures/``."""
    figures = workdir / "figures"
    curves = {row["method"]: Curve(row["mean"], row["ci95"]) for row in results}
    plots.learning_curves(
        figures / "returns.png",
        {config.env.name: curves},
        ylabel="return",
        title="Return against gradient steps",
    )
    for name in curves:
        history = [r for r in metrics.read(workdir / metrics.FILE) if r["run"] == name]
        if history:
            plots.training_curves(figures / f"training_{name}.png", history)
