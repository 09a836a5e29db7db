"""Checkpoints that survive kills, full disks and damage.

A checkpoint is a directory ``00001000/`` holding the state as orbax wrote it, and a file
``checkpoint.json`` with the step, the score, the run's config, the SHA-256 of every file and its
own. It is made under another name and renamed when complete, so that it exists whole or not at all;
what damages it later shows in the checksums, and the one before it is used; if there is none, a
person decides. Of several processes the first writes and reads for all.
"""

import dataclasses
import json
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from flax.traverse_util import empty_node, flatten_dict

from mamljax import checks, files, processes
from mamljax.checks import ArgumentError
from mamljax.train import Call, Hook
from mamljax.types import TrainState

RECORD = "checkpoint.json"


class ConfigChangedError(ArgumentError):
    """The saved run had another configuration than the one that wants to resume it."""


class DamagedCheckpointWarning(UserWarning):
    """A checkpoint was incomplete or altered and has been passed over."""


class DamagedCheckpointError(ArgumentError):
    """Every checkpoint of a run is incomplete or altered."""


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run.

    Attributes:
      directory: where they live; made when the first one is saved.
      config: what the state depends on; a run with another config is refused.
      keep_last: how many of the newest are kept.
      keep_best: how many of those with the lowest score are kept besides.
    """

    directory: Path
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    keep_last: int = 2
    keep_best: int = 1

    def __post_init__(self) -> None:
        checks.at_least("keep_last", self.keep_last, 1)
        checks.at_least("keep_best", self.keep_best, 0)
        object.__setattr__(self, "directory", Path(self.directory).absolute())

    def steps(self) -> list[int]:
        """The steps of all checkpoints present, good or damaged, in ascending order."""
        return sorted(int(path.name) for path in self.directory.glob("[0-9]*"))

    def save(
        self,
        state: TrainState,
        score: float | None = None,
        totals: Mapping[str, float] = MappingProxyType({}),
    ) -> Path:
        """Write a checkpoint of `state`, then remove those that are no longer to be kept.

        Args:
          state: the training state; its step names the checkpoint.
          score: lower is better; None never counts as best.
          totals: what the run has added up so far, such as seconds, for `totals` to hand back.

        Returns:
          The folder of the checkpoint.

        Raises:
          OSError: when the disk is full, say. Every earlier checkpoint is untouched.
        """
        state = processes.here(state)
        processes.by_first(lambda: self._save(state, score, totals))
        return self._path(int(state.step))

    def totals(self, step: int) -> dict[str, float]:
        """Return what the checkpoint of a step was told to keep; nothing if there is none."""
        record = _read_record(self._path(step)) or {}
        return record.get("totals", {})

    def since_best(self) -> int:
        """Return the steps from the checkpoint with the lowest score to the newest with a score.

        It is 0 if none has one. What ends a run that no longer gets better needs no more than this.
        """

        def read() -> int:
            scored = list(filter(_scored, self._records()))
            return scored[-1]["step"] - min(scored, key=_best_first)["step"] if scored else 0

        return int(processes.from_first(processes.by_first(read) or 0))

    def _save(self, state: TrainState, score: float | None, totals: Mapping[str, float]) -> None:
        step = int(state.step)
        target = self._path(step)
        staging = self.directory / f".saving-{target.name}"
        retired = self.directory / f".replaced-{target.name}"
        shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(retired, ignore_errors=True)
        try:
            # Orbax meets a full disk in threads of its own, which then print tracebacks.
            files.ask_for_room(staging, sum(np.asarray(x).nbytes for x in jax.tree.leaves(state)))
            _orbax().save(staging / "state", state)
            record = {
                "step": step,
                "score": None if score is None else float(score),
                "totals": {name: float(total) for name, total in totals.items()},
                "config": _plain(self.config),
                "leaves": _leaves(state),
                "files": _checksums(staging),
            }
            files.write_json(staging / RECORD, files.sealed(record))
            if target.exists():  # a damaged one, or one of a run that was resumed from before it
                target.rename(retired)
            staging.rename(target)
        except Exception as error:
            shutil.rmtree(staging, ignore_errors=True)
            error.add_note(f"The checkpoint of step {step} was not written in {self.directory}.")
            raise
        shutil.rmtree(retired, ignore_errors=True)
        self._prune()

    def restore(self, like: TrainState, *, best: bool = False) -> TrainState | None:
        """The newest good state, or the one with the lowest score; None if there is none.

        Args:
          like: a state of the same structure, shapes and dtypes, such as the initial one.
          best: choose by score instead of by step.

        Warns:
          DamagedCheckpointWarning: naming each damaged checkpoint that was passed over.

        Raises:
          DamagedCheckpointError: if there are checkpoints and none is good. To begin anew would
            overwrite what may yet be mended, and the run's metrics.
          ConfigChangedError: naming the fields in which the saved config differs.
          ArgumentError: naming the arrays whose shapes or types are not those of `like`.
        """
        like = processes.here(like)
        found = processes.by_first(lambda: self._restore(like, best))
        if processes.from_first(found is None):
            return None
        return jax.tree.map(_as_free, processes.from_first(found or like), like)

    def _restore(self, like: TrainState, best: bool) -> TrainState | None:
        records = self._good_records()
        if best:
            records = sorted(filter(_scored, records), key=_best_first) or records
        if not records:
            if damaged := self.steps():
                raise DamagedCheckpointError(
                    f"every checkpoint in {self.directory} is damaged: {damaged}. Put a good copy "
                    "of one there, or move the directory away to train from the start."
                )
            return None
        record = records[0]
        _refuse_changes(record["config"], _plain(self.config), self._path(record["step"]))
        _refuse_other_leaves(record, _leaves(like), self._path(record["step"]))
        abstract = jax.tree.map(_abstract, like)
        return _orbax().restore(self._path(record["step"]) / "state", abstract)

    def _path(self, step: int) -> Path:
        return self.directory / f"{step:08d}"

    def _records(self) -> list[dict[str, Any]]:
        """The records that can be read, oldest first."""
        return [record for step in self.steps() if (record := _read_record(self._path(step)))]

    def _good_records(self) -> list[dict[str, Any]]:
        """The records of all undamaged checkpoints, newest first; a warning for every other."""
        records = []
        for step in reversed(self.steps()):
            record, problem = _inspect(self._path(step))
            if problem:
                warnings.warn(
                    f"checkpoint {self._path(step)} is damaged ({problem}) and is passed over; "
                    "an earlier one is used if there is one.",
                    DamagedCheckpointWarning,
                    stacklevel=3,
                )
            else:
                records.append(record)
        return records

    def _prune(self) -> None:
        """Remove all but the last and the best; what cannot be read is left for a person to see."""
        records = self._records()
        best = sorted(filter(_scored, records), key=_best_first)
        kept = [r["step"] for r in records[-self.keep_last :] + best[: self.keep_best]]
        for record in records:
            if record["step"] not in kept:
                # Renamed first: a kill in mid-removal must not leave half a checkpoint behind.
                retired = self.directory / f".replaced-{record['step']:08d}"
                self._path(record["step"]).rename(retired)
                shutil.rmtree(retired, ignore_errors=True)


def checkpoint_hook(
    checkpoints: Checkpoints,
    every: int,
    score: Callable[[Call], float] = lambda call: float(np.mean(call.metrics.loss)),
    totals: Callable[[], Mapping[str, float]] = dict,
) -> Hook:
    """Save after each call that reaches or passes a multiple of `every`, and at the end.

    Args:
      checkpoints: where to save.
      every: meta-iterations between checkpoints.
      score: what "best" means, lower is better; by default the mean meta-loss of the call.
      totals: what is kept with each checkpoint, see `Checkpoints.save`.
    """
    checks.at_least("every", every, 1)

    def hook(call: Call) -> None:
        if call.is_due(every):
            checkpoints.save(call.state, score(call), totals())

    return hook


def _orbax():
    import orbax.checkpoint as ocp  # imported when needed: it takes most of a second

    alone = ocp.options.MultiprocessingOptions(
        primary_host=0,
        active_processes={0} if processes.several() else None,
        barrier_sync_key_prefix="first" if processes.several() else None,
    )
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    array = jax.numpy.asarray(leaf)
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=array.sharding)


def _as_free(found: Any, leaf: Any) -> jax.Array:
    """Return what was read, bound to devices only if `leaf` is.

    Orbax binds what it reads to the device of `leaf`. A step over several devices refuses such an
    array, where it takes one that nobody placed.
    """
    bound = isinstance(leaf, jax.Array) and leaf.committed
    return found if bound else jax.device_put(np.asarray(found))


def _checksums(directory: Path) -> dict[str, str]:
    paths = sorted(p for p in directory.rglob("*") if p.is_file() and p.name != RECORD)
    return {str(path.relative_to(directory)): files.digest(path) for path in paths}


def _read_record(directory: Path) -> dict[str, Any] | None:
    try:
        record = files.unsealed((directory / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if record["step"] == int(directory.name) else None


def _inspect(directory: Path) -> tuple[dict[str, Any], str]:
    """The record of a checkpoint and what is wrong with it, empty if nothing is."""
    record = _read_record(directory)
    if record is None:
        return {}, f"{RECORD} is missing or unreadable"
    found = _checksums(directory)
    for name, checksum in record["files"].items():
        if name not in found:
            return record, f"{name} is missing"
        if found[name] != checksum:
            return record, f"{name} has been altered"
    return record, ""


def _scored(record: dict[str, Any]) -> bool:
    return record["score"] is not None


def _best_first(record: dict[str, Any]) -> tuple[float, int]:
    return record["score"], -record["step"]


def _plain(config: Mapping[str, Any]) -> Any:
    """The config as JSON gives it back, so that tuples equal lists."""
    return json.loads(json.dumps(config, default=str))


def _refuse_changes(saved: Any, current: Any, where: Path) -> None:
    before, now = _by_name(saved), _by_name(current)
    absent = "(absent)"
    changes = [
        f"  {name}: saved {before.get(name, absent)!r}, now {now.get(name, absent)!r}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name, absent) != now.get(name, absent)
    ]
    if changes:
        raise ConfigChangedError(
            f"{where} was saved by a run with another configuration:\n"
            + "\n".join(changes)
            + "\nUse the saved values to resume, or another working directory for a new run."
        )


def _by_name(config: dict[str, Any]) -> dict[str, Any]:
    """The values of a nested config by dotted name; a section may be empty."""
    found = flatten_dict(config, sep=".", keep_empty_nodes=True)
    return {name: {} if value is empty_node else value for name, value in found.items()}


def _leaves(state: TrainState) -> dict[str, str]:
    """The type and the shape of every array, by where it is."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{x.dtype} {list(x.shape)}"
        for path, x in jax.tree_util.tree_leaves_with_path(jax.tree.map(jax.numpy.asarray, state))
    }


def _refuse_other_leaves(record: dict[str, Any], wanted: dict[str, str], where: Path) -> None:
    # Before orbax tries: it reads at once whatever fits, and leaves tracebacks of the rest.
    saved = record.get("leaves", wanted)  # absent from records of the first versions
    changes = [
        f"  {name}: saved {saved.get(name, 'nothing')}, now {wanted.get(name, 'nothing')}"
        for name in sorted(saved.keys() | wanted.keys())
        if saved.get(name) != wanted.get(name)
    ]
    if changes:
        raise ArgumentError(
            f"{where} holds a state of another shape than `like`:\n"
            + "\n".join(changes)
            + "\nRestore with the model and the optimizer of the saved run; into another network "
            "take what fits from its meta-parameters (mamljax.models.weights)."
        )
