"""Places of a row: its work directory, and what is published of it below results/."""

import os
from pathlib import Path
from typing import NamedTuple

from configs.paper import Row

ROOT = Path(__file__).parents[2]
"""The folder of experiments, configs and results."""


class Places(NamedTuple):
    """Folders of the reproduction.

    results: what is published; outside of a checkout in the present folder.
    runs: work directories.
    data: image sets, each in a folder of its name.
    """

    results: Path = ROOT / "results" if (ROOT / "results").is_dir() else Path("results")
    runs: Path = Path("runs/paper")
    data: Path = Path("data")

    def report(self, row: Row, seed: int) -> Path:
        """Return the published report of a seed."""
        suffix = f"-seed{seed}" if len(row.seeds) > 1 else ""
        return self.results / f"{row.name}{suffix}.json"

    def weights(self, row: Row) -> Path:
        """Return the published weights that it tests, which are those of the first seed."""
        return self.results / f"{row.network or row.name}.npz"

    def unfinished(self, row: Row, seed: int) -> Path:
        """Return the packed checkpoints of a run that is not done."""
        return self.results / "unfinished" / f"{row.name.replace('/', '-')}-seed{seed}.zip"

    def workdir(self, row: Row, seed: int) -> Path:
        """Return the work directory of a seed."""
        return self.runs / f"{row.name}-seed{seed}"

    def images(self, row: Row) -> Path | None:
        """Return the folder of its images; None if it needs none."""
        return self.data / row.data if row.data else None


def words(
    row: Row, seed: int, places: Places, workdir: Path | None = None, *, test: bool = False
) -> list[str]:
    """Return the command that trains and tests a row, behind ``python``.

    Args:
      row, seed, places: which.
      workdir: another one than its own.
      test: only test the published weights.
    """
    experiment, _, variant = row.config.partition(":")
    file = os.path.relpath(ROOT / "configs" / f"{experiment}.py")
    config = f"{file}:{variant}" if variant else file
    given = ["-m", f"experiments.{experiment}", f"--config={config}"]
    given += [f"--workdir={workdir or places.workdir(row, seed)}", f"--config.seed={seed}"]
    if test or row.network:
        given += [f"--config.weights.test={os.path.relpath(places.weights(row))}"]
    elif row.patience:
        given += [f"--config.validate.patience={row.patience}"]
    images = places.images(row)
    return given if images is None else [*given, f"--config.data.dir={images}"]
