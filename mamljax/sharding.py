"""Tasks over devices, each with its own share of the meta-batch, and in chunks on a device."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mamljax import checks, processes
from mamljax.checks import ArgumentError

TASK_AXIS = "task"
SHARED, SPLIT = PartitionSpec(), PartitionSpec(TASK_AXIS)
"""Layouts of values on the devices: the same on all, or each its share of the tasks."""


def training_mesh(num_tasks: int) -> Mesh | None:
    """The mesh to train on: `largest_task_mesh`, but of several processes every device.

    Raises:
      ArgumentError: if several processes have devices that do not divide the tasks.
    """
    if not processes.several():
        return largest_task_mesh(num_tasks)
    _check_divides(jax.device_count(), num_tasks)
    return task_mesh()


def largest_task_mesh(num_tasks: int) -> Mesh | None:
    """Over as many devices of this process as divide `num_tasks`; None if that is a single one."""
    devices = jax.local_devices()
    number = max(n for n in range(1, len(devices) + 1) if num_tasks % n == 0)
    return None if number == 1 else task_mesh(devices[:number])


def task_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A one-dimensional mesh over which `backprop` splits the tasks (default: all devices)."""
    found = np.asarray(jax.devices() if devices is None else devices)
    return Mesh(found, (TASK_AXIS,), axis_types=(AxisType.Auto,))


def on_all_devices(tree: Any, mesh: Mesh | None) -> Any:
    """Copy arrays to every device of this process's mesh, wherever they are; None leaves them.

    Raises:
      ArgumentError: for a mesh with devices of other processes.
    """
    tree = processes.here(tree)
    if mesh is not None and mesh.is_multi_process:
        raise ArgumentError(
            "mesh has devices of several processes; each tests alone: give None, or "
            "mamljax.sharding.largest_task_mesh(num_tasks)."
        )
    return tree if mesh is None else jax.device_put(tree, NamedSharding(mesh, SHARED))


BYTES_AT_A_TIME = {"cpu": 2**18}
"""Size of data and parameters of the tasks that a device takes at a time, see `tasks_at_a_time`.
Measured on CPU: what the network makes of them is many times as much, and should stay in cache."""
BYTES_ELSEWHERE = 2**28
"""The same for accelerators, where it is a question of memory alone."""


def share_tasks(
    function: Callable[[Any, Any], Any], mesh: Mesh | None, num_tasks: int, out_specs: Any = SPLIT
) -> Callable[[Any, Any], Any]:
    """Run ``function(shared, tasks)`` on each device's share of the tasks.

    Args:
      function: of what all devices have, and a pytree whose leaves lead with the axis ``T``.
      mesh: from `task_mesh`; None leaves the function as it is.
      num_tasks: ``T``.
      out_specs: how its outputs lie on the devices, `SHARED` or `SPLIT` for each.

    Raises:
      ArgumentError: unless the mesh has a task axis, and divides the tasks.
    """
    if mesh is None:
        return function
    if TASK_AXIS not in mesh.shape:
        raise ArgumentError(
            f"mesh must have an axis named {TASK_AXIS!r}; got {tuple(mesh.shape)}. "
            "Build it with mamljax.sharding.task_mesh()."
        )
    _check_divides(mesh.shape[TASK_AXIS], num_tasks)
    # check_vma=False: with it, jax would insert an all-reduce per task chunk instead of our one.
    return jax.shard_map(
        function, mesh=mesh, in_specs=(SHARED, SPLIT), out_specs=out_specs, check_vma=False
    )


def over_tasks(
    function: Callable[[Any, Any], Any],
    shared: Any,
    tasks: Any,
    chunk: int,
    mesh: Mesh | None = None,
) -> Any:
    """Apply ``function(shared, task)`` to every task, on the devices of a mesh, in chunks.

    Args:
      function: of what all tasks have, and one task.
      shared: what all tasks have.
      tasks: a pytree whose leaves lead with the axis ``T``.
      chunk: tasks that a device takes at a time, at least 1.
      mesh: from `task_mesh`; None takes one device.

    Returns:
      Its results, whose leaves lead with the axis ``T``.
    """

    def share(shared, tasks):
        return _in_chunks(functools.partial(function, shared), tasks, chunk)

    return share_tasks(share, mesh, len(jax.tree.leaves(tasks)[0]))(shared, tasks)


def tasks_at_a_time(task_chunk: int | None, task: Any, params: Any) -> int:
    """Return how many tasks to take at a time: `task_chunk`, or for None what is fastest.

    Args:
      task_chunk: what the user asked for.
      task: the arrays of one task, or the shapes of these.
      params: likewise, of which each task adapts a copy.

    Raises:
      ArgumentError: for a `task_chunk` below 1.
    """
    if task_chunk is None:
        budget = BYTES_AT_A_TIME.get(jax.default_backend(), BYTES_ELSEWHERE)
        return max(budget // max(_bytes(task) + _bytes(params), 1), 1)
    return checks.at_least("task_chunk", task_chunk, 1)


def _in_chunks(function: Callable[[Any], Any], tasks: Any, chunk: int) -> Any:
    """`jax.lax.map` with a batch size, which cannot return arrays without entries."""
    num_tasks = len(jax.tree.leaves(tasks)[0])
    if chunk >= num_tasks:
        return jax.vmap(function)(tasks)
    chunks, rest = divide(tasks, chunk)
    found = jax.lax.map(jax.vmap(function), chunks)
    # Sizes in full: of an array without entries -1 tells nothing.
    found = jax.tree.map(lambda x: x.reshape(math.prod(x.shape[:2]), *x.shape[2:]), found)
    if num_tasks % chunk == 0:
        return found
    return jax.tree.map(lambda *both: jnp.concatenate(both), found, jax.vmap(function)(rest))


def divide(tasks: Any, chunk: int) -> tuple[Any, Any]:
    """As many tasks as `chunk` divides as ``[chunks, chunk, ...]``, and the remaining ones."""
    number = len(jax.tree.leaves(tasks)[0]) // chunk
    whole = number * chunk
    chunks = jax.tree.map(lambda x: x[:whole].reshape(number, chunk, *x.shape[1:]), tasks)
    return chunks, jax.tree.map(lambda x: x[whole:], tasks)


def _check_divides(devices: int, num_tasks: int) -> None:
    if num_tasks % devices:
        raise ArgumentError(
            f"a meta-batch of {num_tasks} tasks does not divide over {devices} devices; "
            f"use a multiple of {devices}, or a mesh over fewer devices."
        )


def _bytes(tree: Any) -> int:
    return sum(x.dtype.itemsize * math.prod(x.shape) for x in jax.tree.leaves(tree))
