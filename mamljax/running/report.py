"""Reports of experiments: ``report.json``, ``report.md``, ``tasks.npz``, one form for all of them.

A `Report` is written while an experiment tests. `read` and `table` make a table of one report or of
many: seeds are pooled, and what else differs between configs becomes columns. `lines` has the same
for programs, unpooled.
"""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict

from mamljax import files, processes
from mamljax.checks import ArgumentError
from mamljax.evaluate import Scores
from mamljax.running.provenance import described, provenance
from mamljax.running.table import Table, markdown_lines, print_table

SHOWN_STEPS = (0, 1, 5, 10)
"""The inner steps that tables show, as far as they were evaluated; of four or fewer all are."""

FILE, PAGE, TASKS = "report.json", "report.md", "tasks.npz"

Record = dict[str, Any]
"""A report as JSON has it."""


class Report:
    """The report of a run in the making: a row that has been tested is on disk at once.

    Of several processes only the first writes.

    Args:
      workdir: where to write.
      experiment: its name.
      config: of the run.
    """

    def __init__(self, workdir: Path, experiment: str, config: Mapping[str, Any]) -> None:
        self._workdir = workdir
        self._started = time.perf_counter()
        self._tasks: dict[str, np.ndarray] = {}
        self.record: Record = {
            **provenance(experiment, config),
            "finished": False,
            "wall_seconds": 0.0,
            "train": {},
            "results": [],
            "details": {},
        }

    def add(
        self,
        method: str,
        setting: str,
        metric: str,
        scores: Scores,
        *,
        paper: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a row of results, and write what there is.

        Args:
          method: such as ``maml``.
          setting: such as ``5-shot``.
          metric: what the numbers are, such as ``mse``.
          scores: from `evaluate`.
          paper: published numbers, ``{"steps": [...], "mean": [...]}`` and perhaps ``"ci95"``.
        """
        row = {
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
        self.record["results"].append(row)
        self._tasks[name_of_tasks(row)] = scores.values
        self._write()

    def publish(self, train: Mapping[str, Any], details: Mapping[str, Any]) -> Record:
        """Write the whole report and its page, show the table, return the record.

        Args:
          train: by method, what is to be known of its training.
          details: further things worth knowing, by name.
        """
        self.record |= {"finished": True, "train": dict(train), "details": dict(details)}
        self._write()
        if processes.is_first():
            files.write_text(self._workdir / PAGE, markdown(self.record))
            print_table(table([self.record]), title=self.record["experiment"])
            print(f"Report and figures: {self._workdir}")
        return self.record

    def _write(self) -> None:
        self.record["wall_seconds"] = time.perf_counter() - self._started
        if processes.is_first():
            files.write_arrays(self._workdir / TASKS, self._tasks)
            files.write_json(self._workdir / FILE, self.record)


class Row(NamedTuple):
    """One method in one setting, in several reports that differ in the seed alone.

    mean, ci95: by inner step; the mean over seeds, and its half-width over the test tasks of all.
    lowest, highest: by inner step, among the seeds.
    """

    method: str
    setting: str
    metric: str
    mean: np.ndarray
    ci95: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    num_tasks: int
    num_diverged: int
    published: dict[int, float]


def read(paths: Sequence[str | Path]) -> list[Record]:
    """Return the reports in JSON files, or in the work directories of runs.

    Raises:
      ArgumentError: for a path where there is none, or none that is finished.
    """
    found = []
    for path in map(Path, paths):
        file = path / FILE if path.is_dir() else path
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ArgumentError(
                f"{file} is not the report of a run ({error}); give the work directories of runs "
                "that have finished, or their report.json."
            ) from error
        if not isinstance(record, dict) or "results" not in record:
            raise ArgumentError(f"{file} holds no results: give reports of experiments.")
        if not record.get("finished", True):
            raise ArgumentError(f"{file} is that of a run that is still testing, or was stopped.")
        found.append(_by_method(record))
    return found


def groups(records: Sequence[Record]) -> list[list[Record]]:
    """Return the reports in groups of those that differ in the seed alone.

    A value that an earlier version did not have is no difference where it is off: 0 or empty.
    """
    found: dict[str, list[Record]] = {}
    for record in records:
        values = flatten_dict(record.get("config", {}), sep=".").items()
        config = {name: value for name, value in values if value and name != "seed"}
        same = json.dumps([record["experiment"], config], sort_keys=True)
        found.setdefault(same, []).append(record)
    return list(found.values())


def rows(records: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return every method in every setting, pooled over reports of one experiment.

    Raises:
      ArgumentError: if the reports are of different experiments, or two have the same seed.
    """
    experiments = {record["experiment"] for record in records}
    seeds = [record["seed"] for record in records]
    if len(experiments) > 1 or len(set(seeds)) < len(seeds):
        raise ArgumentError(
            f"one report per seed of one experiment is expected; got experiments "
            f"{sorted(experiments)} and seeds {seeds}."
        )
    same: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        for row in record["results"]:
            same.setdefault((row["method"], row["setting"]), []).append(row)
    return [_pooled(found) for found in same.values()]


def differences(records: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the config values in which reports differ, but for the seed: one for each report.

    Their names are dotted, as on the command line. Of two that always have the same value, as a
    value has that follows another one, the first stands for both. None is a value that a config
    does not have, which is as good as off.
    """
    configs = [flatten_dict(record.get("config", {}), sep=".") for record in records]
    found: dict[str, list[Any]] = {}
    for name in dict.fromkeys(name for config in configs for name in config if name != "seed"):
        values = [_as_json(config.get(name)) for config in configs]
        told = [value or None for value in values]
        if any(value != told[0] for value in told) and values not in found.values():
            found[name] = values
    return found


def _as_json(value: Any) -> Any:
    """A value as a file gives it back: lists and tuples are the same."""
    return list(value) if isinstance(value, tuple) else value


def lines(runs: Mapping[str, Record]) -> list[dict[str, Any]]:
    """Return a line for every run, method, setting and inner step: a table for programs.

    Args:
      runs: reports by where they are, such as their work directories.
    """
    found = []
    for experiment in dict.fromkeys(record["experiment"] for record in runs.values()):
        same = {run: record for run, record in runs.items() if record["experiment"] == experiment}
        differing = differences(list(same.values()))
        for index, (run, record) in enumerate(same.items()):
            which = {"experiment": experiment, "run": run, "seed": record["seed"]}
            which |= {name: values[index] for name, values in differing.items()}
            for row in record["results"]:
                numbers = ("mean", "ci95", "std", "median")
                paper = row["paper"] or {"steps": [], "mean": []}
                published = dict(zip(paper["steps"], paper["mean"], strict=True))
                found += [
                    {
                        **which,
                        **{name: row[name] for name in ("method", "setting", "metric")},
                        "step": step,
                        **{name: row[name][at] for name in numbers if name in row},
                        "paper": published.get(step),
                        **{name: row[name] for name in ("num_tasks", "num_diverged")},
                    }
                    for at, step in enumerate(row["steps"])
                ]
    return found


def table(records: Sequence[Record]) -> Table:
    """Return the table of one report, or of several of one experiment.

    A line per method and setting: the mean over seeds, its interval, their range, the paper's. What
    differs but for the seed, as in a sweep, has columns before them.

    Raises:
      ArgumentError: if the reports are of different experiments, or two have one config and seed.
    """
    experiments = {record["experiment"] for record in records}
    if len(experiments) > 1:
        raise ArgumentError(
            f"one report per seed of one experiment is expected; got {sorted(experiments)}."
        )
    pools = groups(records)
    found = [rows(pool) for pool in pools]
    last = {len(row.mean) - 1 for pool in found for row in pool}
    shown = SHOWN_STEPS if max(last) >= 5 else range(5)
    steps = sorted(last | {step for step in shown if step <= max(last)})
    seeds = [sorted(record["seed"] for record in pool) for pool in pools]
    differing = differences([pool[0] for pool in pools])
    labels = [*_short(differing), *(["seeds"] if len(pools) > 1 else []), "method", "setting"]
    cells = []
    for index, pool in enumerate(found):
        which = [_word(values[index]) for values in differing.values()]
        if len(pools) > 1:
            which.append(" ".join(map(str, seeds[index])))
        cells += [
            [
                *(*which, row.method, row.setting),
                *(_cell(row, step, len(seeds[index]) > 1) for step in steps),
                f"{row.num_diverged}/{row.num_tasks}",
            ]
            for row in pool
        ]
    metric = " and ".join(dict.fromkeys(row.metric for pool in found for row in pool))
    several = any(len(some) > 1 for some in seeds)
    which = f"seed {seeds[0][0]}, mean" if not several else f"mean over seeds {seeds[0]}"
    which = "mean over seeds" if len(pools) > 1 else which
    spread = " (smallest to largest seed)" if several else ""
    note = f"{metric}, {which} ± 95% interval over test tasks{spread}; **the paper's**."
    names = [f"{step} step{'' if step == 1 else 's'}" for step in steps]
    return Table([*labels, *names, "diverged"], cells, note, len(labels))


def _short(names: Iterable[str]) -> list[str]:
    """The last parts of dotted names, but of those that share one, or that of another column."""
    last = {name: name.rpartition(".")[2] for name in names}
    taken = ["method", "setting", "seeds", *last.values()]
    return [short if taken.count(short) == 1 else name for name, short in last.items()]


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else "" if value is None else str(value)


def markdown(record: Record) -> str:
    """Return the report as a page: the table, then where it comes from."""
    lines = [
        f"# {record['experiment']}",
        "",
        *markdown_lines(table([record])),
        "",
        f"- command: `{record['command']}`",
        f"- seed: {record['seed']}",
        f"- tested on: {described(record['device'])}",
        f"- versions: {', '.join(f'{key} {value}' for key, value in record['versions'].items())}",
        f"- wall seconds: {record['wall_seconds']:.0f}",
        *(f"- training of {name}: {_told(value)}" for name, value in record["train"].items()),
        *(f"- {key}: {_told(value)}" for key, value in record["details"].items()),
    ]
    return "\n".join(lines) + "\n"


def _told(value: Any, inside: bool = False) -> str:
    """Nested values in one line, numbers to five digits: the JSON file has them all."""
    if isinstance(value, Mapping):
        line = ", ".join(f"{key} {_told(one, inside=True)}" for key, one in value.items())
        return f"({line})" if inside else line
    if isinstance(value, list | tuple):
        return f"[{', '.join(_told(one) for one in value)}]"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _by_method(record: Record) -> Record:
    """The record as it is written now: earlier versions had one method's training by itself."""
    train = record.get("details", {}).get("train") or record.get("train", {})
    if train and not all(isinstance(told, dict) for told in train.values()):
        train = {record["results"][0]["method"]: train}
    return {**record, "train": train, "details": record.get("details", {})}


def _pooled(same: Sequence[Record]) -> Row:
    means = np.array([_numbers(row["mean"]) for row in same])
    halves = np.array([_numbers(row["ci95"]) for row in same])
    paper = same[0]["paper"]
    return Row(
        method=same[0]["method"],
        setting=same[0]["setting"],
        metric=same[0]["metric"],
        mean=means.mean(axis=0),
        ci95=np.sqrt(np.sum(halves**2, axis=0)) / len(same),
        lowest=means.min(axis=0),
        highest=means.max(axis=0),
        num_tasks=sum(row["num_tasks"] for row in same),
        num_diverged=sum(row["num_diverged"] for row in same),
        published=dict(zip(paper["steps"], paper["mean"], strict=True)) if paper else {},
    )


def _numbers(values: Sequence[float | None]) -> np.ndarray:
    """A mean that is infinite or NaN because tasks diverged is null in the report."""
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _cell(row: Row, step: int, several: bool) -> str:
    if step >= len(row.mean):  # such as the oracle's, which takes none
        return ""
    text = f"{row.mean[step]:.3g} ± {row.ci95[step]:.2g}"
    if several:
        text += f" ({row.lowest[step]:.3g} to {row.highest[step]:.3g})"
    return f"{text} **{row.published[step]:.3g}**" if step in row.published else text


def name_of_tasks(row: Mapping[str, Any]) -> str:
    """Under which name the scores of a row's tasks are kept."""
    return f"{row['method']}: {row['setting']}"
