"""Many tasks from a sampler of one."""

import jax
from jax.sharding import Mesh
from jax.tree_util import Partial

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.sharding import over_tasks
from mamljax.types import Params, Sampler, Task


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
    """
    checks.at_least("num_tasks", num_tasks, 1)
    chunk = checks.at_least("task_chunk", num_tasks if task_chunk is None else task_chunk, 1)

    def draw(shared, key):
        sampler, meta_params = shared
        return sampler(meta_params, key)

    keys = jax.random.split(key, num_tasks)
    tasks = over_tasks(draw, (as_partial(sampler), meta_params), keys, chunk, mesh)
    if not isinstance(tasks, Task):
        raise ArgumentError(
            f"sampler must return a mamljax.Task(support, query); got {type(tasks).__name__}."
        )
    return tasks


def as_partial(sampler: Sampler) -> Partial:
    """The sampler as a pytree, to be passed to a compiled function.

    One that holds data is a `Partial` already, whose arrays are then arguments of the program; a
    plain function becomes part of the program.
    """
    checks.is_function("sampler", sampler, "(meta_params, key) -> Task")
    return sampler if isinstance(sampler, Partial) else Partial(sampler)
