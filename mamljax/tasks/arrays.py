"""Tasks from a user's own arrays."""

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.types import Batch, PyTree, Sampler, Task


def from_arrays(inputs: PyTree, targets: PyTree, *, shots: int, queries: int) -> Sampler:
    """A sampler over given tasks: pick one, then disjoint support and query examples of it.

    Args:
      inputs: arrays ``[number of tasks, examples per task, ...]``; tuples and dicts of them are
        fine. Examples of labelled classes make tasks by `from_labelled`.
      targets: arrays with the same two leading axes.
      shots: support examples ``K`` per task.
      queries: query examples ``Q`` per task.

    Raises:
      ArgumentError: if the leading axes differ, or a task has fewer than K + Q examples.
    """
    checks.at_least("shots", shots, 1)
    checks.at_least("queries", queries, 1)
    data = Batch(inputs, targets)
    num_tasks = checks.leading_axis("inputs and targets", data)
    data = jax.tree.map(jnp.asarray, data)
    if num_tasks == 0:
        raise ArgumentError("inputs and targets hold no tasks: their leading axis has length 0.")
    # The second axis, checked on the first task alone: all tasks of one array share it.
    num_examples = checks.leading_axis(
        "inputs and targets [tasks, examples, ...], of one task",
        jax.tree.map(lambda x: x[0], data),
    )
    if num_examples < shots + queries:
        raise ArgumentError(
            f"shots + queries = {shots + queries} examples are needed per task, but the arrays "
            f"hold {num_examples}: lower shots or queries."
        )

    def sampler(data, meta_params, key):
        del meta_params
        task_key, example_key = jax.random.split(key)
        index = jax.random.randint(task_key, (), 0, num_tasks)
        order = jax.random.permutation(example_key, num_examples)
        return Task(
            support=jax.tree.map(lambda x: x[index, order[:shots]], data),
            query=jax.tree.map(lambda x: x[index, order[shots : shots + queries]], data),
        )

    # The data travel as an argument: as a constant they would be copied into every program.
    return Partial(sampler, data)
