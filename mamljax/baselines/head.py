"""A linear head on an embedding: a classifier whose number of classes is free to change."""

import jax
import jax.numpy as jnp

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.types import Array, Model, Params


def with_head(embedding: Model, outputs: int) -> Model:
    """An embedding followed by a linear layer, ``[K, ...] -> [K, outputs]``.

    Its parameters are ``{"body": the embedding's, "head": {"kernel" [D, N], "bias" [N]}}``, the
    kernel Xavier-uniform and the bias 0. The number of outputs only matters to ``init``: ``apply``
    takes a head of any size, so the same model serves a classifier whose head was replaced.

    Args:
      embedding: ``inputs -> [K, ...]``; what it returns is flattened to features ``[K, D]``.
      outputs: classes ``N``.
    """
    checks.at_least("outputs", outputs, 1)
    embedding = flattened(embedding)

    def init(key, inputs):
        body_key, head_key = jax.random.split(key)
        body = embedding.init(body_key, inputs)
        features = jax.eval_shape(embedding.apply, body, inputs)
        shape = features.shape[1], outputs
        kernel = jax.nn.initializers.xavier_uniform()(head_key, shape, features.dtype)
        return {"body": body, "head": {"kernel": kernel, "bias": jnp.zeros(outputs, kernel.dtype)}}

    def apply(params, inputs, *, key=None, step=0):
        features = embedding.apply(params["body"], inputs, key=key, step=step)
        return linear(params["head"], features)

    def condition(params, inputs, step=0):
        assert embedding.condition is not None
        return params | {"body": embedding.condition(params["body"], inputs, step)}

    return Model(init, apply, embedding.condition and condition)


def fresh_head(head: Params, outputs: int) -> Params:
    """A head of zeros on the same features: it starts from no opinion, and needs no random draw."""
    return {name: jnp.zeros((*x.shape[:-1], outputs), x.dtype) for name, x in head.items()}


def linear(head: Params, features: Array) -> Array:
    """``[..., D] -> [..., N]``."""
    outputs = features @ head["kernel"]
    return outputs + jnp.broadcast_to(head["bias"], outputs.shape)


def refuse_support_statistics(method: str, embedding: Model) -> None:
    """Refuse an embedding with ``norm="support"`` for a method that embeds sets otherwise."""
    if embedding.condition is not None:
        raise ArgumentError(
            f"{method} does not take a network with norm='support': it does not embed a support "
            "set and then queries. Take norm='layer' where predictions must not depend on each "
            "other."
        )


def flattened(model: Model) -> Model:
    """The same model with its outputs flattened, ``[K, ...] -> [K, D]``."""
    checks.is_model("embedding", model)

    def apply(params, inputs, *, key=None, step=0):
        outputs = model.apply(params, inputs, key=key, step=step)
        return outputs.reshape(outputs.shape[0], -1)

    return model._replace(apply=apply)
