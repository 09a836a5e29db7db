"""The figures of meta-reinforcement learning: returns against steps, and over training."""

from pathlib import Path

from experiments.harness.training import VALIDATION
from mamljax.running import metrics, plots
from mamljax.running.report import Record

RETURNS = ("return_before", "return_after")
"""Mean returns before and after adaptation, which training tells. Policies have no loss worth
drawing, for a surrogate is 0 where it is differentiated."""


def draw(workdir: Path, record: Record) -> None:
    """Draw all figures of a run into ``figures/``."""
    figures = workdir / "figures"
    returns(figures / "returns.png", record)
    for name in record["train"]:
        history = metrics.read(workdir / metrics.FILE, name)
        if history:
            plots.training_curves(
                figures / f"training_{name}.png",
                {
                    name.replace("_", " "): series
                    for name in RETURNS
                    if (series := metrics.over_training(history, name))[0]
                },
                metrics.scores_over_training(history, VALIDATION),
                ylabel="return in training",
                from_zero=False,
            )


def returns(path: Path, record: Record) -> None:
    """Draw the returns of a report against gradient steps."""
    plots.learning_curves(
        path,
        plots.curves([record]),
        ylabel="return",
        title=f"{record['experiment'].removeprefix('meta-RL: ')}: {plots.tested([record])}",
    )
