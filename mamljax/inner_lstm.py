"""The meta-learner LSTM: an inner optimizer that is a recurrent network over coordinates."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from mamljax import checks
from mamljax.inner_optim import InnerRule
from mamljax.types import Array

LOG_RANGE = 10.0
"""Sizes below ``exp(-LOG_RANGE)`` are not told apart by their logarithm (p of the paper)."""


class Memory(NamedTuple):
    """The state of every coordinate: ``P`` of them adapt. Side by side they are read fastest.

    hidden, cell: of the first layer, ``[units, P]``.
    forget, rate: the gates of the step before, ``[P]``.
    """

    hidden: Array
    cell: Array
    forget: Array
    rate: Array


def meta_lstm(units: int = 20) -> InnerRule:
    """The inner update of Ravi and Larochelle 2017, an LSTM whose cell state is what adapts.

    In every coordinate ``theta_t = f_t theta_{t-1} - i_t gradient`` (section 3.2). The gates f and
    i are sigmoids of a linear function of the outputs of a first LSTM layer, of theta and of the
    gate's own last value. That layer reads the gradient and the loss, as `logarithm_and_sign`. All
    coordinates share the weights and have a state each.

    The paper does not differentiate through what it reads: build the learner with
    ``first_order=True``, as `algorithms.meta_lstm` does.

    Its parameters are ``{"layer": {"kernel" [4 + units, 4 units], "bias"}, "forget": {"kernel"
    [units + 2], "bias" []}, "rate": the same}``. As in the authors' code weights begin uniform
    within 0.01; the bias of f within 4 to 5 and that of i within -5 to -4: nearly gradient descent
    with a step size of 0.01.

    Args:
      units: of the first layer.
    """
    checks.at_least("units", units, 1)

    def init(key, adapting):
        dtype = jnp.result_type(*jax.tree.leaves(adapting))
        keys = iter(jax.random.split(key, 6))

        def uniform(shape, low=-0.01, high=0.01):
            return jax.random.uniform(next(keys), shape, dtype, low, high)

        return {
            "layer": {"kernel": uniform((4 + units, 4 * units)), "bias": uniform((4 * units,))},
            "forget": {"kernel": uniform((units + 2,)), "bias": uniform((), 4.0, 5.0)},
            "rate": {"kernel": uniform((units + 2,)), "bias": uniform((), -5.0, -4.0)},
        }

    def start(adapting):
        flat, _ = ravel_pytree(adapting)
        zeros = jnp.zeros((units, flat.size), flat.dtype)
        return Memory(zeros, zeros, jnp.zeros_like(flat), jnp.zeros_like(flat))

    def update(own, seen, state):
        gradients, unravel = ravel_pytree(seen.gradients)
        params, _ = ravel_pytree(seen.params)
        loss = jnp.broadcast_to(seen.loss.astype(gradients.dtype), gradients.shape)
        read = jnp.concatenate([logarithm_and_sign(loss), logarithm_and_sign(gradients)])
        hidden, cell = _lstm(own["layer"], read, state.hidden, state.cell)
        forget = _gate(own["forget"], hidden, params, state.forget)
        rate = _gate(own["rate"], hidden, params, state.rate)
        # Not f theta - i g less theta: where f is 1 this is gradient descent to the last bit.
        updates = (forget - 1) * params - rate * gradients
        return unravel(updates), Memory(hidden, cell, forget, rate)

    return InnerRule(init, update, start)


def logarithm_and_sign(x: Array) -> Array:
    """Numbers of any size as two of about size 1, ``[P] -> [2, P]``.

    With p = `LOG_RANGE`: ``(log|x| / p, sign x)`` where ``|x| >= exp(-p)``, else ``(-1, exp(p) x)``
    (Andrychowicz et al. 2016, appendix A).
    """
    # The floor comes before the logarithm, whose derivative at 0 would be infinite.
    logarithm = jnp.log(jnp.maximum(jnp.abs(x), jnp.exp(-LOG_RANGE))) / LOG_RANGE
    return jnp.stack([logarithm, jnp.clip(jnp.exp(LOG_RANGE) * x, -1, 1)])


def _lstm(own, read, hidden, cell):
    """One step of an ordinary LSTM: ``[D, P], [units, P], [units, P] -> (hidden, cell)``."""
    outputs = own["kernel"].T @ jnp.concatenate([read, hidden]) + own["bias"][:, None]
    write, keep, show, candidate = jnp.split(outputs, 4)
    cell = jax.nn.sigmoid(keep) * cell + jax.nn.sigmoid(write) * jnp.tanh(candidate)
    return jax.nn.sigmoid(show) * jnp.tanh(cell), cell


def _gate(own, hidden, params, before):
    """A gate of every coordinate: ``[units, P], [P], [P] -> [P]``."""
    kernel, units = own["kernel"], hidden.shape[0]
    linear = kernel[:units] @ hidden + kernel[units] * params + kernel[units + 1] * before
    return jax.nn.sigmoid(linear + own["bias"])
