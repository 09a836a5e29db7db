"""The figures of few-shot classification: accuracy against steps, an episode, training curves."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.harness.training import VALIDATION
from mamljax.running import metrics, plots
from mamljax.running.report import Record
from mamljax.types import Batch, Params

SAMPLES = 5
"""Images of each class that a generative model draws."""


def draw(workdir: Path, setting: Any, params: Params, record: Record) -> None:
    """Draw all figures of a run into ``figures/``.

    Args:
      workdir: of the run.
      setting: its config, method and samplers.
      params: that were tested.
      record: its report.
    """
    config, figures = setting.config, workdir / "figures"
    accuracies(figures / "accuracy.png", record)
    task = setting.test[config.evaluate.queries[0]](None, setting.keys["test"])
    plots.episode(
        figures / "episode.png",
        *(np.asarray(batch.inputs) for batch in jax.device_get((task.support, task.query))),
        ways=config.task.ways,
    )
    if setting.method.sample is not None:
        drawn = samples(setting, params, task.support)
        plots.episode(
            figures / "samples.png",
            *(np.asarray(images) for images in jax.device_get((task.support.inputs, drawn))),
            ways=config.task.ways,
            right="drawn by the model",
        )
    history = metrics.read(workdir / metrics.FILE, config.method)
    if history:
        plots.training_curves(
            figures / "training.png",
            {"loss": metrics.over_training(history, "loss")},
            metrics.scores_over_training(history, VALIDATION),
            ylabel="meta-loss",
        )


def accuracies(path: Path, record: Record) -> None:
    """Draw the accuracies of a report against gradient steps."""
    plots.learning_curves(
        path,
        plots.curves([record]),
        ylabel="accuracy",
        title=f"{record['experiment']}: {plots.tested([record])}".capitalize(),
        chance=1 / record["config"]["task"]["ways"],
    )


def samples(setting: Any, params: Params, support: Batch) -> jax.Array:
    """Return images that a generative model draws of the classes of a support set."""
    adapt_key, sample_key = jax.random.split(setting.keys["test"])
    adapted = setting.method.learner.adapt(params, support, adapt_key)
    return setting.method.sample(adapted.params, sample_key, SAMPLES)
