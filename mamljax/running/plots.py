"""Figures: scores against inner steps, and fitted curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mamljax import checks
from mamljax.running import report
from mamljax.running.metrics import Series

if TYPE_CHECKING:
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
    """Scores before adaptation and after each inner step, with their 95% half-widths.

    published: the paper's scores by inner step, drawn as crosses.
    """

    mean: Sequence[float] | np.ndarray
    ci95: Sequence[float] | np.ndarray
    published: Mapping[int, float] = MappingProxyType({})


def curves(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Curve]]:
    """Return what `learning_curves` draws, by setting and method, of reports as `report.rows` does.

    Args:
      records: one report, or several that differ in the seed alone.
    """
    panels: dict[str, dict[str, Curve]] = {}
    for row in report.rows(records):
        curve = Curve(row.mean, row.ci95, row.published)
        panels.setdefault(row.setting, {})[row.method] = curve
    return panels


def learning_curves(
    path: Path, panels: Mapping[str, Mapping[str, Curve]], *, ylabel: str, title: str
) -> None:
    """Scores against inner steps, one panel per setting and one line per method, with intervals.

    A method with a single score, which takes no steps, is a level line.
    """
    figure = _figure(figsize=(2.5 + 4 * len(panels), 3.8))
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (setting, curves) in zip(axes, panels.items(), strict=True):
        longest = max(len(curve.mean) for curve in curves.values())
        for index, (method, curve) in enumerate(curves.items()):
            mean, half = np.array(curve.mean), np.array(curve.ci95)
            style = ("o-", "s--", "^:", "v-.")[index % 4]
            if len(mean) == 1:
                mean, half, style = mean.repeat(longest), half.repeat(longest), "-."
            steps = np.arange(len(mean))
            (line,) = axis.plot(steps, mean, style, label=method, markersize=4)
            axis.plot(
                list(curve.published),
                list(curve.published.values()),
                "x",
                color=line.get_color(),
                markersize=8,
            )
            axis.fill_between(steps, mean - half, mean + half, alpha=0.2)
        axis.set(title=setting, xlabel="gradient steps")
        if axis.dataLim.y0 >= 0:  # errors and accuracies; returns may be negative
            axis.set_ylim(0, None)
        axis.locator_params(axis="x", integer=True)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(ylabel)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    figure.suptitle(title)
    save(figure, path)


def fitted_curves(path: Path, rows: Sequence[Sequence[Fit]], *, title: str) -> None:
    """A grid of panels, each showing a task's truth, its support points and fitted curves."""
    size = (4 * len(rows[0]), 0.6 + 2.7 * len(rows))
    figure = _figure(figsize=size)
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


def episode(
    path: Path, support: np.ndarray, query: np.ndarray, *, ways: int, right: str = "query"
) -> None:
    """One few-shot task: a row per class, its support images on the left, its queries right.

    Args:
      path: of the PNG.
      support, query: images ``[N * K, H, W, ch]`` and ``[N * Q, H, W, ch]`` in [0, 1], class by
        class; of the queries the first five per class are shown.
      ways: classes ``N``.
      right: what the images on the right are.
    """
    rows = [images.reshape(ways, -1, *images.shape[1:]) for images in (support, query)]
    shots, shown = rows[0].shape[1], [rows[0], rows[1][:, :5]]
    columns = shots + shown[1].shape[1]
    figure = _figure(figsize=(0.8 * columns + 0.8, 0.8 * ways + 0.6))
    axes = figure.subplots(ways, columns, squeeze=False)
    images = np.concatenate(shown, axis=1)
    for axis, image in zip(axes.flat, images.reshape(-1, *images.shape[2:]), strict=True):
        gray = image.shape[-1] == 1
        axis.imshow(image[..., 0] if gray else image, cmap="gray_r", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
    for label, row in enumerate(axes):
        row[0].set_ylabel(f"class {label}")
    axes[0, 0].set_title("support", loc="left", fontsize=9)
    axes[0, shots].set_title(right, loc="left", fontsize=9)
    save(figure, path)


def paths(
    path: Path,
    panels: Mapping[str, Mapping[str, np.ndarray]],
    goal: np.ndarray,
    *,
    reach: float,
    title: str,
) -> None:
    """Paths in the plane: a panel per method, a colour per number of gradient steps.

    Args:
      path: of the PNG.
      panels: by method and label, positions ``[E, H, 2]``.
      goal: ``[2]``, marked by a star.
      reach: the plane is shown from minus this to this; paths may leave the picture.
      title: of the figure.
    """
    figure = _figure(figsize=(1 + 4 * len(panels), 4.4))
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    colors = ("tab:gray", "tab:green", "tab:blue", "tab:purple", "tab:orange")
    for axis, (method, curves) in zip(axes, panels.items(), strict=True):
        for (label, positions), color in zip(curves.items(), colors, strict=False):
            for index, steps in enumerate(positions):
                axis.plot(*steps.T, color=color, linewidth=1, label=None if index else label)
        axis.plot(*goal, "*", color="tab:red", markersize=14, label="goal")
        axis.set(title=method, aspect="equal", xlim=(-reach, reach), ylim=(-reach, reach))
        axis.grid(alpha=0.3)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.suptitle(title)
    save(figure, path)


def training_curves(
    path: Path,
    trained: Mapping[str, Series],
    validated: Mapping[str, Series],
    *,
    ylabel: str,
    from_zero: bool = True,
) -> None:
    """Draw what was trained on, and validation scores, over training: two panels.

    Args:
      path: of the PNG.
      trained, validated: by name: meta-iterations and values. A single one needs no legend.
      ylabel: of what was trained on.
      from_zero: whether that axis begins at 0, as a loss should.
    """
    figure = _figure(figsize=(9, 3.6))
    left, right = figure.subplots(1, 2)
    for axis, series in ((left, trained), (right, validated)):
        for name, points in series.items():
            axis.plot(*points, label=name, linewidth=1)
        axis.set(xlabel="meta-iteration")
        axis.locator_params(axis="x", nbins=5)
        axis.grid(alpha=0.3)
        if len(series) > 1:
            _legend_above(axis)
    left.set(ylabel=ylabel)
    if from_zero:
        left.set_ylim(0, None)
    right.set(ylabel="validation score")
    save(figure, path)


def _legend_above(axis: Any) -> None:
    """A legend over the axes: within them it hides curves, wherever it stands."""
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=8, frameon=False)


def save(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG, making its folder."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)  # drawn without a screen, whatever backend the user has set
    figure.savefig(path, dpi=120)


def _figure(figsize: tuple[float, float]) -> "Figure":
    checks.require("matplotlib", "drawing figures")
    from matplotlib.figure import Figure  # not needed to train

    return Figure(figsize=figsize, layout="constrained")
