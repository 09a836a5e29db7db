"""A linear head on an embedding: a classifier whose number of classes is free to change."""

import jax
import jax.numpy as jnp

from mamljax import checks
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


def prototype_head(features: Array, labels: Array) -> Params:
    """The head that classifies by the nearest prototype, the mean features of a class.

    Its logits are minus the squared Euclidean distances to the prototypes, but for the query's own
    square, which all classes share (Snell, Swersky, Zemel 2017, section 2.4).

    Args:
      features: of the support set, ``[K, D]``.
      labels: one-hot rows, ``[K, N]``.
    """
    means = class_means(features, labels)
    return {"kernel": 2 * means.T, "bias": -jnp.sum(jnp.square(means), axis=1)}


def class_means(values: Array, labels: Array) -> Array:
    """The mean row of each class, ``[K, D], [K, N] -> [N, D]``; zeros for a class without rows."""
    counts = jnp.sum(labels, axis=0)[:, None]
    return exact_product(labels.T, values) / jnp.maximum(counts, 1)


def exact_product(a: Array, b: Array) -> Array:
    """The matrix product in full precision, which GPUs otherwise round (sums decide ties here)."""
    return jnp.matmul(a, b, precision="highest")


def flattened(model: Model) -> Model:
    """The same model with its outputs flattened, ``[K, ...] -> [K, D]``."""
    checks.is_model("embedding", model)

    def apply(params, inputs, *, key=None, step=0):
        outputs = model.apply(params, inputs, key=key, step=step)
        return outputs.reshape(outputs.shape[0], -1)

    return model._replace(apply=apply)
