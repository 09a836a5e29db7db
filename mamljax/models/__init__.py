"""Networks as pure functions: adapters for Flax and plain functions, and the paper's networks."""

from typing import TYPE_CHECKING, Any

from mamljax.models.context import with_context
from mamljax.models.conv import ConvNet, conv_net, miniimagenet_net, omniglot_net
from mamljax.models.convolution import convolution, max_pool
from mamljax.models.function import from_function
from mamljax.models.head import with_head
from mamljax.models.linen import from_linen
from mamljax.models.mlp import MLP, mlp
from mamljax.models.norm import Norm
from mamljax.models.policy import Categorical, Gaussian, categorical_policy, gaussian_policy
from mamljax.models.recurrent import recurrent_policy
from mamljax.models.resnet import ResNet12, resnet12

if TYPE_CHECKING:
    from mamljax.models.nnx import from_nnx

__all__ = [
    "MLP",
    "Categorical",
    "ConvNet",
    "Gaussian",
    "Norm",
    "ResNet12",
    "categorical_policy",
    "conv_net",
    "convolution",
    "from_function",
    "from_linen",
    "from_nnx",
    "gaussian_policy",
    "max_pool",
    "miniimagenet_net",
    "mlp",
    "omniglot_net",
    "recurrent_policy",
    "resnet12",
    "with_context",
    "with_head",
]


def __getattr__(name: str) -> Any:
    """Import `from_nnx` once it is asked for: `flax.nnx` is a seventh of what mamljax imports."""
    if name != "from_nnx":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mamljax.models.nnx import from_nnx

    return from_nnx
