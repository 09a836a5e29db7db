"""Training metrics as JSON lines, as CSV, and as TensorBoard events."""

import contextlib
import csv
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from mamljax import checks, files, processes
from mamljax.evaluate import Scores
from mamljax.train import Call, Hook
from mamljax.types import Params

FILE, CSV_FILE = "metrics.jsonl", "metrics.csv"

Series = tuple[Sequence[float], Sequence[float]]
"""Meta-iterations, and a number at each."""


class MetricLogger:
    """Appends to ``metrics.jsonl`` and to TensorBoard events in a work directory; a fit hook.

    Each line is ``{"run", "step", "loss", "grad_norm", "iterations_per_second",
    "tasks_per_second"}`` and what `meta_step` was told to add, the means over one call of the
    compiled loop, and a checksum, which `read` takes off. When a run resumes at a step, what an
    earlier process logged beyond it is dropped first, so that no step appears twice. Of several
    processes only the first writes. When it is closed it also leaves ``metrics.csv``, a line per
    run and step, for spreadsheets and data frames.

    Args:
      workdir: where to write; several runs share one file.
      run: the name of this run, such as ``maml``.
      resume_step: the meta-iterations already done.
    """

    def __init__(self, workdir: Path, run: str, resume_step: int = 0) -> None:
        checks.require("tensorboardX", "MetricLogger")
        from tensorboardX import SummaryWriter  # not needed to import the library

        self.run = run
        self.path = Path(workdir) / FILE
        first = processes.is_first()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if first:
            kept = [r for r in read(self.path) if r["run"] != run or r["step"] <= resume_step]
            files.write_text(self.path, "".join(map(_line, kept)))
        self._file = (self.path if first else Path(os.devnull)).open("a", encoding="utf-8")
        self._events = SummaryWriter(
            str(self.path.parent / "tensorboard" / run),
            purge_step=resume_step + 1,
            write_to_disk=first,
        )

    def write(self, step: int, **values: float) -> None:
        """Log named numbers at a step; a number that is not finite is written as null."""
        numbers = {key: float(value) for key, value in values.items()}
        self._file.write(_line({"run": self.run, "step": step, **numbers}))
        self._file.flush()
        for key, value in values.items():
            self._events.add_scalar(key, value, step)

    def write_scores(self, step: int, name: str, scores: Scores) -> None:
        """Log the mean score after every inner step, as ``<name>_step_0`` and so on.

        Of what `Scores.info` has the means are logged as ``<name>_<what>_step_0``.
        """
        means = {name: scores.mean}
        means |= {f"{name}_{what}": np.mean(x, axis=0) for what, x in scores.info.items()}
        self.write(
            step,
            **{
                _score_name(what, inner_step): float(x)
                for what, series in means.items()
                for inner_step, x in enumerate(series)
            },
        )

    def __call__(self, call: Call) -> None:
        """Log one call of the compiled loop."""
        self.write(
            call.step,
            loss=float(np.mean(call.metrics.loss)),
            grad_norm=float(np.mean(call.metrics.grad_norm)),
            iterations_per_second=call.iterations_per_second,
            tasks_per_second=call.iterations_per_second * call.meta_batch,
            **{name: float(np.mean(x)) for name, x in call.metrics.info.items()},
        )

    def __enter__(self) -> "MetricLogger":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # The error that ends a run, such as that of a full disk, is not to be hidden by its sequel.
        with contextlib.suppress(*() if error is None else (OSError,)):
            self._file.close()
            self._events.close()
            if processes.is_first():
                files.write_text(self.path.with_name(CSV_FILE), as_csv(read(self.path)))


def evaluation_hook(
    test: Callable[[Params], Scores], every: int, logger: MetricLogger, name: str = "test"
) -> Hook:
    """Evaluate as training goes on, and log the mean score after every inner step.

    Args:
      test: from meta-parameters to a `Scores`, such as `evaluate` with all else filled in.
      every: meta-iterations between evaluations; the last one is always followed by one.
      logger: where the scores go, as ``<name>_step_0`` and so on.
      name: what the scores are called.
    """
    checks.at_least("every", every, 1)

    def hook(call: Call) -> None:
        if call.is_due(every):
            logger.write_scores(call.step, name, test(call.state.meta_params))

    return hook


def over_training(records: Sequence[Mapping[str, Any]], name: str) -> Series:
    """Return the meta-iterations at which a number was logged, and the numbers.

    Args:
      records: of one run, from `read`.
      name: of the number, such as ``loss``.
    """
    found = [(record["step"], record[name]) for record in records if record.get(name) is not None]
    return [step for step, _ in found], [value for _, value in found]


def scores_over_training(records: Sequence[Mapping[str, Any]], name: str) -> dict[str, Series]:
    """Return what `MetricLogger.write_scores` has logged under a name, after each inner step."""
    found: dict[str, Series] = {}
    while (series := over_training(records, _score_name(name, len(found))))[0]:
        found[f"{name}, {len(found)} step{'' if len(found) == 1 else 's'}"] = series
    return found


def _score_name(name: str, inner_step: int) -> str:
    return f"{name}_step_{inner_step}"


def read(path: Path, run: str | None = None) -> list[dict[str, Any]]:
    """Return the records of a metrics file, of one run if its name is given.

    Lines that damage made unreadable, or that a kill cut off, are left out.
    """
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            records.append(files.unsealed(line))
    return [record for record in records if run in (None, record["run"])]


def as_csv(records: Sequence[Mapping[str, Any]]) -> str:
    """Return records as a table: what was logged of a run at one step is one line."""
    lines: dict[tuple[str, int], dict[str, Any]] = {}
    for record in records:
        lines.setdefault((record["run"], record["step"]), {}).update(record)
    text = io.StringIO()
    names = dict.fromkeys(name for record in records for name in record)
    writer = csv.DictWriter(text, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines.values())
    return text.getvalue()


def _line(record: dict[str, Any]) -> str:
    return json.dumps(files.sealed(record)) + "\n"
