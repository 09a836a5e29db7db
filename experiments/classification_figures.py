"""The figures of few-shot classification: accuracy against steps, an episode, training curves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mamljax import metrics, plots
from mamljax.plots import Curve


def draw(workdir: Path, setting: Any, results: Sequence[dict[str, Any]]) -> None:
    """Draw all figures of a run into ``figures/``."""
    config, figures = setting.config, workdir / "figures"
    panels: dict[str, dict[str, Curve]] = {}
    for row in results:
        panels.setdefault(row["setting"], {})[row["method"]] = Curve(row["mean"], row["ci95"])
    plots.learning_curves(
        figures / "accuracy.png", panels, ylabel="accuracy", title=f"Few-shot {config.data.source}"
    )
    task = setting.test[config.evaluate.queries[0]](None, setting.keys["test"])
    plots.episode(
        figures / "episode.png",
        *(np.asarray(batch.inputs) for batch in jax.device_get((task.support, task.query))),
        ways=config.task.ways,
    )
    history = [r for r in metrics.read(workdir / metrics.FILE) if r["run"] == config.method]
    if history:
        plots.training_curves(figures / "training.png", history)
