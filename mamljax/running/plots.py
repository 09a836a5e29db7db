"""Figures: scores against inner steps, and fitted curves.

A method has the same colour in every figure, see `color`.
"""

import zlib
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


METHODS = (
    *("maml", "pretrain", "oracle", "random", "fomaml", "context", "meta_sgd", "multitask"),
    *("multitask_l2", "multitask_mean", "anil", "boil", "cavia", "imaml", "reptile"),
    *("meta_curvature", "maml_plus_plus", "learned alpha", "prototypical", "matching", "siamese"),
    *("mann", "memory", "statistician", "lstm", "proto_maml"),
    *("mamljax", "torch.func", "torch loop", "torch batched", "jax.vmap of lax.conv"),
)
"""Methods, and libraries, in the order of their colours: those drawn together differ most."""

PALETTE = (
    *("#1f77b4", "#ff7f0e", "#2ca02c", "#7f7f7f", "#17becf", "#9467bd", "#d62728", "#8c564b"),
    *("#e377c2", "#bcbd22", "#7b3294", "#5e4fa2", "#66a61e", "#01665e", "#c51b7d"),
    *("#b2182b", "#543005", "#4393c3", "#d6604d", "#35978f", "#bf812d"),
    *("#3288bd", "#80cdc1", "#fdae61", "#c2a5cf", "#4d4d4d"),
)


def color(method: str) -> str:
    """Return the colour of a method; one that is not known gets one by its name.

    Args:
      method: a name, with what is particular to it behind a comma, as in ``"maml, dense"``.
    """
    name = method.partition(",")[0]
    index = METHODS.index(name) if name in METHODS else zlib.crc32(name.encode())
    return PALETTE[index % len(PALETTE)]


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


def tested(records: Sequence[Mapping[str, Any]]) -> str:
    """Return what a figure has to say of its numbers: how many tasks, and what the bands are."""
    numbers = sorted({row.num_tasks for row in report.rows(records)})
    return f"{' or '.join(map(str, numbers))} test tasks, band: 95% interval"


def learning_curves(
    path: Path,
    panels: Mapping[str, Mapping[str, Curve]],
    *,
    ylabel: str,
    title: str,
    log: bool = False,
    chance: float | None = None,
) -> None:
    """Scores against inner steps, one panel per setting and one line per method, with intervals.

    A method with a single score, which takes no steps, is a level line.

    Args:
      path: of the PNG.
      panels: by setting and method.
      ylabel: what the scores are.
      title: of the figure.
      log: whether scores are drawn on a logarithmic scale, as errors that differ by far should be.
      chance: the score of guessing, a dotted line.
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
            drawn = {"color": color(method)}
            axis.plot(steps, mean, style, label=method, markersize=4, **drawn)
            published = list(curve.published), list(curve.published.values())
            axis.plot(*published, "x", markersize=8, **drawn)
            # On a logarithmic scale nothing may reach down to 0.
            low = np.maximum(mean - half, 0.1 * mean) if log else mean - half
            axis.fill_between(steps, low, mean + half, alpha=0.2, **drawn)
        if chance is not None:
            axis.axhline(chance, color="black", linestyle=":", linewidth=1, label="chance")
        axis.set(title=setting, xlabel="gradient steps")
        if log:
            axis.set_yscale("log")
        elif axis.dataLim.y0 >= 0:  # errors and accuracies; returns may be negative
            axis.set_ylim(0, None)
        axis.locator_params(axis="x", integer=True)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(ylabel)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    figure.suptitle(title)
    save(figure, path)


def fitted_curves(path: Path, rows: Sequence[Sequence[Fit]], *, title: str) -> None:
    """A grid of panels, each showing a task's truth, its support points and fitted curves.

    All have one range of outputs, so that amplitudes and errors compare.
    """
    size = (4 * len(rows[0]), 0.6 + 2.7 * len(rows))
    figure = _figure(figsize=size)
    axes = figure.subplots(len(rows), len(rows[0]), sharex=True, sharey=True, squeeze=False)
    styles = (("tab:green", ":"), ("tab:olive", "--"), ("tab:blue", "-"))
    for axis, fit in zip(axes.flat, (fit for row in rows for fit in row), strict=True):
        axis.plot(fit.grid, fit.truth, color="tab:red", label="ground truth")
        for (name, values), (color, line) in zip(fit.curves.items(), styles, strict=False):
            axis.plot(fit.grid, values, color=color, linestyle=line, label=name)
        axis.plot(*fit.support, "^", color="tab:purple", label="used for grad")
        axis.set_title(fit.title, fontsize=10)
        axis.grid(alpha=0.3)
    for axis in axes[-1]:
        axis.set_xlabel("input x")
    for axis in axes[:, 0]:
        axis.set_ylabel("output y")
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
    """Draw what was trained on, and beside it validation scores, if there are any, over training.

    Args:
      path: of the PNG.
      trained, validated: by name: meta-iterations and values. A single one needs no legend.
      ylabel: of what was trained on.
      from_zero: whether that axis begins at 0, as a loss should.
    """
    panels = [(ylabel, trained), ("validation score", validated)]
    panels = [(label, series) for label, series in panels if series]
    figure = _figure(figsize=(0.5 + 4.25 * len(panels), 3.6))
    for axis, (label, series) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        for name, points in series.items():
            axis.plot(*points, label=name, linewidth=1)
        axis.set(xlabel="meta-iteration", ylabel=label)
        if from_zero and series is trained:
            axis.set_ylim(0, None)
        axis.locator_params(axis="x", nbins=5)
        axis.grid(alpha=0.3)
        if len(series) > 1:
            _legend_above(axis)
    save(figure, path)


def dot(axes: Any, x: float, y: float, interval: Sequence[float], name: str) -> None:
    """A dot with its interval, from smallest to largest, in the colour of its name.

    Bars would be as long as where a logarithmic axis happens to begin.
    """
    low, high = interval
    spread = [[max(x - low, 0)], [max(high - x, 0)]]
    axes.errorbar(
        x, y, xerr=spread, fmt="o", markersize=7, capsize=4, color=color(name), label=name
    )


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
