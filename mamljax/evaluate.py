"""Meta-testing: adapt to unseen tasks and score the query set after every inner step."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.sharding import on_all_devices, over_tasks, tasks_at_a_time
from mamljax.tasks.sampling import as_partial, check_sampler, check_task, placed, places
from mamljax.tasks.stored import read_ahead
from mamljax.types import Array, Drawn, Learner, LossFn, Params, Sampler, Task

DIVERGENCE = 10.0
"""A task diverged when its query loss after the last step exceeds this many times the larger of its
own and the mean query loss before adaptation, or is not finite at some step."""


class Scores(NamedTuple):
    """Scores over tasks, each ``[S + 1]``: before adaptation and after each inner step.

    mean, std (ddof 0), ci95 (half-width ``1.96 std / sqrt(num_tasks)``), median: over all tasks.
    num_tasks: how many; none is ever left out.
    num_diverged: how many diverged, see `DIVERGENCE`.
    values: ``[num_tasks, S + 1]``, each task's score.
    info: by name, what else was asked for of each task, ``[num_tasks, S + 1]``, see `evaluate`.
    """

    mean: np.ndarray
    std: np.ndarray
    ci95: np.ndarray
    median: np.ndarray
    num_tasks: int
    num_diverged: int
    values: np.ndarray
    info: dict[str, np.ndarray] = {}  # noqa: RUF012, nobody writes into it


def evaluate(
    learner: Learner,
    meta_params: Params,
    sampler: Sampler | None = None,
    key: Array | None = None,
    *,
    num_tasks: int | None = None,
    tasks: Task | None = None,
    num_steps: int | None = None,
    metric: LossFn | None = None,
    info: Mapping[str, LossFn] | None = None,
    stochastic: bool = True,
    task_chunk: int | None = None,
    mesh: Mesh | None = None,
) -> Scores:
    """Adapt to tasks and report the query score before and after each inner step.

    The tasks are either `num_tasks` draws of a sampler, or given, each of which is tested once. The
    number of inner steps may differ from training; for another step size or inner optimizer pass a
    learner built with it: parameters do not care which learner trained them.

    Args:
      learner: what adapts.
      meta_params: where it adapts from.
      sampler: draws one test task.
      key: the same key gives the same tasks, for every learner. Given tasks need none unless
        adaptation itself is random.
      num_tasks: how many test tasks the sampler draws.
      tasks: in place of sampler and number, a batch of tasks whose leaves lead with ``T``.
      num_steps: inner steps ``S``; None takes the learner's own.
      metric: ``(outputs, targets) -> scalar`` on the query set; None takes the learner's loss.
      info: further ones by name, for `Scores.info`: of the same predictions, at no other cost. Of
        policies `rl.losses.broken_episodes` is worth knowing.
      stochastic: adapt with a key, so that dropout draws in the inner steps as in training; False
        adapts without. Predictions on the query set never draw.
      task_chunk: adapt to this many tasks at a time, on each device, which bounds memory. None
        takes what is fastest, see `backprop`.
      mesh: split the tasks over the devices of a mesh, see `sharding.task_mesh`.

    Raises:
      ArgumentError: for both or neither of sampler and tasks; for a sampler whose tasks do not
        depend on the key.
    """
    number = _number_of_tasks(sampler, key, num_tasks, tasks)
    if num_steps is not None:
        checks.at_least("num_steps", num_steps, 0)
    if metric is not None:
        checks.is_function("metric", metric, "(outputs, targets) -> scalar")
    further = _further(info)
    if task_chunk is not None:
        checks.at_least("task_chunk", task_chunk, 1)
    meta_params = on_all_devices(meta_params, mesh)  # training may have left them on others
    key = jax.random.key(0) if key is None else key
    source = as_partial(sampler) if sampler is not None else on_all_devices(tasks, mesh)
    if sampler is not None:
        read_ahead(source, lambda: jax.random.split(jax.random.split(key)[0], number)[None], mesh)
    scores, losses, further_scores = _jitted_curves(
        learner,
        source,
        meta_params,
        key,
        num_tasks=number,
        num_steps=num_steps,
        metric=metric,
        info=further,
        stochastic=stochastic,
        task_chunk=task_chunk,
        mesh=mesh,
    )
    found = summarise(np.asarray(scores), np.asarray(losses))
    return found._replace(info={name: np.asarray(x) for name, x in further_scores.items()})


def _further(info: Mapping[str, LossFn] | None) -> tuple[tuple[str, LossFn], ...]:
    """Named metrics as a static argument of a compiled function."""
    info = {} if info is None else info
    if not isinstance(info, Mapping):
        raise ArgumentError(
            "info must be a mapping of names to functions (outputs, targets) -> scalar; got "
            f"{type(info).__name__}."
        )
    for name, function in info.items():
        checks.is_function(f"info[{name!r}]", function, "(outputs, targets) -> scalar")
    return tuple(info.items())


def _number_of_tasks(
    sampler: Sampler | None, key: Array | None, num_tasks: int | None, tasks: Task | None
) -> int:
    """The tasks to be tested: of a sampler with its key and a number, or of a given batch.

    Raises:
      ArgumentError: for anything else.
    """
    if tasks is None and sampler is None:
        raise ArgumentError("sampler and num_tasks, or tasks, must be given; got neither.")
    if tasks is None:
        checks.is_function("sampler", sampler, "(meta_params, key) -> Task")
        if key is None:
            raise ArgumentError("key must be a jax.random.key, which the tasks are drawn from.")
        return checks.at_least("num_tasks", num_tasks, 1)
    if sampler is not None or num_tasks is not None:
        raise ArgumentError(
            "tasks come in place of sampler and num_tasks: give the one or the others."
        )
    if not isinstance(tasks, Task):
        raise ArgumentError(
            f"tasks must be a mamljax.Task whose arrays lead with the axis of tasks; got "
            f"{type(tasks).__name__}. One task of your own: jax.tree.map(lambda x: x[None], task)."
        )
    found = checks.leading_axis("tasks", tasks)
    if found == 0:
        raise ArgumentError("tasks holds no tasks: its leading axis has length 0.")
    check_task("tasks", _one_of(tasks))
    return found


def query_curves(
    learner: Learner,
    source: Sampler | Task,
    meta_params: Params,
    key: Array,
    *,
    num_tasks: int,
    num_steps: int | None,
    metric: LossFn | None = None,
    info: tuple[tuple[str, LossFn], ...] = (),
    stochastic: bool = True,
    task_chunk: int | None = None,
    mesh: Mesh | None = None,
) -> tuple[Array, Array, dict[str, Array]]:
    """Query scores, losses and `info` of tasks, ``[num_tasks, S + 1]`` each; see `evaluate`.

    Pure, to be compiled with more around it. Of a robot's policies call it one after the other, not
    under another `jax.vmap`: `tuning` says why.

    Args:
      source: a sampler, or a batch of tasks.
      num_tasks: how many tasks to draw, or how many the batch has.
      info: names and further metrics.
      learner, meta_params, key, num_steps, metric, task_chunk, mesh: see `evaluate`.
    """
    task_key, adapt_key = jax.random.split(key)
    if isinstance(source, Task):
        sampler, data, shapes = None, source, jax.tree.leaves(_one_of(source))
    else:
        sampler = as_partial(source)
        data = jax.random.split(task_key, num_tasks), places(task_key, num_tasks)
        shapes = check_sampler(source, meta_params, task_key)

    def one_task(shared, each):
        (sampler, meta_params), (data, adapt_key) = shared, each
        task = data
        if sampler is not None:  # drawn here: only one chunk of tasks is in memory
            task_key, place = data
            task = placed(sampler, place)(meta_params, task_key)
        key = adapt_key if stochastic else None
        return query_curve(
            learner, meta_params, task, key, num_steps=num_steps, metric=metric, info=info
        )

    chunk = tasks_at_a_time(task_chunk, shapes, meta_params)
    each = data, jax.random.split(adapt_key, num_tasks)
    return over_tasks(one_task, (sampler, meta_params), each, chunk, mesh)


def _one_of(tasks: Task) -> Task:
    """The shapes of one of a batch of tasks."""
    return jax.eval_shape(lambda: jax.tree.map(lambda x: x[0], tasks))


_jitted_curves = jax.jit(
    query_curves,
    static_argnums=0,
    static_argnames=(
        "num_tasks",
        "num_steps",
        "metric",
        "info",
        "stochastic",
        "task_chunk",
        "mesh",
    ),
)


def query_curve(
    learner: Learner,
    meta_params: Params,
    task: Task,
    key: Array | None,
    *,
    num_steps: int | None = None,
    metric: LossFn | None = None,
    info: tuple[tuple[str, LossFn], ...] = (),
) -> tuple[Array, Array, dict[str, Array]]:
    """One task's query score, loss and `info`, ``[S + 1]`` each; pure, to be mapped or swept over.

    Without a key it adapts without dropout; a `Drawn` query set needs one.
    """
    support_key, query_key = (None, None) if key is None else jax.random.split(key)

    def observe(params, step):
        query = task.query
        if isinstance(query, Drawn):
            if query_key is None:
                raise ArgumentError(
                    "a Drawn query set needs a key to be drawn by; got None: evaluate it with "
                    "stochastic=True."
                )
            query = query.draw(params, jax.random.fold_in(query_key, step))
        outputs = learner.predict(params, query.inputs, step=step)
        loss = checks.scalar("loss_fn", learner.loss_fn(outputs, query.targets))
        further = {
            name: checks.scalar(f"info[{name!r}]", function(outputs, query.targets))
            for name, function in info
        }
        if metric is None:
            return loss, loss, further
        return checks.scalar("metric", metric(outputs, query.targets)), loss, further

    return learner.adapt(
        meta_params, task.support, support_key, num_steps=num_steps, observe=observe
    ).observed


def summarise(scores: np.ndarray, losses: np.ndarray) -> Scores:
    """Statistics over tasks of scores ``[num_tasks, S + 1]``, and the count of diverged tasks."""
    scores, losses = np.asarray(scores, np.float64), np.asarray(losses, np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        finite = np.isfinite(losses).all(axis=1)
        usual = losses[finite, 0].mean() if finite.any() else 0.0
        before = np.maximum(losses[:, 0], usual)
        # For a positive loss the limit is DIVERGENCE * before; losses may be negative returns.
        limit = before + (DIVERGENCE - 1) * np.abs(before)
        diverged = ~finite | (losses[:, -1] > limit)
        std = scores.std(axis=0)
        return Scores(
            mean=scores.mean(axis=0),
            std=std,
            ci95=1.96 * std / np.sqrt(len(scores)),
            median=np.median(scores, axis=0),
            num_tasks=len(scores),
            num_diverged=int(diverged.sum()),
            values=scores,
        )
