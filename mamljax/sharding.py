"""Tasks over devices: each device adapts to its own share of the meta-batch."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

TASK_AXIS = "task"


def largest_task_mesh(num_tasks: int) -> Mesh | None:
    """A mesh over as many devices as divide `num_tasks`; None if that is a single one."""
    devices = jax.devices()
    number = max(n for n in range(1, len(devices) + 1) if num_tasks % n == 0)
    return None if number == 1 else task_mesh(devices[:number])


def task_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A one-dimensional mesh over which `backprop` splits the tasks (default: all devices)."""
    found = np.asarray(jax.devices() if devices is None else devices)
    return Mesh(found, (TASK_AXIS,), axis_types=(AxisType.Auto,))
