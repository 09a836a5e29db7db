"""Many tasks from a sampler of one."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.tree_util import Partial

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.sharding import over_tasks
from mamljax.types import Batch, Drawn, Params, PerStep, Sampler, Task


def sample_tasks(
    sampler: Sampler,
    meta_params: Params,
    key: jax.Array,
    num_tasks: int,
    *,
    task_chunk: int | None = None,
    mesh: Mesh | None = None,
) -> Task:
    """Draw `num_tasks` independent tasks; the leaves of the result lead with the axis ``T``.

    Args:
      sampler: draws one task.
      meta_params: of the learner.
      key: each task draws from one of its own.
      num_tasks: ``T``.
      task_chunk: draw this many tasks at a time, on each device. Simulators run faster while their
        state fits into the processor's cache. None draws all at once.
      mesh: let each device draw its share, see `sharding.task_mesh`. Worth it where drawing is
        work, as simulation is.

    Raises:
      ArgumentError: if the sampler's tasks do not depend on the key, see `check_sampler`.
    """
    checks.at_least("num_tasks", num_tasks, 1)
    chunk = checks.at_least("task_chunk", num_tasks if task_chunk is None else task_chunk, 1)
    check_sampler(sampler, meta_params, key)

    def draw(shared, each):
        (sampler, meta_params), (key, place) = shared, each
        task = placed(sampler, place)(meta_params, key)
        if any(isinstance(part, Drawn) for part in task):
            raise ArgumentError(
                "sampler returns tasks whose data are yet to be drawn, as mamljax.rl.on_policy "
                "does: evaluate takes them as they are; for training and for sample_tasks record "
                "them, mamljax.rl.recorded(sampler, learner.adapt)."
            )
        return task

    each = jax.random.split(key, num_tasks), places(key, num_tasks)
    return over_tasks(draw, (as_partial(sampler), meta_params), each, chunk, mesh)


def places(key: jax.Array, num_tasks: int) -> jax.Array:
    """The numbers of tasks that are drawn together, ``[T]``: consecutive, from a random one on.

    A sampler that asks for its `place` can take kinds of tasks in turn, such as ``place % 2``: each
    kind then comes equally often. A single task is of any of them.
    """
    # The keys of the tasks are those folded with 0 to T - 1.
    first = jax.random.randint(jax.random.fold_in(key, num_tasks), (), 0, 2**30)
    return first + jnp.arange(num_tasks)


def placed(function: Callable[..., Any], place: Any) -> Callable[..., Any]:
    """The function at a place of `places`, if it takes one by that name and there is one."""
    try:
        takes = "place" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # some of Python's own functions tell none
        takes = False
    return functools.partial(function, place=place) if takes and place is not None else function


def check_sampler(sampler: Sampler, meta_params: Params, key: jax.Array) -> list[Any]:
    """The shapes of one task's arrays, by tracing the sampler once; see `check_task`.

    Data that are yet to be `Drawn` have none.

    Raises:
      ArgumentError: if what it returns is no task, or does not depend on the key.
    """

    def draw(key):
        task = as_partial(sampler)(meta_params, key)
        if not isinstance(task, Task):
            raise ArgumentError(
                f"sampler must return a mamljax.Task(support, query); got {type(task).__name__}."
            )
        check_task("sampler", task)
        return task

    return checks.drawn(
        "sampler",
        draw,
        key,
        "Train on tasks that you have by tasks.from_arrays, test on them by evaluate(tasks=...).",
    )


def check_task(name: str, task: Task) -> None:
    """Refuse a task whose sets are not examples side by side.

    Args:
      name: what errors call its source.
      task: of arrays, or of their shapes.

    Raises:
      ArgumentError: unless each set is a `Batch`, a `PerStep` or `Drawn`, and the arrays in it
        share their leading axis. A support set may also be ``()``: nothing adapts.
    """
    for part, data in task._asdict().items():
        nothing = part == "support" and data == ()  # such as `baselines.minibatches`
        if nothing or isinstance(data, Drawn):
            continue
        if not isinstance(data, (Batch, PerStep)):
            raise ArgumentError(
                f"{name}: {part} must be a mamljax.Batch(inputs, targets), a PerStep of them, or "
                f"Drawn; got {type(data).__name__}."
            )
        checks.leading_axis(f"the {part} set", data)


def as_partial(sampler: Sampler) -> Partial:
    """The sampler as a pytree, to be passed to a compiled function.

    One that holds data is a `Partial` already, whose arrays are then arguments of the program; a
    plain function becomes part of the program.
    """
    checks.is_function("sampler", sampler, "(meta_params, key) -> Task")
    return sampler if isinstance(sampler, Partial) else Partial(sampler)
