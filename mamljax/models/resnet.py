"""The residual network of twelve layers that few-shot classification settled on."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.models.conv import READOUTS
from mamljax.models.convolution import convolution, max_pool
from mamljax.models.linen import from_linen
from mamljax.models.norm import Norm, layer_and_model
from mamljax.types import Model

WIDTHS = (64, 160, 320, 640)
EPSILON = 1e-5
"""Of the norm, as published; that of `conv_net` is larger."""


class NormedConv(nn.Module):
    """A convolution without bias, and a norm; without a norm it has the bias instead."""

    filters: int
    size: int
    norm: str
    norm_options: tuple[tuple[str, Any], ...]

    @nn.compact
    def __call__(self, x: jax.Array, *, step: jax.Array | int = 0) -> jax.Array:
        """``[K, H, W, C] -> [K, H, W, filters]``."""
        init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        shape = (self.size, self.size, x.shape[-1], self.filters)
        x = convolution(x, self.param("kernel", init, shape))
        if self.norm == "none":
            bias = self.param("bias", nn.initializers.zeros, (self.filters,))
            return x + bias.reshape(1, 1, 1, -1)
        norm = Norm(self.norm, epsilon=EPSILON, **dict(self.norm_options), name="norm")
        return norm(x, step=step)


class ResidualBlock(nn.Module):
    """Three 3x3 convolutions beside one of 1x1, added up; leaky ReLUs; half the size."""

    filters: int
    norm: str
    norm_options: tuple[tuple[str, Any], ...]

    @nn.compact
    def __call__(self, x: jax.Array, *, step: jax.Array | int = 0) -> jax.Array:
        """``[K, H, W, C] -> [K, H // 2, W // 2, filters]``."""

        def layer(x, size, name):
            options = (self.norm, self.norm_options)
            return NormedConv(self.filters, size, *options, name=name)(x, step=step)

        residual = layer(x, 1, "shortcut")
        x = nn.leaky_relu(layer(x, 3, "conv_0"), 0.1)
        x = nn.leaky_relu(layer(x, 3, "conv_1"), 0.1)
        return max_pool(nn.leaky_relu(layer(x, 3, "conv_2") + residual, 0.1))


class ResNet12(nn.Module):
    """Four of `ResidualBlock` and a linear layer, see `resnet12`."""

    outputs: int | None
    widths: tuple[int, ...]
    readout: str
    norm: str
    norm_options: tuple[tuple[str, Any], ...]
    head_init: Callable[..., Any]

    @nn.compact
    def __call__(self, x: jax.Array, *, step: jax.Array | int = 0) -> jax.Array:
        """``[K, H, W, C] -> [K, outputs]``."""
        for index, filters in enumerate(self.widths):
            options = (self.norm, self.norm_options)
            x = ResidualBlock(filters, *options, name=f"block_{index}")(x, step=step)
        if 0 in x.shape[1:3]:
            raise ArgumentError(
                "resnet12: the blocks leave nothing of the images; use images of at least "
                f"{2 ** len(self.widths)} pixels."
            )
        x = jnp.mean(x, (1, 2)) if self.readout == "mean" else x.reshape(x.shape[0], -1)
        if self.outputs is None:
            return x
        return nn.Dense(self.outputs, kernel_init=self.head_init, name="head")(x)


def resnet12(
    outputs: int | None,
    *,
    widths: Sequence[int] = WIDTHS,
    readout: str = "mean",
    norm: str = "batch",
    norm_scale: bool = True,
    norm_offset: bool = True,
    norm_steps: int | None = None,
    head_init: Callable[..., Any] | None = None,
) -> Model:
    """ResNet-12 for 84x84 images, in the widths of Lee et al. 2019 (MetaOptNet).

    Four blocks of three 3x3 convolutions with a 1x1 convolution beside them, leaky ReLUs of slope
    0.1 and 2x2 max-pooling: 12,424,320 parameters without a head, 640 features. Others take the
    widths (64, 128, 256, 512). What their protocol has besides is not part of it: DropBlock and
    dropout, and running averages in the batch norm, for which it has the choices of `conv_net`.

    Args:
      outputs: classes ``N``; None leaves the linear layer out, for an embedding ``[K, D]``.
      widths: filters of each block.
      readout: from the last map to features, ``mean`` over its places or ``flatten``.
      norm, norm_scale, norm_offset, norm_steps, head_init: see `conv_net`.

    Parameters: ``block_0/conv_0/{kernel, norm/scale, norm/offset}``, ``conv_1``, ``conv_2``,
    ``shortcut``, ..., ``head/{kernel, bias}``; without a norm a ``bias`` instead.

    Raises:
      ArgumentError: for a number below 1 or an unknown name.
    """
    if outputs is not None:
        checks.at_least("outputs", outputs, 1)
    widths = checks.sizes("widths", widths)
    checks.one_of("readout", readout, READOUTS)
    kind, of_model = layer_and_model(norm)
    if norm_steps is not None:
        checks.at_least("norm_steps", norm_steps, 1)
    options = (("scale", norm_scale), ("offset", norm_offset), ("steps", norm_steps))
    head_init = nn.initializers.xavier_uniform() if head_init is None else head_init
    net = ResNet12(outputs, widths, readout, kind, options, head_init)
    return from_linen(net, norm=of_model)
