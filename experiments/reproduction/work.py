"""Work on a row: train it for a while, keep what is unfinished, publish and verify what is done."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from configs.paper import Row
from experiments.harness import endings, model_file
from experiments.reproduction.places import ROOT, Places, words
from experiments.reproduction.standing import hours_trained
from mamljax import files
from mamljax.running import report

LOG = "log.txt"
"""File in a work directory that has what training says."""

GRACE_SECONDS = 600
"""Time for the checkpoint, after training was asked to stop."""

WORTH_KEEPING_HOURS = 1.0
"""Training that is worth packing, by the time that two CPU cores take for it: a GPU does it in
minutes, and is not there again tomorrow."""

FIGURES = {
    **{f"{name}.png": f"{name}.png" for name in ("training", "accuracy", "returns", "paths")},
    "training_maml.png": "training.png",  # in reinforcement learning every method has its own
    **{f"figure{number}.png": f"figure{number}.png" for number in (2, 3, 6, 7)},
    "maml.html": "maml.html",  # plays a robot's episodes
}
"""Figures of a run that are published, and the names that they then have behind their row's."""


class Verified(NamedTuple):
    """The published number of a row, half its interval, and that of its weights tested again."""

    row: Row
    published: float
    half: float
    again: float

    @property
    def holds(self) -> bool:
        """Whether they agree: other machines round otherwise, a task or two may flip."""
        return abs(self.published - self.again) <= max(2e-3, self.half / 10)


class Job:
    """Training of a row in a process of its own: begun, or going on where it stopped.

    Args:
      row, seed: what to train.
      places: where.
      nice: the niceness of the process, unless that of this one is higher.
      memory: how a GPU's is taken: "all" at once, or as "needed" where rows share it.
    """

    def __init__(self, row: Row, seed: int, places: Places, nice: int, memory: str = "all") -> None:
        self.row, self.seed = row, seed
        self._log = places.workdir(row, seed) / LOG
        self._asked: float | None = None
        unpack(row, seed, places)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("a", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [sys.executable, *words(row, seed, places)],
                env=_environment(memory),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        _give_way(self._process.pid, nice)

    @property
    def name(self) -> str:
        """The row and the seed, in words."""
        return f"{self.row.name}, seed {self.seed}"

    def finished(self) -> bool | None:
        """Return whether it is trained and tested; None while it runs.

        Raises:
          RuntimeError: if it has ended with an error, with the last line of what it said.
          KeyboardInterrupt: if somebody else has stopped it.
        """
        status = self._process.poll()
        if status is None:
            if self._asked and time.monotonic() > self._asked + GRACE_SECONDS:
                self._process.kill()
            return None
        if status == 0 or self._asked:
            return status == 0
        if status == endings.EXIT_STATUS:
            raise KeyboardInterrupt  # by somebody who does not want the next row instead
        last = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(f"training ended with an error, see {self._log}: {' '.join(last)}")

    def stop(self) -> None:
        """Ask it to end with a checkpoint, once."""
        if self._asked is None:
            self._asked = time.monotonic()
            self._process.terminate()  # SIGINT is ignored by what runs in the background

    def wait(self) -> None:
        """Return when it has ended."""
        self._process.wait()


def _give_way(pid: int, nice: int) -> None:
    """Let a process give way to all others, on Linux also to those of other sessions.

    It shares time among sessions first, whatever the niceness within them (sched_autogroup).
    """
    with contextlib.suppress(OSError):
        nice = max(nice, os.getpriority(os.PRIO_PROCESS, 0))
        os.setpriority(os.PRIO_PROCESS, pid, nice)
        Path(f"/proc/{pid}/autogroup").write_text(str(nice), encoding="utf-8")


def _environment(memory: str = "all") -> dict[str, str]:
    """The environment, where experiments and configs are found from any folder."""
    paths = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    shared = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} if memory == "needed" else {}
    return shared | os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def pack(row: Row, seed: int, places: Places) -> Path | None:
    """Pack the checkpoints of an unfinished run that is worth it; return the file."""
    workdir, target = places.workdir(row, seed), places.unfinished(row, seed)
    if hours_trained(row, workdir) < WORTH_KEEPING_HOURS:
        return None
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        files.staged(target) as staging,
        zipfile.ZipFile(staging, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed,
    ):
        for path in sorted(workdir.rglob("*")):
            kept = path.relative_to(workdir)
            if path.is_file() and (kept.parts[0] == "checkpoints" or kept.name == "metrics.jsonl"):
                packed.write(path, kept)
    return target


def unpack(row: Row, seed: int, places: Places) -> None:
    """Lay out packed checkpoints where the work directory has none."""
    workdir, source = places.workdir(row, seed), places.unfinished(row, seed)
    if source.is_file() and not (workdir / "checkpoints").exists():
        workdir.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(source) as packed:
            packed.extractall(workdir)


def publish(row: Row, seed: int, places: Places) -> None:
    """Copy the report, and of the first seed figures and weights, to the results."""
    workdir, target = places.workdir(row, seed), places.report(row, seed)
    target.parent.mkdir(parents=True, exist_ok=True)
    record = json.loads((workdir / report.FILE).read_text(encoding="utf-8"))
    files.write_json(target, record)
    if seed == row.seeds[0]:
        for name, published in FIGURES.items():
            figure = workdir / "figures" / name
            if figure.is_file():
                shutil.copyfile(figure, places.results / f"{row.name}_{published}")
        if (workdir / model_file.FILE).is_file() and not row.network:
            shutil.copyfile(workdir / model_file.FILE, places.weights(row))
    places.unfinished(row, seed).unlink(missing_ok=True)


def verify(row: Row, places: Places, told: Callable[[str], None]) -> Verified | None:
    """Test the published weights of a row again; None if it has none, or no report of them.

    Args:
      row: which.
      places: where.
      told: is given a line about what is done.
    """
    weights, seed = places.weights(row), row.seeds[0]
    if not weights.is_file() or not places.report(row, seed).is_file():
        return None
    told(f"{row.name}: testing {weights.name}")
    with tempfile.TemporaryDirectory() as workdir:
        done = subprocess.run(
            [sys.executable, *words(row, seed, places, Path(workdir), test=True)],
            env=_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{row.name}: {done.stderr.strip().splitlines()[-1]}")
        (again,) = report.read([workdir])
    (published,) = report.read([places.report(row, seed)])
    first, second = (record["results"][0] for record in (published, again))
    return Verified(row, first["mean"][-1], first["ci95"][-1], second["mean"][-1])
