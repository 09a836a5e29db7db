"""The sinusoid figures of the paper: 2 and 7 (fits), 3 and 6 (error against gradient steps)."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness.config import Config
from mamljax.running import plots
from mamljax.running.report import Record
from mamljax.types import Array, Learner, Params, PyTree, Sampler

SHOWN = (0, 1, 10)
"""Gradient steps whose fits are drawn."""


def draw(
    directory: Path,
    config: Config,
    task_sampler: Callable[..., Sampler],
    methods: Mapping[str, Any],
    record: Record,
) -> None:
    """Draw all four figures from trained methods and the record of their results."""
    errors(directory, record)
    few, more = config.evaluate.shots[0], config.evaluate.shots[len(config.evaluate.shots) // 2]
    compared = (config.train.method, "pretrain")
    low, high = config.task.inputs
    left, right = (low, (low + high) / 2), ((low + high) / 2, high)
    panel = functools.partial(_fit, config, task_sampler, methods)
    plots.fitted_curves(
        directory / "figure2.png",
        [
            [
                panel(name, few, seed=0),
                panel(name, more, seed=0),
                panel(name, few, seed=0, support_inputs=left),
                panel(name, few, seed=0, support_inputs=right),
            ]
            for name in compared
        ],
        title="Adaptation to one sinusoid, support in all or in one half of the input range",
    )
    plots.fitted_curves(
        directory / "figure7.png",
        [
            [panel(name, shots, seed=seed) for name in compared for shots in (few, more)]
            for seed in range(1, 5)
        ],
        title="Adaptation to randomly drawn sinusoids",
    )


def errors(directory: Path, record: Record) -> None:
    """Draw figures 3 and 6: the errors of a report against gradient steps."""
    panels = plots.curves([record])
    middle = list(panels)[len(panels) // 2]
    for name, shown in (("figure3.png", {middle: panels[middle]}), ("figure6.png", panels)):
        plots.learning_curves(
            directory / name,
            shown,
            ylabel="mean squared error",
            title=f"Error, {plots.tested([record])}",
            log=True,
        )


def _fit(
    config: Config,
    task_sampler: Callable[..., Sampler],
    methods: Mapping[str, Any],
    name: str,
    shots: int,
    *,
    seed: int,
    support_inputs: tuple[float, float] | None = None,
) -> plots.Fit:
    """Adapt a method to the sinusoid of a seed and predict over the whole input range."""
    key = jax.random.fold_in(jax.random.key(config.seed), seed)
    task = task_sampler(shots, 1, support_inputs=support_inputs)(None, key)
    _, amplitude, phase = task_sampler(shots, 1, reveal=True)(None, key).query.inputs[0]
    low, high = config.task.inputs
    grid = jnp.linspace(low, high, 200)[:, None]
    learner, meta_params = methods[name].learners[shots], methods[name].meta_params
    predictions = _predict_per_step(learner, meta_params, task.support, grid, key)
    where = "" if support_inputs is None else " in [{:g}, {:g}]".format(*support_inputs)
    return plots.Fit(
        title=f"{name}, K={shots}{where}",
        grid=np.asarray(grid[:, 0]),
        truth=np.asarray(amplitude * jnp.sin(grid[:, 0] - phase)),
        support=(np.asarray(task.support.inputs[:, 0]), np.asarray(task.support.targets[:, 0])),
        curves={_step_name(step): np.asarray(predictions[step]) for step in SHOWN},
    )


@functools.partial(jax.jit, static_argnums=0)
def _predict_per_step(
    learner: Learner, meta_params: Params, support: PyTree, grid: Array, key: Array
) -> Array:
    """Predictions ``[S + 1, G]`` at the grid, before and after each gradient step."""

    def observe(params, step):
        return learner.predict(params, grid, step=step)[:, 0]

    return learner.adapt(meta_params, support, key, num_steps=max(SHOWN), observe=observe).observed


def _step_name(step: int) -> str:
    return "pre-update" if step == 0 else f"{step} grad step{'s' if step > 1 else ''}"
