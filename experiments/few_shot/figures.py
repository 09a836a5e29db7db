"""The figures of few-shot classification: accuracy against steps, an episode, training curves."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.harness.training import VALIDATION
from mamljax.running import metrics, plots
from mamljax.running.report import Record


def draw(workdir: Path, setting: Any, record: Record) -> None:
    """Draw all figures of a run into ``figures/``."""
    config, figures = setting.config, workdir / "figures"
    plots.learning_curves(
        figures / "accuracy.png",
        plots.curves([record]),
        ylabel="accuracy",
        title=f"Few-shot {config.data.source}",
    )
    task = setting.test[config.evaluate.queries[0]](None, setting.keys["test"])
    plots.episode(
        figures / "episode.png",
        *(np.asarray(batch.inputs) for batch in jax.device_get((task.support, task.query))),
        ways=config.task.ways,
    )
    history = metrics.read(workdir / metrics.FILE, config.method)
    if history:
        plots.training_curves(
            figures / "training.png",
            {"loss": metrics.over_training(history, "loss")},
            metrics.scores_over_training(history, VALIDATION),
            ylabel="meta-loss",
        )
