"""What a config's numbers may be, checked before anything is trained."""

import math
from typing import Any

from ml_collections import ConfigDict

from experiments.config_help import leaves

# By the last part of their names.
COUNTS = (
    *("cg_iterations", "checkpoint_every", "chunk", "episodes", "hidden", "horizon", "image_size"),
    *("meta_batch", "minibatch", "num_inner_steps", "num_iterations", "num_regressors"),
    *("num_steps", "num_tasks", "points", "queries", "shots", "sweep_regressors", "ways"),
)
"""At least 1."""

SIZES = ("init_std", "learning_rate", "max_error", "max_kl", "meta_lr", "reach")
"""Above 0."""

FRACTIONS = ("discount", "gae_lambda")
"""Between 0 and 1."""

COORDINATES = ("amplitude", "inputs", "phase")
"""Of either sign. What is named nowhere here is at least 0."""


def check(config: ConfigDict) -> None:
    """Refuse numbers outside their range, and words among them.

    ml_collections sees to types, but not to those of a tuple's elements.

    Raises:
      ValueError: with the flag, its value, and what it may be.
    """
    for name, value in leaves(config.to_dict()):
        if isinstance(value, tuple):
            if not all(isinstance(x, (int, float)) for x in value):
                raise ValueError(
                    f"--config.{name}={value!r}: a tuple of numbers is expected, such as "
                    f"--config.{name}='(1, 2)'."
                )
            numbers = value
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            numbers = (value,)
        else:
            continue
        expected = _expected(name.rpartition(".")[2], numbers)
        if expected:
            raise ValueError(f"--config.{name}={value!r}: must be {expected}.")


def _expected(name: str, numbers: tuple[Any, ...]) -> str | None:
    """What the numbers should be where they are not."""
    if not numbers and name != "hidden":
        return "at least one number"
    if not all(math.isfinite(x) for x in numbers):
        return "finite"
    if name in COUNTS:
        return None if all(x >= 1 for x in numbers) else "at least 1"
    if name in SIZES:
        return None if all(x > 0 for x in numbers) else "above 0"
    if name in FRACTIONS:
        return None if all(0 <= x <= 1 for x in numbers) else "between 0 and 1"
    if name in COORDINATES:
        return None
    return None if all(x >= 0 for x in numbers) else "at least 0"
