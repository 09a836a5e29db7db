"""Optimizers for the inner loop, through which the meta-gradient is differentiated.

Any `optax.GradientTransformation` can be an inner optimizer. `optax.sgd` (with or without momentum)
is safe as it is; this module holds what differs when an optimizer is differentiated itself.
"""

from typing import Any

import optax


def adam(
    learning_rate: Any, *, b1: float = 0.9, b2: float = 0.999, eps_root: float = 1e-8
) -> optax.GradientTransformation:
    """Adam that can be differentiated through.

    `optax.adam` defaults to ``eps_root=0``, and the derivative of ``sqrt(nu)`` is infinite at
    ``nu = 0``: one dead ReLU turns the meta-gradient into NaN. A positive `eps_root` bounds it.

    Raises:
      ValueError: if `eps_root` is not positive.
    """
    if eps_root <= 0:
        raise ValueError(
            f"adam: eps_root must be positive inside the inner loop; got {eps_root!r}. "
            "With 0 the meta-gradient is NaN wherever a support gradient is exactly zero."
        )
    return optax.adam(learning_rate, b1=b1, b2=b2, eps_root=eps_root)
