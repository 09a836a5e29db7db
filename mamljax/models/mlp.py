"""The fully connected network."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import linen as nn

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.models.linen import from_linen
from mamljax.models.norm import Norm, layer_and_model
from mamljax.types import Model

ACTIVATIONS: dict[str, Callable] = {
    "relu": jax.nn.relu,
    "tanh": jax.numpy.tanh,
    "gelu": jax.nn.gelu,
    "elu": jax.nn.elu,
}


class MLP(nn.Module):
    """Dense layers with an optional norm and an activation after each but the last.

    Attributes:
      features: the width of each layer, the last being the outputs.
      kernel_init: the initializer of the weights; biases start at 0.
      norm: ``none``, ``batch`` or ``layer``, see `Norm`.
      norm_scale, norm_offset: which parameters the norm has.
      activation: one of `ACTIVATIONS`.
    """

    features: Sequence[int]
    kernel_init: Callable[..., Any]
    norm: str = "none"
    norm_scale: bool = False
    norm_offset: bool = True
    activation: str = "relu"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """``[K, ...] -> [K, features[-1]]``."""
        x = x.reshape(x.shape[0], math.prod(x.shape[1:]))
        for index, width in enumerate(self.features[:-1]):
            x = nn.Dense(width, kernel_init=self.kernel_init)(x)
            x = Norm(self.norm, self.norm_scale, self.norm_offset, name=f"norm_{index}")(x)
            x = ACTIVATIONS[self.activation](x)
        return nn.Dense(self.features[-1], kernel_init=self.kernel_init)(x)


def mlp(
    features: Sequence[int],
    *,
    init: str | Callable[..., Any] = "xavier_uniform",
    init_std: float = 0.01,
    norm: str = "none",
    norm_scale: bool = False,
    norm_offset: bool = True,
    activation: str = "relu",
) -> Model:
    """A fully connected network, ``[K, ...] -> [K, features[-1]]``; images are flattened.

    Args:
      features: the width of each layer, the last being the outputs.
      init: ``xavier_uniform``, ``he_normal``, ``truncated_normal`` (of standard deviation
        `init_std`, cut at two), or any ``(key, shape, dtype) -> array``.
      init_std: the standard deviation of ``truncated_normal``.
      norm: ``none``, ``batch`` (statistics of the current batch), ``layer`` or ``support``, see
        `conv_net`.
      norm_scale, norm_offset: which parameters the norm has; see `conv_net` on how they adapt.
      activation: ``relu``, ``tanh``, ``gelu`` or ``elu``.

    Raises:
      ArgumentError: for an empty or non-positive width, or an unknown name.
    """
    widths = checks.sizes("features", features)
    if not widths:
        raise ArgumentError("features must name at least the output width; got an empty sequence.")
    checks.non_negative("init_std", init_std)
    inits: dict[str, Callable[..., Any]] = {
        "xavier_uniform": nn.initializers.xavier_uniform(),
        "he_normal": nn.initializers.he_normal(),
        "truncated_normal": _truncated_normal(init_std),
    }
    if isinstance(init, str):
        checks.one_of("init", init, inits)
        init = inits[init]
    checks.is_function("init", init, f"(key, shape, dtype) -> array, or one of {sorted(inits)}")
    kind, of_model = layer_and_model(norm)
    checks.one_of("activation", activation, ACTIVATIONS)
    return from_linen(MLP(widths, init, kind, norm_scale, norm_offset, activation), norm=of_model)


def _truncated_normal(std: float) -> Callable[..., Any]:
    """A normal distribution redrawn outside two `std`, as TensorFlow's truncated_normal is."""

    def initializer(key, shape, dtype=jax.numpy.float32):
        return std * jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype)

    return initializer
