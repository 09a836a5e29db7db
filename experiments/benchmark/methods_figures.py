"""The comparison of methods: quality against time per meta-step, and a table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from mamljax.running import plots, report


def draw(path: Path, rows: Sequence[dict[str, Any]], methods: Sequence[str]) -> None:
    """Quality against time per meta-step, a panel per problem, a mark for each of `methods`."""
    problems = list(dict.fromkeys(row["problem"] for row in rows))
    figure = Figure(figsize=(2.2 + 4.2 * len(problems), 4.2), layout="constrained")
    panels = figure.subplots(1, len(problems), squeeze=False)[0]
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
                color=f"C{index % 10}",
                fillstyle="full" if index < 10 else "none",
                capsize=3,
            )
        measures = same[0]["measures"]
        axes.set(xscale="log", xlabel="ms per meta-step", title=problem)
        axes.set(
            ylabel=f"{measures} after adaptation", yscale="log" if "error" in measures else "linear"
        )
        axes.grid(alpha=0.3, which="both")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    figure.legend(handles.values(), handles.keys(), loc="outside right center")
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
    found = report.Table([*header, "ms per meta-step", "MB"], cells, "")
    return "\n".join(report.markdown_table(found))
