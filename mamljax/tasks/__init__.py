"""Sources of tasks: samplers ``(meta_params, key) -> Task``, pure and traceable."""

from mamljax.tasks.arrays import from_arrays
from mamljax.tasks.augment import augment
from mamljax.tasks.episodes import episodes
from mamljax.tasks.labelled import from_labelled
from mamljax.tasks.sampling import sample_tasks
from mamljax.tasks.sinusoid import sinusoid
from mamljax.tasks.stored import Stored

__all__ = [
    "Stored",
    "augment",
    "episodes",
    "from_arrays",
    "from_labelled",
    "sample_tasks",
    "sinusoid",
]
