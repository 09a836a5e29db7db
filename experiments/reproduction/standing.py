"""Standing of the paper's rows: what is trained, what holds, what falls short."""

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs.paper import Row
from experiments.reproduction.places import Places
from mamljax import files
from mamljax.running import report
from mamljax.running.report import Record
from mamljax.running.table import Table

LOWER_IS_BETTER = ("mse",)


class Finding(NamedTuple):
    """One number of the paper, and ours.

    shortfall: by how much ours is worse than the paper's beyond both intervals; 0 if it is not.
    """

    method: str
    setting: str
    step: int
    ours: float
    half: float
    paper: float
    paper_half: float
    shortfall: float


class Standing(NamedTuple):
    """How far a row is.

    iterations: trained, by seed.
    goal: iterations of the whole training.
    findings: the paper's numbers beside ours, once there is a report.
    trained: whether every seed is trained to its goal and tested.
    """

    row: Row
    iterations: dict[int, int]
    goal: int
    findings: list[Finding]
    trained: bool

    @property
    def numbers(self) -> list[Finding]:
        """The paper's numbers: of each method and setting that after the most steps."""
        return list({(found.method, found.setting): found for found in self.findings}.values())


def standing(row: Row, places: Places) -> Standing:
    """Return how far a row is, from what is published and from its work directories."""
    goal = _goal(row)
    iterations = {
        seed: max(
            published(row, seed, places),
            _packed(places.unfinished(row, seed)),
            _checkpointed(places.workdir(row, seed)),
        )
        for seed in row.seeds
    }
    paths = [path for seed in row.seeds if (path := places.report(row, seed)).is_file()]
    found = findings(report.read(paths)) if paths else []
    trained = all(is_done(row, seed, places) for seed in row.seeds)
    return Standing(row, iterations, goal, found, trained)


def is_done(row: Row, seed: int, places: Places) -> bool:
    """Return whether the published report of a seed is that of the whole training.

    That is the row's length, or less where validation did not rise any more. A row that tests the
    network of another is done where it has tested the one that is published.
    """
    goal = _goal(row)
    runs = _published(row, seed, places)
    if row.network and places.weights(row).is_file():
        digest = files.digest(places.weights(row))
        runs = [told for told in runs if told.get("sha256") == digest]
    return bool(runs) and all(told["iterations"] >= goal or told.get("flat_for") for told in runs)


def published(row: Row, seed: int, places: Places) -> int:
    """Return the iterations behind a published report.

    They are those of the row's first method once the row is done: others may have gone flat sooner.
    Until then they are those of the method that was trained least.
    """
    counts = [told["iterations"] for told in _published(row, seed, places)]
    return counts[0] if is_done(row, seed, places) else min(counts, default=0)


def _published(row: Row, seed: int, places: Places) -> list[Mapping[str, Any]]:
    """What a published report tells of the training of each method that was trained."""
    path = places.report(row, seed)
    if not path.is_file():
        return []
    (record,) = report.read([path])
    return [told for told in record["train"].values() if told.get("iterations")]


def findings(records: Sequence[Record]) -> list[Finding]:
    """Return the paper's numbers beside ours, of reports that differ in the seed alone."""
    halves = {
        (row["method"], row["setting"]): row["paper"].get("ci95")
        for row in records[0]["results"]
        if row["paper"]
    }
    found = []
    for row in report.rows(records):
        theirs = halves.get((row.method, row.setting)) or [None] * len(row.published)
        for (step, paper), paper_half in zip(row.published.items(), theirs, strict=True):
            if step >= len(row.mean):  # fewer steps were tested than the paper tells of
                continue
            ours, half = float(row.mean[step]), float(row.ci95[step])
            worse = ours - paper if row.metric in LOWER_IS_BETTER else paper - ours
            shortfall = max(worse - half - (paper_half or 0.0), 0.0)
            shortfall = float("inf") if np.isnan(worse) else shortfall
            where = (row.method, row.setting, step)
            found.append(Finding(*where, ours, half, paper, paper_half or 0.0, shortfall))
    return found


def trainings(standings: Iterable[Standing]) -> Table:
    """Return a line for each row: how far it is trained."""
    cells = [[found.row.name, found.row.source, _state(found)] for found in standings]
    return Table(["row", "of the paper", "iterations"], cells, "", labels=3)


def numbers(standings: Iterable[Standing]) -> Table:
    """Return a line for each number of the paper: ours, the paper's, and how it stands."""
    cells = []
    for found in standings:
        for number in found.numbers:
            what = f"{number.method}, after {number.step} step{'' if number.step == 1 else 's'}"
            ours = f"{number.ours:.3g} ± {number.half:.2g}"
            ours = "diverged" if np.isnan(number.ours) else ours
            half = f" ± {number.paper_half:.2g}" if number.paper_half else ""
            told = [ours, f"{number.paper:.3g}{half}", _verdict(number)]
            cells.append([found.row.name, what, *told])
    return Table(["row", "number", "ours", "paper", "stands"], cells, "")


def summary(standings: Sequence[Standing]) -> str:
    """Return in a line for each kind of experiment how many numbers are trained and hold."""
    lines = []
    for kind in dict.fromkeys(found.row.name.partition("/")[0] for found in standings):
        rows = [found for found in standings if found.row.name.startswith(f"{kind}/")]
        numbers = [number for found in rows if found.trained for number in found.numbers]
        held = sum(number.shortfall == 0 for number in numbers)
        lines.append(
            f"{kind}: {sum(found.trained for found in rows)} of {len(rows)} runs are trained to "
            f"their length; {held} of their {len(numbers)} published numbers lie within the "
            "intervals, or ours is better."
        )
    return "\n".join(lines)


def _verdict(number: Finding) -> str:
    if number.shortfall == float("inf"):
        return "short"
    if number.shortfall:
        return f"short by {number.shortfall:.2g}"
    apart = abs(number.ours - number.paper)
    return "within the intervals" if apart <= number.half + number.paper_half else "better"


def _state(found: Standing) -> str:
    seeds = f", {len(found.row.seeds)} seeds" if len(found.row.seeds) > 1 else ""
    if found.trained:
        longest, shortest = max(found.iterations.values()), min(found.iterations.values())
        count = f"{shortest:,}" if shortest == longest else f"{shortest:,} to {longest:,}"
        network = f", of {found.row.network}" if found.row.network else ""
        return f"{count}{', flat' if shortest < found.goal else ''}{seeds}{network}"
    done = sum(found.iterations.values())
    if not done:
        return "not begun"
    return f"{done / (found.goal * len(found.row.seeds)):.0%}{seeds}"


def config_of(row: Row) -> Any:
    """Return the config of a row."""
    experiment, _, variant = row.config.partition(":")
    return import_module(f"configs.{experiment}").get_config(*filter(None, [variant]))


def _goal(row: Row) -> int:
    return config_of(row).train.num_iterations


def _checkpointed(workdir: Path) -> int:
    """Iterations of the run that got least far, of those that have begun."""
    runs = [path for path in (workdir / "checkpoints").glob("*") if path.is_dir()]
    steps = [max(map(_step, run.glob("[0-9]*")), default=0) for run in runs]
    return min(steps, default=0)


def _packed(path: Path) -> int:
    """The same, of packed checkpoints."""
    if not path.is_file():
        return 0
    runs: dict[str, int] = {}
    with zipfile.ZipFile(path) as packed:
        for name in packed.namelist():
            parts = Path(name).parts
            if len(parts) > 3 and parts[0] == "checkpoints":
                runs[parts[1]] = max(runs.get(parts[1], 0), int(parts[2]))
    return min(runs.values(), default=0)


def _step(path: Path) -> int:
    return int(path.name)


def hours_trained(row: Row, workdir: Path) -> float:
    """Return how long two CPU cores take for what its checkpoints hold, about."""
    return row.hours * _checkpointed(workdir) / _goal(row)
