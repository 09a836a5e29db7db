"""Merge the reports of runs: a table for every experiment, and figures, beside the paper's numbers.

python -m experiments.summary runs/*
python -m experiments.summary results/sinusoid/maml-seed*.json --output=summary
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mamljax import files, plots
from mamljax.plots import Curve
from mamljax.report import markdown_table, published, shown_steps


def table(reports: Sequence[dict[str, Any]]) -> str:
    """A Markdown table: per method and setting the mean over seeds, its interval, and their range.

    Raises:
      ValueError: if the reports are of different experiments, or two have the same seed.
    """
    experiments = {report["experiment"] for report in reports}
    seeds = [report["seed"] for report in reports]
    if len(experiments) > 1 or len(set(seeds)) < len(seeds):
        raise ValueError(
            f"one report per seed of one experiment is expected; got experiments "
            f"{sorted(experiments)} and seeds {seeds}."
        )
    rows = _rows(reports)
    steps, names = shown_steps([row for same in rows.values() for row in same])
    lines = [
        [
            *(method, setting),
            *(_cell(same, step) for step in steps),
            f"{sum(r['num_diverged'] for r in same)}/{sum(r['num_tasks'] for r in same)}",
        ]
        for (method, setting), same in rows.items()
    ]
    note = (
        f"Mean over seeds {sorted(seeds)} ± 95% interval over test tasks (smallest to largest "
        "seed); **the paper's**."
        if len(seeds) > 1
        else f"Seed {seeds[0]}, mean ± 95% interval over test tasks; **the paper's**."
    )
    return "\n".join([*markdown_table(["method", "setting", *names, "diverged"], lines), "", note])


def curves(reports: Sequence[dict[str, Any]]) -> dict[str, dict[str, Curve]]:
    """By setting and method: the mean over seeds, its interval over test tasks, the paper's."""
    panels: dict[str, dict[str, Curve]] = {}
    for (method, setting), same in _rows(reports).items():
        paper = {step: published(same[0], step) for step in same[0]["steps"]}
        known = {step: value for step, value in paper.items() if value is not None}
        panels.setdefault(setting, {})[method] = Curve(*_pooled(same), known)
    return panels


def read(paths: Sequence[str]) -> list[dict[str, Any]]:
    """The reports in JSON files, or in the work directories of runs.

    Raises:
      ValueError: for a path where there is none.
    """
    found = []
    for path in map(Path, paths):
        file = path / "report.json" if path.is_dir() else path
        try:
            report = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{file} is not the report of a run ({error}); give the work directories of runs "
                "that have finished, or their report.json."
            ) from error
        if not isinstance(report, dict) or "results" not in report:
            raise ValueError(f"{file} holds no results: give reports of experiments.")
        found.append(report)
    return found


def groups(reports: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Reports that differ in the seed alone, together."""
    found: dict[str, list[dict[str, Any]]] = {}
    for report in reports:
        config = {name: value for name, value in report["config"].items() if name != "seed"}
        found.setdefault(json.dumps([report["experiment"], config], sort_keys=True), []).append(
            report
        )
    return list(found.values())


def main(words: Sequence[str]) -> None:
    """Print a table for every group of reports; with ``--output``, write them and draw figures."""
    parser = argparse.ArgumentParser(
        prog="report", description="Merge the reports of runs, seed by seed, beside the paper's."
    )
    parser.add_argument("runs", nargs="+", help="work directories of runs, or report.json files")
    parser.add_argument("--output", type=Path, help="a folder for summary.md and its figures")
    given = parser.parse_args(words)
    try:
        merged = groups(read(given.runs))
        tables = [table(reports) for reports in merged]
    except ValueError as error:
        parser.error(str(error))
    pages = []
    for index, (reports, text) in enumerate(zip(merged, tables, strict=True)):
        first = reports[0]
        pages += [f"# {first['experiment']}", "", text, "", f"`{first['command']}`", ""]
        if given.output:
            name = f"figure{index}.png"
            plots.learning_curves(
                given.output / name,
                curves(reports),
                ylabel=first["results"][0]["metric"],
                title=f"{first['experiment']}, {len(reports)} seeds; crosses: the paper",
            )
            pages += [f"![{first['experiment']}]({name})", ""]
    print("\n".join(pages))
    if given.output:
        files.write_text(given.output / "summary.md", "\n".join(pages))


def _rows(reports: Sequence[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """The results of all reports, by method and setting."""
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for report in reports:
        for row in report["results"]:
            rows.setdefault((row["method"], row["setting"]), []).append(row)
    return rows


def _pooled(rows: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """By step: the mean over seeds, and its 95% half-width over the test tasks of all of them."""
    mean = np.mean([_numbers(row["mean"]) for row in rows], axis=0)
    return mean, np.sqrt(np.sum([_numbers(row["ci95"]) ** 2 for row in rows], axis=0)) / len(rows)


def _numbers(values: Sequence[float | None]) -> np.ndarray:
    """A mean that is infinite or NaN because tasks diverged is null in the report."""
    return np.array([np.nan if value is None else value for value in values])


def _cell(rows: Sequence[dict[str, Any]], step: int) -> str:
    if step not in rows[0]["steps"]:  # such as the oracle, which takes none
        return ""
    mean, ci95 = (float(x[step]) for x in _pooled(rows))
    text = f"{mean:.3g} ± {ci95:.2g}"
    if len(rows) > 1:
        values = _numbers([row["mean"][step] for row in rows])
        text += f" ({np.min(values):.3g} to {np.max(values):.3g})"
    paper = published(rows[0], step)
    return text if paper is None else f"{text} **{paper:.3g}**"


if __name__ == "__main__":
    main(sys.argv[1:])
