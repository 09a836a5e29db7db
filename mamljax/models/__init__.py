"""Networks as pure functions: adapters for Flax and plain functions, and the paper's networks."""

from mamljax.models.adapters import from_function, from_linen, from_nnx
from mamljax.models.mlp import MLP, mlp

__all__ = ["MLP", "from_function", "from_linen", "from_nnx", "mlp"]
