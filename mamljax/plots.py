"""Figures: scores against inner steps, and fitted curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


class Fit(NamedTuple):
    """One panel of fitted curves.

    grid: ``[G]``, inputs at which the curves are drawn.
    truth: ``[G]``, the task's function.
    support: inputs and targets ``[K]`` each, the points adapted to.
    curves: predictions ``[G]`` by name, such as ``"10 grad steps"``.
    """

    title: str
    grid: np.ndarray
    truth: np.ndarray
    support: tuple[np.ndarray, np.ndarray]
    curves: Mapping[str, np.ndarray]


class Curve(NamedTuple):
    """Scores before adaptation and after each inner step, with their 95% half-widths."""

    mean: Sequence[float]
    ci95: Sequence[float]


def learning_curves(
    path: Path, panels: Mapping[str, Mapping[str, Curve]], *, ylabel: str, title: str
) -> None:
    """Scores against inner steps, one panel per setting and one line per method, with intervals."""
    figure = Figure(figsize=(2.5 + 4 * len(panels), 3.8), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (setting, curves) in zip(axes, panels.items(), strict=True):
        for index, (method, curve) in enumerate(curves.items()):
            steps, mean, half = np.arange(len(curve.mean)), np.array(curve.mean), curve.ci95
            style = ("o-", "s--", "^:", "v-.")[index % 4]
            axis.plot(steps, mean, style, label=method, markersize=4)
            axis.fill_between(steps, mean - half, mean + half, alpha=0.2)
        axis.set(title=setting, xlabel="gradient steps", ylim=(0, None))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(ylabel)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    figure.suptitle(title)
    save(figure, path)


def fitted_curves(path: Path, rows: Sequence[Sequence[Fit]], *, title: str) -> None:
    """A grid of panels, each showing a task's truth, its support points and fitted curves."""
    size = (4 * len(rows[0]), 0.6 + 2.7 * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(rows), len(rows[0]), sharex=True, squeeze=False)
    styles = (("tab:green", ":"), ("tab:olive", "--"), ("tab:blue", "-"))
    for axis, fit in zip(axes.flat, (fit for row in rows for fit in row), strict=True):
        axis.plot(fit.grid, fit.truth, color="tab:red", label="ground truth")
        for (name, values), (color, line) in zip(fit.curves.items(), styles, strict=False):
            axis.plot(fit.grid, values, color=color, linestyle=line, label=name)
        axis.plot(*fit.support, "^", color="tab:purple", label="used for grad")
        axis.set_title(fit.title, fontsize=10)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.suptitle(title)
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)  # drawn without a screen, whatever backend the user has set
    figure.savefig(path, dpi=120)
