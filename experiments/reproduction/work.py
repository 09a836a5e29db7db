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
from experiments.reproduction.standing import seconds_trained
from mamljax import files
from mamljax.running import report

LOG = "log.txt"
"""File in a work directory that has what training says."""

GRACE_SECONDS = 600
"""Time for the checkpoint, after training was asked to stop."""

WORTH_KEEPING_SECONDS = 3600
"""Training that is worth packing."""

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


def train(row: Row, seed: int, places: Places, deadline: float, nice: int) -> bool:
    """Train and test a row, or go on; return whether it is done before the deadline.

    Args:
      row, seed: what to train.
      places: where.
      deadline: of `time.monotonic`, when training is asked to end with a checkpoint.
      nice: the niceness of the process, unless that of this one is higher.

    Raises:
      RuntimeError: if training ends with an error, with the last line of what it said.
      KeyboardInterrupt: if somebody has stopped it, or this process.
    """
    workdir = places.workdir(row, seed)
    unpack(row, seed, places)
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / LOG).open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, *words(row, seed, places)],
            env=_environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        _give_way(process.pid, nice)
        return _finished(process, deadline, workdir / LOG)


def _give_way(pid: int, nice: int) -> None:
    """Let a process give way to all others, on Linux also to those of other sessions.

    It shares time among sessions first, whatever the niceness within them (sched_autogroup).
    """
    with contextlib.suppress(OSError):
        nice = max(nice, os.getpriority(os.PRIO_PROCESS, 0))
        os.setpriority(os.PRIO_PROCESS, pid, nice)
        Path(f"/proc/{pid}/autogroup").write_text(str(nice), encoding="utf-8")


def _environment() -> dict[str, str]:
    """The environment, where experiments and configs are found from any folder."""
    paths = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def _finished(process: subprocess.Popen, deadline: float, log: Path) -> bool:
    asked = False
    try:
        while process.poll() is None:
            if not asked and time.monotonic() > deadline:
                process.terminate()  # SIGINT is ignored by what runs in the background
                asked, deadline = True, time.monotonic() + GRACE_SECONDS
            elif asked and time.monotonic() > deadline:
                process.kill()
            time.sleep(0.5)
    except KeyboardInterrupt:  # which the process, in a session of its own, has not seen
        process.terminate()
        process.wait()
        raise
    if process.returncode == endings.EXIT_STATUS and not asked:
        raise KeyboardInterrupt  # by somebody else, who does not want the next row instead
    if process.returncode and not asked:
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(f"training ended with an error, see {log}: {' '.join(last)}")
    return process.returncode == 0


def pack(row: Row, seed: int, places: Places) -> Path | None:
    """Pack the checkpoints of an unfinished run that has an hour in it; return the file."""
    workdir, target = places.workdir(row, seed), places.unfinished(row, seed)
    if seconds_trained(workdir) < WORTH_KEEPING_SECONDS:
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
