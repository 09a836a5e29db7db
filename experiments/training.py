"""One training run with everything around it: resume, progress, metrics, checkpoints."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from experiments import interruption
from experiments.settings import Config
from mamljax import metrics, processes
from mamljax.checkpoint import Checkpoints, checkpoint_hook
from mamljax.evaluate import Report
from mamljax.meta import init_state, meta_step
from mamljax.metrics import MetricLogger
from mamljax.progress import training_progress
from mamljax.train import Chunk, fit
from mamljax.types import Learner, Params, PyTree, Sampler, StepFn


class Run(NamedTuple):
    """The meta-parameters to be tested, and the ``train`` entry of the report."""

    meta_params: Params
    train: dict[str, Any]


def train(
    name: str,
    learner: Learner,
    sampler: Sampler,
    tx: optax.GradientTransformation,
    key: jax.Array,
    *,
    num_iterations: int,
    meta_batch: int,
    log: Config,
    workdir: Path,
    depends_on: Mapping[str, Any],
    validate: Callable[[Params], Report] | None = None,
    step_fn: StepFn | None = None,
    example: PyTree = None,
    task_chunk: int | None = None,
    mesh: Mesh | None = None,
) -> Run:
    """Meta-train `learner`, or go on where an earlier process stopped.

    Args:
      name: of the run, in logs and as the folder of its checkpoints.
      learner: what is trained.
      sampler: draws training tasks.
      tx: the outer optimizer.
      key: of the whole run: initial parameters and every draw.
      num_iterations: meta-iterations in all.
      meta_batch: tasks per meta-iteration.
      log: ``chunk`` and ``checkpoint_every``, in meta-iterations.
      workdir: of the experiment.
      depends_on: the config values that the run depends on; a change refuses to resume.
      validate: the accuracy or return on validation tasks. Every checkpoint is scored by it (after
        the last inner step), and the best one is returned instead of the last.
      step_fn: one meta-update by `tx`; None takes the plain `meta_step`.
      example: inputs to initialise with; None takes those of the sampler.
      task_chunk, mesh: of the drawing of tasks, see `sample_tasks`.

    Raises:
      Interrupted: after a checkpoint, when asked to stop.
    """
    init_key, fit_key = jax.random.split(key)
    if example is None:
        inputs = jax.eval_shape(sampler, None, key).query.inputs
        example = jax.tree.map(lambda x: jax.numpy.zeros(x.shape, x.dtype), inputs)
    state = init_state(jax.jit(learner.init)(init_key, example), tx)
    checkpoints = Checkpoints(workdir / "checkpoints" / name, config=depends_on)
    state = checkpoints.restore(state) or state
    done = int(state.step)
    compile_seconds = []

    def note_compile(chunk: Chunk) -> None:
        compile_seconds[:] = [chunk.compile_seconds]

    with (
        interruption.noticed() as asked_to_stop,
        MetricLogger(workdir, name, resume_step=done) as logger,
        training_progress(name, num_iterations, done) as show,
    ):

        def score(chunk: Chunk) -> float:
            if validate is None:
                return float(np.mean(chunk.metrics.loss))
            scores = validate(chunk.state.meta_params)
            logger.write_scores(chunk.step, "validation", scores)
            return -float(scores.mean[-1])  # lower is better

        state = fit(
            step_fn or meta_step(learner.meta_gradient, tx),
            state,
            sampler,
            fit_key,
            num_steps=num_iterations,
            meta_batch=meta_batch,
            chunk=log.chunk,
            task_chunk=task_chunk,
            mesh=mesh,
            hooks=[
                show,
                logger,
                checkpoint_hook(checkpoints, log.checkpoint_every, score),
                note_compile,
                interruption.stop_hook(asked_to_stop, checkpoints),
            ],
        )
    if int(state.step) < num_iterations:
        raise interruption.Interrupted(
            f"{name} has stopped after {int(state.step):,} of {num_iterations:,} iterations, which "
            f"are saved in {workdir}. The same command goes on from there."
        )
    chosen = state if validate is None else checkpoints.restore(state, best=True) or state
    rates = [
        record["iterations_per_second"]
        for record in metrics.read(workdir / metrics.FILE)
        if record["run"] == name and record.get("iterations_per_second")
    ]
    return Run(
        processes.here(chosen.meta_params),
        {
            "iterations": int(state.step),
            "tested_checkpoint": int(chosen.step),
            "chosen_by": "last iteration" if validate is None else "best validation score",
            "iterations_per_second": float(np.median(rates or [np.nan])),
            "compile_seconds": compile_seconds[0] if compile_seconds else None,
        },
    )
