"""Networks as pure functions: adapters for Flax and plain functions, and the paper's networks."""

from mamljax.models.adapters import from_function, from_linen, from_nnx
from mamljax.models.conv import ConvNet, conv_net, miniimagenet_net, omniglot_net
from mamljax.models.convolution import convolution, max_pool
from mamljax.models.mlp import MLP, mlp
from mamljax.models.norm import Norm

__all__ = [
    "MLP",
    "ConvNet",
    "Norm",
    "conv_net",
    "convolution",
    "from_function",
    "from_linen",
    "from_nnx",
    "max_pool",
    "miniimagenet_net",
    "mlp",
    "omniglot_net",
]
