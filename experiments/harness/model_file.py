"""The file ``model.npz`` that a run leaves: what it trained, for others to test without training.

Here that of experiments with several methods, each under its name, and what all experiments share.
That of images says how photos are read, too: `mamljax.photos.save_model`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.harness.config import Config
from experiments.harness.training import Run
from mamljax import files, processes
from mamljax.checks import ArgumentError
from mamljax.models import weights
from mamljax.types import Params

FILE = "model.npz"


def given(config: Config, use: str = "test") -> Path:
    """Return the file that ``config.weights`` names for a use, ``test`` or ``start``.

    Raises:
      ArgumentError: if it is not there.
    """
    path = Path(config.weights[use])
    if not path.is_file():
        raise ArgumentError(f"config.weights.{use}: there is no file {path}.")
    return path


def about(path: Path) -> dict[str, Any]:
    """Return what a run wrote beside its weights; nothing for those of others."""
    described = weights.description_of(path) if path.suffix == ".npz" else None
    return (described or {}).get("about", {})


def imported(path: Path, training: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry of ``train`` in a report of tested weights: how they were trained, which."""
    return {**training, "imported": str(path), "sha256": files.digest(path)}


def save(workdir: Path, runs: Mapping[str, Run], **more: Any) -> None:
    """Write what methods trained, by name, and what else is worth knowing; the first process."""
    if processes.is_first():
        params = {name: run.meta_params for name, run in runs.items()}
        training = {name: run.train for name, run in runs.items()}
        weights.save(workdir / FILE, params, {"about": {"training": training, **more}})


def load(path: Path, like: Mapping[str, Params]) -> tuple[dict[str, Run], dict[str, Any]]:
    """Read what `save` wrote, and what else it was given.

    Args:
      path: of the file.
      like: the shapes of each method's parameters; others in the file are left aside.

    Raises:
      ArgumentError: for a file without one of them, or with other shapes.
    """
    params = weights.load(path, dict(like))
    more = about(path)
    training = more.pop("training", {})
    runs = {name: Run(params[name], imported(path, training.get(name, {}))) for name in like}
    return runs, more
