"""Two runs compared on the same tasks, task by task."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mamljax.checks import ArgumentError
from mamljax.evaluate import summarise
from mamljax.running.report import TASKS, Record, name_of_tasks, read
from mamljax.running.table import Table


def paired(first: Path, second: Path) -> Table:
    """Return the differences of two runs' scores, first minus second, task by task.

    Methods of one name are compared; where there are none, the one with the other.

    Args:
      first, second: work directories of runs, which hold their ``tasks.npz``.

    Raises:
      ArgumentError: if a run has no scores by task, or the two were not tested on the same tasks.
    """
    records = read([first, second])
    _check_same_tasks(records)
    scores = [_read_tasks(Path(path)) for path in (first, second)]
    cells, longest = [], 0
    for row, other in _partners(*(record["results"] for record in records)):
        a, b = scores[0][name_of_tasks(row)], scores[1][name_of_tasks(other)]
        steps = min(a.shape[1], b.shape[1])
        difference = a[:, :steps] - b[:, :steps]
        found = summarise(difference, difference)
        name = row["method"]
        name = name if name == other["method"] else f"{name} - {other['method']}"
        means = zip(found.mean, found.ci95, strict=True)
        cells.append([name, row["setting"], *(f"{mean:+.3g} ± {half:.2g}" for mean, half in means)])
        longest = max(longest, steps)
    header = ["method", "setting", *(f"{s} step{'' if s == 1 else 's'}" for s in range(longest))]
    cells = [line + [""] * (len(header) - len(line)) for line in cells]
    return Table(header, cells, f"{first} minus {second}, the same tasks paired, ± 95% interval.")


def _read_tasks(workdir: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(workdir / TASKS) as found:
            return dict(found)
    except (OSError, ValueError) as error:
        raise ArgumentError(
            f"{workdir} has no {TASKS}, the scores by task ({error}): give the work directory of a "
            "run, and give its command again if an earlier version tested it."
        ) from error


def _check_same_tasks(records: Sequence[Record]) -> None:
    def drawn(record: Record) -> Any:
        config = record["config"]
        sections = ("task", "data", "env")
        tested = {
            name: value
            for name, value in config.get("evaluate", {}).items()
            if name in ("num_tasks", "split", "queries", "shots", "episodes")
        }
        sources = {
            name: {key: x for key, x in config[name].items() if key not in ("dir", "cache")}
            for name in sections
            if name in config
        }
        return record["experiment"], record["seed"], tested, sources

    first, second = map(drawn, records)
    if first != second:
        raise ArgumentError(
            f"the two runs were not tested on the same tasks: {first} and {second}. Experiment, "
            "seed, tasks and their number have to agree."
        )


def _partners(first: Sequence[Record], second: Sequence[Record]) -> list[tuple[Record, Record]]:
    """The rows to compare: of one setting, and of one method if there are such."""
    same = [(a, b) for a in first for b in second if a["setting"] == b["setting"]]
    equal = [(a, b) for a, b in same if a["method"] == b["method"]]
    found = equal or same
    if not found:
        raise ArgumentError("the two runs have no setting in common.")
    return found
