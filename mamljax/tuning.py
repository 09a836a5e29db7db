"""Step sizes at test, tuned on tasks of their own."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.evaluate import query_curves
from mamljax.sharding import on_all_devices
from mamljax.tasks.sampling import as_partial
from mamljax.types import Learner, Params, Sampler


class Tuned(NamedTuple):
    """The best step size, and the mean query loss of every candidate."""

    inner_lr: float
    scores: dict[float, float]


def tune_inner_lr(
    make_learner: Callable[[Any], Learner],
    meta_params: Params,
    sampler: Sampler,
    key: jax.Array,
    *,
    candidates: Sequence[float],
    num_tasks: int,
    num_steps: int,
    task_chunk: int | None = None,
    mesh: Mesh | None = None,
) -> Tuned:
    """Choose the step size with the lowest query loss, averaged over inner steps 1 to `num_steps`.

    All candidates adapt to the same tasks, one after the other by one program. Draw `key` for these
    tasks alone: they must not be the ones that results are reported on.

    Args:
      make_learner: a learner with a given step size; called once, with a traced number.
      meta_params: where adaptation starts.
      sampler: draws one tuning task.
      key: for the tuning tasks.
      candidates: step sizes to compare.
      num_tasks: tuning tasks.
      num_steps: inner steps ``S``, 1 or more.
      task_chunk, mesh: see `evaluate`.

    Raises:
      ArgumentError: without candidates, or if every one of them diverges.
    """
    checks.at_least("num_steps", num_steps, 1)
    if task_chunk is not None:
        checks.at_least("task_chunk", task_chunk, 1)
    if not candidates:
        raise ArgumentError("candidates must hold at least one step size; got none.")
    for candidate in candidates:
        checks.non_negative("candidates", candidate)

    meta_params = on_all_devices(meta_params, mesh)

    # Not mapped over the step sizes: on CPU, under XLA's default schedule, rollouts in a loop over
    # chunks of tasks, mapped once more, adapted some tasks to what was in memory (see "NaN" in
    # docs/faq.md).
    @jax.jit
    def mean_loss(inner_lr, sampler, meta_params, key):
        _, losses, _ = query_curves(
            make_learner(inner_lr),
            sampler,
            meta_params,
            key,
            num_tasks=num_tasks,
            num_steps=num_steps,
            task_chunk=task_chunk,
            mesh=mesh,
        )
        return jnp.mean(losses[:, 1:])

    given = as_partial(sampler), meta_params, key
    losses = [float(mean_loss(jnp.float32(inner_lr), *given)) for inner_lr in candidates]
    scores = dict(zip(map(float, candidates), losses, strict=True))
    finite = {lr: loss for lr, loss in scores.items() if np.isfinite(loss)}
    if not finite:
        raise ArgumentError(f"candidates {list(scores)} all diverge; add smaller step sizes.")
    return Tuned(min(finite, key=lambda lr: finite[lr]), scores)
