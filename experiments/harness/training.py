"""One training run with everything around it: resume, progress, metrics, checkpoints."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from experiments.harness import endings
from experiments.harness.config import Config
from mamljax import processes
from mamljax.checks import ArgumentError
from mamljax.evaluate import Scores
from mamljax.meta import init_state, meta_step
from mamljax.running.checkpoint import Checkpoints, checkpoint_hook
from mamljax.running.metrics import MetricLogger
from mamljax.running.progress import training_progress
from mamljax.running.provenance import described, device
from mamljax.train import Call, fit
from mamljax.types import Learner, Params, PyTree, Sampler, StepFn, TrainState

VALIDATION = "validation"
"""Name of the validation scores in the metrics."""


class Training(NamedTuple):
    """A training run: what is trained, and how.

    name: of the run, in logs and as the folder of its checkpoints.
    learner: what is trained.
    sampler: draws training tasks.
    tx: the outer optimizer.
    num_iterations: meta-iterations in all.
    meta_batch: tasks per meta-iteration.
    depends_on: the config values that the run depends on; a change refuses to resume.
    validate: the accuracy or return on validation tasks. Every checkpoint is scored by it (after
      the last inner step), and the best one is tested instead of the last.
    patience: meta-iterations without a better validation score after which the run is over; 0 for
      none but `num_iterations`.
    step_fn: one meta-update by `tx`; None takes the plain `meta_step`.
    example: inputs to initialise with; None takes those of the sampler.
    task_chunk, mesh: of the drawing of tasks, see `sample_tasks`.
    shown: names in ``Metrics.info`` that progress shows.
    totals: names in ``Metrics.info`` that are added up over the run.
    """

    name: str
    learner: Learner
    sampler: Sampler
    tx: optax.GradientTransformation
    num_iterations: int
    meta_batch: int
    depends_on: Mapping[str, Any]
    validate: Callable[[Params], Scores] | None = None
    patience: int = 0
    step_fn: StepFn | None = None
    example: PyTree = None
    task_chunk: int | None = None
    mesh: Mesh | None = None
    shown: Sequence[str] = ()
    totals: Sequence[str] = ()


class Run(NamedTuple):
    """The meta-parameters to be tested, and the run's entry of ``train`` in the report."""

    meta_params: Params
    train: dict[str, Any]


ON_DEVICE = "iterations on "
"""What the totals of iterations by device begin with, before the device and version in words."""


class Tally:
    """Totals of a run: iterations, in all and by device, seconds, chosen metrics; a hook of `fit`.

    Checkpoints keep the totals, so that a run that was stopped goes on counting.

    Args:
      before: the totals of earlier processes.
      names: of the metrics, in ``Metrics.info``.
    """

    def __init__(self, before: Mapping[str, float], names: Sequence[str]) -> None:
        self._names = names
        self._counts = {"iterations": 0.0, "busy_seconds": 0.0} | dict.fromkeys(names, 0.0)
        self._counts |= {
            name: total
            for name, total in before.items()
            if name in self._counts or name.startswith(ON_DEVICE)
        }
        self._here = f"{ON_DEVICE}{described(device())} with jax {jax.__version__}"
        self._wall_seconds = before.get("wall_seconds", 0.0)
        self._started = time.perf_counter()
        self.compile_seconds: float | None = None

    def __call__(self, call: Call) -> None:
        """Add one call of the compiled loop."""
        self.compile_seconds = call.compile_seconds
        done = len(call.metrics.loss)
        self._counts["iterations"] += done
        self._counts[self._here] = self._counts.get(self._here, 0.0) + done
        self._counts["busy_seconds"] += call.seconds
        for name in self._names:
            self._counts[name] += float(np.sum(call.metrics.info[name]))

    def totals(self) -> dict[str, float]:
        """Return all that was added up, and the seconds that have passed while training."""
        passed = time.perf_counter() - self._started
        return self._counts | {"wall_seconds": self._wall_seconds + passed}


def train(what: Training, key: jax.Array, log: Config, workdir: Path) -> Run:
    """Meta-train, or go on where an earlier process stopped.

    Args:
      what: is trained, and how.
      key: of the whole run: initial parameters and every draw.
      log: ``every`` and ``checkpoint_every``, in meta-iterations.
      workdir: of the experiment.

    Raises:
      Interrupted: after a checkpoint, when asked to stop.
      ArgumentError: if it has been trained for longer than it should be.
    """
    init_key, fit_key = jax.random.split(key)
    checkpoints = Checkpoints(workdir / "checkpoints" / what.name, config=what.depends_on)
    state = _initial(what, init_key)
    state = checkpoints.restore(state) or state
    tally = Tally(checkpoints.totals(int(state.step)), what.totals)
    done = int(state.step)
    if done > what.num_iterations:  # its report would tell of a training that it has not had
        raise ArgumentError(
            f"{what.name} in {workdir} has been trained for {done:,} iterations, and the config "
            f"asks for {what.num_iterations:,}. Give another --workdir for a shorter run, or "
            f"--config.train.num_iterations={done} or more to go on with this one."
        )
    with (
        endings.noticed() as asked_to_stop,
        MetricLogger(workdir, what.name, resume_step=done) as logger,
        training_progress(what.name, what.num_iterations, done, what.shown) as show,
    ):
        if done < what.num_iterations and not _is_flat(what, checkpoints):
            state = fit(
                what.step_fn or meta_step(what.learner.meta_gradient, what.tx),
                state,
                what.sampler,
                fit_key,
                num_steps=what.num_iterations,
                meta_batch=what.meta_batch,
                steps_per_call=log.every,
                task_chunk=what.task_chunk,
                mesh=what.mesh,
                hooks=[
                    show,
                    logger,
                    tally,
                    checkpoint_hook(
                        checkpoints, log.checkpoint_every, _scorer(what, logger), tally.totals
                    ),
                    lambda call: call.is_due(log.checkpoint_every) and _is_flat(what, checkpoints),
                    endings.stop_hook(asked_to_stop, checkpoints, tally.totals),
                ],
            )
    flat = int(state.step) < what.num_iterations and _is_flat(what, checkpoints)
    if int(state.step) < what.num_iterations and not flat:
        raise endings.Interrupted(
            f"{what.name} has stopped after {int(state.step):,} of {what.num_iterations:,} "
            f"iterations, which are saved in {workdir}. The same command goes on from there."
        )
    chosen = state if what.validate is None else checkpoints.restore(state, best=True) or state
    totals = checkpoints.totals(int(state.step))
    counted, busy = totals.get("iterations", 0), totals.get("busy_seconds")
    return Run(
        processes.here(chosen.meta_params),
        {
            "iterations": int(state.step),
            # Iterations without a better validation score, where these ended the run.
            "flat_for": what.patience if flat else None,
            "tested_checkpoint": int(chosen.step),
            "chosen_by": "last iteration" if what.validate is None else "best validation score",
            "iterations_per_second": counted / busy if busy else None,
            # With compiling, validation and checkpoints; None where a version that did not count
            # them has done some of the iterations.
            "wall_seconds": totals.get("wall_seconds") if counted == int(state.step) else None,
            "compile_seconds": tally.compile_seconds,
            "devices": {
                name.removeprefix(ON_DEVICE): round(count)
                for name, count in totals.items()
                if name.startswith(ON_DEVICE)
            },
            **{name: totals.get(name) for name in what.totals},
        },
    )


def _is_flat(what: Training, checkpoints: Checkpoints) -> bool:
    """Whether the validation score has not risen for too long."""
    return bool(what.patience) and checkpoints.since_best() >= what.patience


def _initial(what: Training, key: jax.Array) -> TrainState:
    example = what.example
    if example is None:
        inputs = jax.eval_shape(what.sampler, None, key).query.inputs
        example = jax.tree.map(lambda x: jax.numpy.zeros(x.shape, x.dtype), inputs)
    return init_state(jax.jit(what.learner.init)(key, example), what.tx)


def _scorer(what: Training, logger: MetricLogger) -> Callable[[Call], float]:
    """Return what "best" means, lower is better: the loss, or minus the validation score."""

    def score(call: Call) -> float:
        if what.validate is None:
            return float(np.mean(call.metrics.loss))
        scores = what.validate(call.state.meta_params)
        logger.write_scores(call.step, VALIDATION, scores)
        return -float(scores.mean[-1])

    return score
