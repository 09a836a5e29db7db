"""From one task to many."""

import jax
from jax.tree_util import Partial

from mamljax import checks
from mamljax.types import Params, Sampler, Task


def sample_tasks(sampler: Sampler, meta_params: Params, key: jax.Array, num_tasks: int) -> Task:
    """Draw `num_tasks` independent tasks; the leaves of the result lead with the axis ``T``."""
    checks.at_least("num_tasks", num_tasks, 1)
    tasks = jax.vmap(sampler, in_axes=(None, 0))(meta_params, jax.random.split(key, num_tasks))
    if not isinstance(tasks, Task):
        raise TypeError(
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
