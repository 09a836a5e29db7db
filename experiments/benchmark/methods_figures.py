"""The comparison of methods: quality against time per meta-step, and a table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from mamljax.running import plots
from mamljax.running.table import Table, markdown_lines

FONT = 12
"""Points: pages show the figure at half its size."""


def draw(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Quality against time per meta-step, a panel per problem, one below the other."""
    problems = list(dict.fromkeys(row["problem"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    figure = Figure(figsize=(7.5, 0.9 + 3.4 * len(problems)), layout="constrained")
    panels = figure.subplots(len(problems), 1, squeeze=False)[:, 0]
    handles: dict[str, Any] = {}
    for axes, problem in zip(panels, problems, strict=True):
        same = [row for row in rows if row["problem"] == problem]
        for row in same:
            if "mean" not in row:
                continue
            index = methods.index(row["method"])
            handles[row["method"]] = axes.errorbar(
                row["milliseconds_per_step"],
                row["mean"],
                yerr=row["ci95"],
                fmt="os^Dv"[index % 5],
                color=plots.color(row["method"]),
                markersize=8,
                capsize=4,
            )
        measures = same[0]["measures"]
        tasks = f"{len(same[0]['seeds'])} seeds, bar: 95% interval"
        axes.set_title(f"{problem}, {tasks}", fontsize=FONT)
        axes.set(xscale="log", yscale="log" if "error" in measures else "linear")
        axes.set_ylabel(f"{measures} after adaptation", fontsize=FONT)
        axes.tick_params(labelsize=FONT)
        axes.grid(alpha=0.3, which="both")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    panels[-1].set_xlabel("ms per meta-step", fontsize=FONT)
    figure.legend(
        handles.values(), handles.keys(), loc="outside upper center", ncols=4, fontsize=FONT
    )
    plots.save(figure, path)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown, a line per method."""
    cells = []
    for row in rows:
        cells.append([row["problem"], row["method"], f"{row['inner_lr']:g}"])
        failed = f"{row['num_failed']} of {len(row['seeds'])} seeds failed"
        if "mean" not in row:
            cells[-1] += [failed, "", ""]
            continue
        quality = f"{row['mean']:.3f} ± {row['ci95']:.3f}"
        spread = f"({row['lowest']:.3f} to {row['highest']:.3f})"
        megabytes = row["temporary_megabytes"]
        cells[-1] += [
            f"{quality} {spread}" + (f", {failed}" if row["num_failed"] else ""),
            f"{row['milliseconds_per_step']:.2f}",
            f"{megabytes:.1f}" if megabytes else "",
        ]
    header = ["problem", "method", "inner step size", "after adaptation (seeds)"]
    found = Table([*header, "ms per meta-step", "MB"], cells, "")
    return "\n".join(markdown_lines(found))
