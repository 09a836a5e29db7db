"""Policies with a memory: a recurrent network that carries a state from step to step."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mamljax import checks
from mamljax.models.linen import from_linen
from mamljax.models.policy import Gaussian, GaussianHead, check_deviations
from mamljax.types import Array, PyTree, Recurrent


class GRUPolicy(nn.Module):
    """Dense layers with ReLU, gated recurrent units over time, and the head of a Gaussian."""

    action_size: int
    hidden: Sequence[int]
    units: int
    init_std: float
    min_std: float

    def setup(self) -> None:
        init = nn.initializers.xavier_uniform()
        self.dense = [nn.Dense(width, kernel_init=init) for width in self.hidden]
        self.cell = nn.GRUCell(self.units)
        self.over_time = nn.RNN(self.cell)
        self.head = GaussianHead(self.action_size, self.init_std, self.min_std)

    def __call__(self, inputs: PyTree) -> PyTree:
        """Whole episodes ``[..., H, D]`` to Gaussians, or a state and one step to a state and one.

        One step is ``(carry [..., units], observations [..., D])``.
        """
        if isinstance(inputs, tuple):
            carry, x = inputs
            carry, x = self.cell(carry, self._embedded(x))
            return carry, self.head(x)
        remembered: Any = self.over_time(self._embedded(inputs))
        return self.head(remembered)

    def _embedded(self, x: Array) -> Array:
        for layer in self.dense:
            x = nn.relu(layer(x))
        return x


def recurrent_policy(
    action_size: int,
    *,
    hidden: Sequence[int] = (100,),
    units: int = 100,
    timescale: int = 100,
    init_std: float = 1.0,
    min_std: float = 1e-6,
) -> Recurrent:
    """A policy that remembers its episode (Cho et al. 2014's gated recurrent units).

    For `rl.trials`, whose episodes are many of one task: then it can learn to find out which task
    it is in, without a gradient (Duan et al. 2016, *RL^2*).

    Args:
      action_size: entries ``A`` of an action.
      hidden: widths of the layers before the memory.
      units: of the memory.
      timescale: steps, at least 2. Untrained, each unit remembers for a number of steps of its own,
        from 1 to about this (Tallec and Ollivier 2018, *Can recurrent neural networks warp time?*,
        section 2). Without it all forget at once: gradients through a long trial grow, and what
        happened in an earlier episode is lost.
      init_std, min_std: see `gaussian_policy`.

    Raises:
      ArgumentError: for a size below 1, or standard deviations but 0 < min_std <= init_std.
    """
    checks.at_least("action_size", action_size, 1)
    checks.at_least("units", units, 1)
    checks.at_least("timescale", timescale, 2)
    check_deviations(init_std, min_std)
    widths = checks.sizes("hidden", hidden)
    model = from_linen(GRUPolicy(action_size, widths, units, init_std, min_std))

    def init(key: Array, inputs: Array) -> PyTree:
        params = model.init(key, inputs)
        cell = params["cell"]
        steps = jax.random.uniform(
            jax.random.fold_in(key, 1), (units,), inputs.dtype, minval=1, maxval=timescale - 1
        )
        # Flax's update gate is the share that a unit keeps: of log(n) it is n / (n + 1).
        return params | {"cell": cell | {"iz": cell["iz"] | {"bias": jnp.log(steps)}}}

    def start(params: PyTree, observations: Array) -> Array:
        del params
        return jnp.zeros((*observations.shape[:-1], units), observations.dtype)

    def step(params: PyTree, carry: Array, observations: Array) -> tuple[Array, Gaussian]:
        return model.apply(params, (carry, observations))

    return Recurrent(init, model.apply, start, step)
