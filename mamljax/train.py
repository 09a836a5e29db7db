"""Meta-training: sample tasks on the device, many meta-steps per call, hooks in between."""

import functools
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mamljax import checks
from mamljax.tasks.sampling import as_partial, sample_tasks
from mamljax.tasks.stored import read_ahead
from mamljax.types import Batch, Metrics, PerStep, Sampler, StepFn, Task, TrainState


class Call(NamedTuple):
    """One call of the compiled loop, as hooks see it when it is done.

    step: meta-iterations done so far.
    state: the training state, on the device. The loop reuses its memory: copy what you keep.
    metrics: host arrays with a leading axis, one entry per meta-iteration of the call.
    num_steps: meta-iterations of the whole run.
    meta_batch: tasks per meta-iteration.
    seconds: wall time, hooks excluded.
    compile_seconds: what compiling took, once per run.
    """

    step: int
    state: TrainState
    metrics: Metrics
    num_steps: int
    meta_batch: int
    seconds: float
    compile_seconds: float

    @property
    def iterations_per_second(self) -> float:
        """Meta-iterations per second within this call."""
        return len(self.metrics.loss) / self.seconds

    def is_due(self, every: int) -> bool:
        """Return whether this call reached or passed a multiple of `every`, or ended the run."""
        began = self.step - len(self.metrics.loss)
        return self.step // every > began // every or self.step >= self.num_steps


Hook = Callable[[Call], bool | None]
"""Called after every call of the compiled loop; one that returns True ends the run once all hooks
have been called."""


class NonFiniteError(FloatingPointError):
    """A meta-loss, or the meta-parameters, became infinite or NaN."""


def fit(
    step_fn: StepFn,
    state: TrainState,
    sampler: Sampler,
    key: jax.Array,
    *,
    num_steps: int,
    meta_batch: int,
    steps_per_call: int = 100,
    hooks: Sequence[Hook] = (),
    task_chunk: int | None = None,
    mesh: Mesh | None = None,
) -> TrainState:
    """Meta-train until `num_steps` meta-iterations are done in all.

    Iteration ``i`` draws from keys folded with ``i``, so a run that goes on from a saved state
    repeats exactly what the undisturbed run would have done. One program is compiled per run.

    Args:
      step_fn: one meta-update, from `meta_step`.
      state: where to begin; ``state.step`` iterations count as done.
      sampler: draws one task, on the device.
      key: the key of the whole run.
      num_steps: meta-iterations in all, those that `state` has done among them.
      meta_batch: tasks ``T`` per meta-iteration.
      steps_per_call: meta-iterations per call of the compiled loop, between two rounds of hooks.
      hooks: called in order after every call, see `Hook`.
      task_chunk, mesh: of the sampler, see `sample_tasks`; those of the gradient are the learner's.

    Warns:
      UserWarning: if the state has done that many already, so that nothing is left to do.

    Raises:
      NonFiniteError: when a loss or a parameter is no longer finite. No hook sees that call, so a
        saved checkpoint is always a good one.
    """
    checks.at_least("num_steps", num_steps, 0)
    checks.at_least("meta_batch", meta_batch, 1)
    checks.at_least("steps_per_call", steps_per_call, 1)
    done = int(state.step)
    if done >= num_steps:
        if num_steps:
            warnings.warn(
                f"num_steps={num_steps} meta-iterations in all, of which {done} are done: nothing "
                "is left to do. To go on, as in a loop of epochs, give int(state.step) plus the "
                "further ones.",
                stacklevel=2,
            )
        return state
    state = jax.tree.map(jnp.copy, state)  # the compiled loop takes over its argument's memory
    started = time.perf_counter()
    sampler = as_partial(sampler)
    draw = functools.partial(sample_tasks, num_tasks=meta_batch, task_chunk=task_chunk, mesh=mesh)
    run = _compile_loop(step_fn, draw, steps_per_call, (state, sampler, key))
    compile_seconds = time.perf_counter() - started
    while done < num_steps:
        length = min(steps_per_call, num_steps - done)
        started = time.perf_counter()
        steps = np.arange(done, done + length)
        read_ahead(sampler, lambda steps=steps: _keys_of_tasks(key, steps, meta_batch), mesh)
        state, metrics, finite = run(state, sampler, key, length)
        metrics = jax.tree.map(lambda x, n=length: np.asarray(x)[:n], metrics)
        seconds = time.perf_counter() - started
        if not (finite and np.all(np.isfinite(metrics.loss))):
            _refuse_non_finite(
                metrics,
                done,
                lambda i, state=state: draw(sampler, state.meta_params, _task_key(key, i)),
            )
        done += length
        seen = Call(done, state, metrics, num_steps, meta_batch, seconds, compile_seconds)
        wishes_to_stop = [hook(seen) for hook in hooks]  # every hook is called
        if any(wishes_to_stop):
            break
    return state


def _task_key(key, step):
    """The key of the tasks of meta-iteration `step`, counted from 0."""
    return jax.random.fold_in(jax.random.split(key)[0], step)


@functools.partial(jax.jit, static_argnums=2)
def _keys_of_tasks(key, steps, num_tasks):
    """The key of every task of some meta-iterations, ``[steps, T]``."""
    return jax.vmap(lambda step: jax.random.split(_task_key(key, step), num_tasks))(steps)


def _compile_loop(step_fn, draw, longest, arguments):
    """Compile ``(state, sampler, key, length) -> (state, metrics [longest], finite)``."""

    def iteration(state, sampler, key):
        step_key = jax.random.split(key)[1]
        tasks = draw(sampler, state.meta_params, _task_key(key, state.step))
        return step_fn(state, tasks, jax.random.fold_in(step_key, state.step))

    def run(state, sampler, key, length):
        def body(i, carry):
            state, history = carry
            state, metrics = iteration(state, sampler, key)
            return state, jax.tree.map(lambda past, now: past.at[i].set(now), history, metrics)

        shapes = jax.eval_shape(iteration, state, sampler, key)[1]
        history = jax.tree.map(lambda x: jnp.zeros((longest, *x.shape), x.dtype), shapes)
        # A loop of variable length: the last, shorter call runs the same program.
        state, history = jax.lax.fori_loop(0, length, body, (state, history))
        finite = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(state.meta_params)]
        return state, history, functools.reduce(jnp.logical_and, finite, jnp.array(True))

    return jax.jit(run, donate_argnums=0).lower(*arguments, longest).compile()


def _refuse_non_finite(metrics: Metrics, first: int, tasks_of: Callable[[int], Task]) -> NoReturn:
    """Raise for the first non-finite meta-iteration of a call that began at iteration `first`."""
    bad = ~(np.isfinite(metrics.loss) & np.isfinite(metrics.grad_norm))
    index = int(np.argmax(bad)) if bad.any() else len(bad) - 1
    losses = metrics.task_losses[index]
    tasks = np.flatnonzero(~np.isfinite(losses))
    if len(tasks):
        shown = ", ".join(map(str, tasks[:10])) + (", ..." if len(tasks) > 10 else "")
        what = f"the query loss of {len(tasks)} of {len(losses)} tasks is not finite (task {shown})"
    else:
        what = "every query loss is finite, but the meta-gradient or the meta-parameters are not"
    raise NonFiniteError(
        f"meta-iteration {first + index + 1}: {what}; meta-loss {metrics.loss[index]}, norm of the "
        f"meta-gradient {metrics.grad_norm[index]}.{_labels(lambda: tasks_of(first + index))} "
        "Look first whether the inputs and targets of these tasks are finite. If they are, try a "
        "smaller inner step size or fewer inner steps, clip the meta-gradient (optax.clip), or a "
        "smaller outer learning rate. An inner optimizer that takes a root or a norm has no "
        "derivative where a gradient is zero: take mamljax.inner_optim.adam, with a larger "
        "eps_root, for optax.adam and its like, and mamljax.inner_optim.clip_by_global_norm for "
        "optax's. Nothing was saved from this call: the last checkpoint before it is good."
    )


def _labels(draw: Callable[[], Task]) -> str:
    """A sentence on the labels of tasks; empty if they have none, without drawing them then."""
    if not _integer_targets(jax.eval_shape(draw)):
        return ""
    found = _integer_targets(jax.jit(draw)())
    low, high = min(x.min() for x in found), max(x.max() for x in found)
    return (
        f" The labels of its tasks run from {low} to {high}: one that is not among the network's "
        "outputs 0 to N - 1 makes the loss NaN."
    )


def _integer_targets(tasks: Task) -> list[Any]:
    data = (part.data if isinstance(part, PerStep) else part for part in tasks)
    targets = [part.targets for part in data if isinstance(part, Batch)]
    return [x for x in jax.tree.leaves(targets) if jnp.issubdtype(x.dtype, jnp.integer) and x.size]
