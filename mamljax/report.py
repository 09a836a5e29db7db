"""The report of an experiment: ``report.json`` and ``report.md``, one form for all of them."""

import importlib.metadata
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from mamljax import files, processes
from mamljax.evaluate import Report
from mamljax.version import __version__

SHOWN_STEPS = (0, 1, 5, 10)
"""The inner steps that tables show, as far as they were evaluated; of four or fewer all are."""


def result(
    method: str,
    setting: str,
    metric: str,
    scores: Report,
    paper: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """One row of results.

    Args:
      method: such as ``maml``.
      setting: such as ``5-shot``.
      metric: what the numbers are, such as ``mse``.
      scores: from `evaluate`.
      paper: published numbers, ``{"steps": [...], "mean": [...]}`` and perhaps ``"ci95"``.
    """
    return {
        "method": method,
        "setting": setting,
        "metric": metric,
        "steps": list(range(len(scores.mean))),
        "mean": scores.mean.tolist(),
        "ci95": scores.ci95.tolist(),
        "std": scores.std.tolist(),
        "median": scores.median.tolist(),
        "num_tasks": scores.num_tasks,
        "num_diverged": scores.num_diverged,
        "paper": paper,
    }


def provenance(experiment: str, config: dict[str, Any]) -> dict[str, Any]:
    """What a number needs to be trusted: command, config, seed, versions, device."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint")
    return {
        "experiment": experiment,
        "command": _command(),
        "config": config,
        "seed": config.get("seed"),
        "versions": {
            "python": platform.python_version(),
            "mamljax": __version__,
            **{name: importlib.metadata.version(name) for name in packages},
        },
        "device": device(),
    }


def device() -> dict[str, Any]:
    """The devices that jax uses, and the processor."""
    first = jax.devices()[0]
    return {
        "platform": first.platform,
        "kind": _processor() if first.platform == "cpu" else first.device_kind,
        "count": jax.device_count(),
        "cpu_cores": os.cpu_count(),
    }


def publish(workdir: Path, report: dict[str, Any]) -> None:
    """Write ``report.json`` and ``report.md`` into the work directory, and show the table.

    Of several processes only the first does.
    """
    if processes.is_first():
        files.write_json(workdir / "report.json", report)
        files.write_text(workdir / "report.md", markdown(report))
        show(report)
        print(f"Report and figures: {workdir}")


def markdown(report: dict[str, Any]) -> str:
    """The report as a page: the table, then where it comes from."""
    header, rows = table(report["results"])
    lines = [
        f"# {report['experiment']}",
        "",
        "Mean over tasks ± 95% interval (1.96 std / √n); in brackets the paper's value.",
        "",
        *markdown_table(header, rows),
        "",
        f"- command: `{report['command']}`",
        f"- seed: {report['seed']}",
        f"- device: {', '.join(f'{key} {value}' for key, value in report['device'].items())}",
        f"- versions: {', '.join(f'{key} {value}' for key, value in report['versions'].items())}",
        f"- wall seconds: {report['wall_seconds']:.0f}",
        f"- training: {report['train']}",
        *(f"- {key}: {value}" for key, value in report.get("details", {}).items()),
    ]
    return "\n".join(lines) + "\n"


def table(results: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: method, setting, the score at each of `SHOWN_STEPS`, diverged tasks."""
    steps, names = shown_steps(results)
    rows = [
        [row["method"], row["setting"], row["metric"]]
        + [_cell(row, step) for step in steps]
        + [f"{row['num_diverged']}/{row['num_tasks']}"]
        for row in results
    ]
    return ["method", "setting", "metric", *names, "diverged"], rows


def shown_steps(results: Sequence[dict[str, Any]]) -> tuple[list[int], list[str]]:
    """The steps that a table shows, each row's last step among them, and their column names."""
    last = {row["steps"][-1] for row in results}
    shown = SHOWN_STEPS if max(last) >= 5 else range(5)
    steps = sorted(last | {step for step in shown if step <= max(last)})
    return steps, [f"{step} step{'' if step == 1 else 's'}" for step in steps]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    rule = "|" + "---|" * len(header)
    return [f"| {' | '.join(header)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)]


def published(row: dict[str, Any], step: int) -> float | None:
    """The paper's number beside a row's score after `step` inner steps, if there is one."""
    paper = row["paper"]
    if paper is None or step not in paper["steps"]:
        return None
    return paper["mean"][paper["steps"].index(step)]


def show(report: dict[str, Any]) -> None:
    """Print the table of results."""
    header, rows = table(report["results"])
    printed = Table(title=f"{report['experiment']}: mean ± 95% interval (paper)")
    for index, name in enumerate(header):
        printed.add_column(name, justify="left" if index < 3 else "right")
    for row in rows:
        printed.add_row(*row)
    console().print(printed)


def console() -> Console:
    """Where tables are printed: in a pipe or a log there is no screen whose width could matter."""
    screen = Console()
    return screen if screen.is_terminal else Console(width=160)


def _cell(row: dict[str, Any], step: int) -> str:
    if step >= len(row["mean"]):
        return ""
    text = f"{row['mean'][step]:.3g} ± {row['ci95'][step]:.2g}"
    paper = published(row, step)
    return text if paper is None else f"{text} ({paper:.3g})"


def _command() -> str:
    """The command line that started this process, as one would type it."""
    typed = sys.orig_argv
    for index, word in enumerate(typed[1:3], start=1):
        if Path(word).name == "mamljax":
            return shlex.join(["mamljax", *typed[index + 1 :]])
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    program = ["-m", spec.name] if spec is not None else [Path(sys.argv[0]).name]
    return shlex.join(["python", *program, *sys.argv[1:]])


def _processor() -> str:
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in info.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()
