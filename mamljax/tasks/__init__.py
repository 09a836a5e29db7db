"""Sources of tasks: samplers ``(meta_params, key) -> Task``, pure and traceable."""

from mamljax.tasks.arrays import from_arrays
from mamljax.tasks.episodes import episodes
from mamljax.tasks.sampling import sample_tasks
from mamljax.tasks.sinusoid import sinusoid

__all__ = ["episodes", "from_arrays", "sample_tasks", "sinusoid"]
