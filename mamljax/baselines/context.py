"""Context vectors: adapt some extra inputs instead of the network's weights."""

from typing import Any

from mamljax.algorithms import maml
from mamljax.models.context import with_context
from mamljax.partition import by_path
from mamljax.types import Learner, LossFn, Model


def context_vector(
    model: Model, loss_fn: LossFn, shape: tuple[int, ...], **options: Any
) -> Learner:
    """Adapt free parameters among the inputs, and nothing else (Finn et al. 2017, appendix C.2).

    After Rei 2015, *Online representation learning in recurrent neural language models*. Inner
    steps change the context alone; where it starts and all weights are meta-learned.

    Args:
      model, shape: see `with_context`.
      loss_fn: ``(outputs, targets) -> scalar``, averaged over the examples.
      options: of `maml`, but for its partition.
    """
    partition = by_path("^context$")
    return maml(with_context(model, shape), loss_fn, partition=partition, **options)
