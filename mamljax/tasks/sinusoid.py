"""Sinusoid regression (Finn et al. 2017, section 5.1): ``y = A sin(x - phase)``, no noise."""

import math

import jax
import jax.numpy as jnp

from mamljax import checks
from mamljax.types import Batch, Sampler, Task

Range = tuple[float, float]


def sinusoid(
    shots: int,
    queries: int,
    *,
    amplitude: Range = (0.1, 5.0),
    phase: Range = (0.0, math.pi),
    inputs: Range = (-5.0, 5.0),
    support_inputs: Range | None = None,
    reveal: bool = False,
) -> Sampler:
    """A sampler of sinusoid tasks.

    One key gives the same sinusoid whatever the numbers of shots and queries, and the same query
    points whatever the shots, so that settings can be compared on the same tasks.

    Args:
      shots: support points ``K``; inputs and targets have shape ``[K, 1]``.
      queries: query points ``Q``.
      amplitude, phase, inputs: the uniform ranges of A, phase and x.
      support_inputs: another range for the support points, such as one half of the inputs.
      reveal: append the true amplitude and phase to the inputs, ``[K, 3]``: the oracle's view.
    """
    checks.at_least("shots", shots, 1)
    checks.at_least("queries", queries, 1)
    support_range = inputs if support_inputs is None else support_inputs
    checks.interval("amplitude", amplitude)
    checks.interval("phase", phase)
    checks.interval("inputs", inputs)
    checks.interval("support_inputs", support_range)

    def sampler(meta_params, key):
        del meta_params
        # One draw for everything: on CPU each further call of the generator costs more than the
        # numbers. The support comes last, so that the rest does not depend on how many shots.
        draws = jax.random.uniform(key, (2 + queries + shots,))
        a, b = _scale(draws[0], amplitude), _scale(draws[1], phase)

        def batch(unit, bounds):
            x = _scale(unit, bounds)[:, None]
            known = jnp.broadcast_to(jnp.stack([a, b]), (len(unit), 2))
            return Batch(jnp.concatenate([x, known], 1) if reveal else x, a * jnp.sin(x - b))

        return Task(
            support=batch(draws[2 + queries :], support_range),
            query=batch(draws[2 : 2 + queries], inputs),
        )

    return sampler


def _scale(unit: jax.Array, bounds: Range) -> jax.Array:
    return bounds[0] + (bounds[1] - bounds[0]) * unit
