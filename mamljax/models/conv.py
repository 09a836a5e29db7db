"""The convolutional networks of few-shot classification."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.models.convolution import convolution, max_pool
from mamljax.models.linen import from_linen
from mamljax.models.norm import Norm, layer_and_model
from mamljax.types import Model

DOWNSAMPLING = ("stride", "max_pool")
READOUTS = ("mean", "flatten")


class Conv(nn.Module):
    """A 3x3 convolution with bias, "SAME" padding, see `convolution`.

    Attributes:
      filters: how many.
      stride: of both axes.
      add_bias: whether the bias counts. It is a parameter in either case.
    """

    filters: int
    stride: int = 1
    add_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """``[K, H, W, C] -> [K, H / stride, W / stride, filters]``."""
        shape = (3, 3, x.shape[-1], self.filters)
        kernel = self.param("kernel", nn.initializers.xavier_uniform(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.filters,))
        x = convolution(x, kernel, stride=self.stride)
        return x + bias.reshape(1, 1, 1, -1) if self.add_bias else x


class Block(nn.Module):
    """Convolution, norm, ReLU; half the size, by a stride of two or by 2x2 max-pooling."""

    filters: int
    downsample: str
    norm: str
    scale: bool
    offset: bool
    norm_steps: int | None

    @nn.compact
    def __call__(self, x: jax.Array, *, step: jax.Array | int = 0) -> jax.Array:
        """``[K, H, W, C] -> [K, H / 2, W / 2, filters]``, rounded up (stride) or down (pooling)."""
        strided = self.downsample == "stride"
        # Batch norm subtracts what all examples share: the authors' bias has no effect before it,
        # and adding it would be a further pass through memory.
        add_bias = self.norm != "batch"
        x = Conv(self.filters, 2 if strided else 1, add_bias, name="conv")(x)
        options = {"scale": self.scale, "offset": self.offset, "steps": self.norm_steps}
        norm = Norm(self.norm, **options, name="norm")
        return nn.relu(norm(x, step=step) if strided else norm(x, step=step, pool=max_pool))


class ConvNet(nn.Module):
    """A stack of `Block` and a linear layer, see `conv_net`."""

    outputs: int | None
    filters: int
    blocks: int
    downsample: str
    readout: str
    norm: str
    scale: bool
    offset: bool
    norm_steps: int | None
    head_init: Callable[..., Any]

    @nn.compact
    def __call__(self, x: jax.Array, *, step: jax.Array | int = 0) -> jax.Array:
        """``[K, H, W, C] -> [K, outputs]``."""
        for index in range(self.blocks):
            norm = (self.norm, self.scale, self.offset, self.norm_steps)
            x = Block(self.filters, self.downsample, *norm, name=f"block_{index}")(x, step=step)
        if 0 in x.shape[1:3]:
            raise ArgumentError(
                f"conv_net: {self.blocks} blocks leave nothing of the images; use fewer blocks or "
                "larger images."
            )
        flat = x.shape[0], math.prod(x.shape[1:])
        x = jnp.mean(x, (1, 2)) if self.readout == "mean" else x.reshape(flat)
        if self.outputs is None:
            return x
        return nn.Dense(self.outputs, kernel_init=self.head_init, name="head")(x)


def conv_net(
    outputs: int | None,
    *,
    filters: int,
    blocks: int = 4,
    downsample: str = "stride",
    readout: str = "mean",
    norm: str = "batch",
    norm_scale: bool = False,
    norm_offset: bool = True,
    norm_steps: int | None = None,
    head_init: Callable[..., Any] | None = None,
) -> Model:
    """Blocks of 3x3 convolution, norm and ReLU that halve the image, then a linear layer.

    Args:
      outputs: classes ``N``; None leaves the linear layer out, for an embedding ``[K, D]``.
      filters: per convolution.
      blocks: how many.
      downsample: ``stride`` (convolutions of stride two) or ``max_pool`` (2x2, after the norm).
      readout: from the last map to features, ``mean`` over its places or ``flatten``.
      norm: ``batch`` (statistics of the current batch), ``layer`` or ``none``, see `Norm`; or
        ``support``: as ``batch``, but what a learner predicts goes by the statistics of its support
        set, so that each query is classified by itself.
      norm_scale, norm_offset: which parameters the norm has. Whether they adapt in the inner loop
        is the partition's business: `partition.all_but("norm")` keeps them shared.
      norm_steps: give each of this many inner steps norm parameters of its own, as MAML++ does.
      head_init: the initializer of the linear layer's weights, Xavier-uniform by default.

    Parameters: ``block_0/conv/{kernel, bias}``, ``block_0/norm/{scale, offset}``, ...,
    ``head/{kernel, bias}``. Before batch norm a convolution's bias has no effect, and its gradient
    is 0; it is a parameter since the MAML authors' networks have it.

    Raises:
      ArgumentError: for a number below 1 or an unknown name.
    """
    if outputs is not None:
        checks.at_least("outputs", outputs, 1)
    checks.at_least("filters", filters, 1)
    checks.at_least("blocks", blocks, 1)
    checks.one_of("downsample", downsample, DOWNSAMPLING)
    checks.one_of("readout", readout, READOUTS)
    kind, of_model = layer_and_model(norm)
    if norm_steps is not None:
        checks.at_least("norm_steps", norm_steps, 1)
    head_init = nn.initializers.xavier_uniform() if head_init is None else head_init
    sizes = (outputs, filters, blocks, downsample, readout)
    net = ConvNet(*sizes, kind, norm_scale, norm_offset, norm_steps, head_init)
    return from_linen(net, norm=of_model)


def omniglot_net(outputs: int | None, **options: Any) -> Model:
    """The paper's network for 28x28 characters (Finn et al. 2017, section 5.2).

    Four convolutions of 64 filters and stride 2, the mean over the last 2x2 map, a linear layer
    with weights from N(0, 1): 112,005 parameters for 5 ways, 112,980 for 20, 256 of them norm
    offsets. Takes the options of `conv_net`.
    """
    return conv_net(outputs, **{"filters": 64, "head_init": nn.initializers.normal(1.0)} | options)


def miniimagenet_net(outputs: int | None, **options: Any) -> Model:
    """The paper's network for 84x84 colour images (Finn et al. 2017, section 5.2).

    Four convolutions of 32 filters with 2x2 max-pooling, 800 features, a linear layer: 32,773
    parameters for 5 ways, 128 of them norm offsets. Takes the options of `conv_net`.
    """
    defaults = {"filters": 32, "downsample": "max_pool", "readout": "flatten"}
    return conv_net(outputs, **defaults | options)
