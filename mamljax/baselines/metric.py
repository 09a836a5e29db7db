"""Comparing queries with an embedded support set: prototypes, attention, twins, neighbours.

Support and query sets are embedded apart, so an embedding with batch normalisation uses the
statistics of each, as everywhere in this library (see `mamljax.models.modes`).
"""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mamljax import checks
from mamljax.baselines.amortised import amortised
from mamljax.losses import cross_entropy, one_hot
from mamljax.models.head import class_means, exact_product, flattened, linear, with_head
from mamljax.types import Array, Learner, LossFn, Model, Params, exportable


@exportable
class Support(NamedTuple):
    """An embedded support set: features ``[K, D]`` and one-hot labels ``[K, N]``."""

    features: Array
    labels: Array


class ScoreFn(Protocol):
    """``(meta_params, queries [Q, D], support) -> outputs``, mostly logits ``[Q, N]``."""

    def __call__(self, meta_params: Params, queries: Array, support: Support, /) -> Any: ...


class Pairs(NamedTuple):
    """The log-odds ``[Q, K]`` that query and support example share a class, and the latter's."""

    log_odds: Array
    labels: Array


def metric_learner(
    embedding: Model,
    score: ScoreFn,
    *,
    ways: int,
    loss_fn: LossFn = cross_entropy,
    task_chunk: int | None = None,
    mesh: Mesh | None = None,
) -> Learner:
    """Embed the support set, then score embedded queries against it; trained on the query loss.

    Its meta-parameters are the embedding's own. Stochastic layers draw for the queries alone, and
    in training only: adaptation cannot tell training from test.

    Args:
      embedding: ``inputs -> [K, ...]``; what it returns is flattened to features ``[K, D]``.
      score: compares features, see `ScoreFn`.
      ways: classes ``N`` of a task; labels are 0 to N - 1.
      loss_fn: of the outputs and the queries' labels.
      task_chunk, mesh: see `backprop`.
    """
    checks.at_least("ways", ways, 1)
    embedding = flattened(embedding)

    def encode(meta_params, support, key):
        del key
        features = embedding.apply(meta_params, support.inputs)
        return Support(features, one_hot(support.targets, ways, features.dtype))

    def apply(params, inputs, *, key=None, step=0):
        queries = embedding.apply(params.meta_params, inputs, key=key, step=step)
        return score(params.meta_params, queries, params.memory)

    model = embedding._replace(apply=apply)
    return amortised(model, encode, loss_fn, task_chunk=task_chunk, mesh=mesh)


def prototypical(embedding: Model, *, ways: int, **options: Any) -> Learner:
    """Prototypical Networks (Snell, Swersky, Zemel 2017, equations 1 and 2).

    Logits are minus the squared Euclidean distances to the mean features of each class. Takes the
    options of `metric_learner`.
    """

    def score(meta_params, queries, support):
        del meta_params
        return negative_squared_distance(queries, class_means(support.features, support.labels))

    return metric_learner(embedding, score, ways=ways, **options)


def matching(embedding: Model, *, ways: int, similarity: str = "cosine", **options: Any) -> Learner:
    """Matching Networks without full-context embeddings (Vinyals et al. 2016, section 2.1.1).

    A softmax of similarities attends over the support examples; a class has the probability of the
    attention on its examples. Outputs are the logarithms of these probabilities, so that
    `cross_entropy` is their negative log-likelihood. One embedding serves queries and support.

    Args:
      embedding: ``inputs -> [K, ...]``.
      ways: classes ``N`` of a task.
      similarity: ``cosine``, the paper's, which lies within -1 and 1, so that attention is never
        sharp; or ``euclidean`` (minus the squared distance).
      options: of `metric_learner`.
    """
    checks.one_of("similarity", similarity, SIMILARITIES)

    def score(meta_params, queries, support):
        del meta_params
        attention = jax.nn.softmax(SIMILARITIES[similarity](queries, support.features))
        probabilities = exact_product(attention, support.labels)
        # A class without support examples gets a floor, not the logarithm of 0.
        return jnp.log(jnp.maximum(probabilities, jnp.finfo(probabilities.dtype).tiny))

    return metric_learner(embedding, score, ways=ways, **options)


def siamese(
    embedding: Model, *, ways: int, task_chunk: int | None = None, mesh: Mesh | None = None
) -> Learner:
    """A Siamese network that verifies pairs (Koch, Zemel, Salakhutdinov 2015, section 3).

    The log-odds that two examples share a class are a learned linear function, with a bias, of the
    absolute differences of their features; parameters are those of `with_head` with one output.
    Training is by `pair_loss` on all pairs of a query and a support example. A query's score for a
    class, which the paper leaves open beyond one shot, is the mean log-odds over the class's
    support examples; the loss at test is the `cross_entropy` of these scores. The paper's embedding
    ends in a sigmoid; here that is up to `embedding`.
    """
    embedding = flattened(embedding)

    def embed(params, inputs, *, key=None, step=0):
        return embedding.apply(params["body"], inputs, key=key, step=step)

    def verify(params, queries, support):
        differences = jnp.abs(queries[:, None] - support.features[None])
        return Pairs(linear(params["head"], differences)[..., 0], support.labels)

    twins = with_head(embedding, 1)._replace(apply=embed)
    learner = metric_learner(
        twins, verify, ways=ways, loss_fn=pair_loss, task_chunk=task_chunk, mesh=mesh
    )

    def predict(params, inputs, *, key=None, step=0):
        log_odds, labels = learner.predict(params, inputs, key=key, step=step)
        return class_means(log_odds.T, labels).T

    return learner._replace(predict=predict, loss_fn=cross_entropy)


def pair_loss(pairs: Pairs, targets: Array) -> Array:
    """Binary cross-entropy of "same class", where equal and unequal pairs weigh one half each.

    Koch et al. draw as many equal as unequal pairs; of all pairs in an N-way episode only one in N
    is equal, and the weights restore their balance.
    """
    ways = pairs.labels.shape[1]
    same = exact_product(one_hot(targets, ways, pairs.labels.dtype), pairs.labels.T)
    on_same = jnp.sum(same * jax.nn.softplus(-pairs.log_odds)) / jnp.maximum(jnp.sum(same), 1)
    other = 1 - same
    on_other = jnp.sum(other * jax.nn.softplus(pairs.log_odds)) / jnp.maximum(jnp.sum(other), 1)
    return (on_same + on_other) / 2


def nearest_neighbour(
    embedding: Model | None = None,
    *,
    ways: int,
    similarity: str = "euclidean",
    **options: Any,
) -> Learner:
    """The class of the nearest support example: one neighbour, whatever the number of shots.

    Nothing needs training: pass as meta-parameters those of a pretrained embedding, such as the
    ``"body"`` of a classifier from `fine_tune`. A logit is the similarity to the class's nearest
    example; where classes tie, the argmax takes the lower label.

    Args:
      embedding: None compares the inputs themselves (pixels); meta-parameters are then ``()``.
      ways: classes ``N`` of a task.
      similarity: ``euclidean`` (minus the squared distance) or ``cosine``.
      options: of `metric_learner`.
    """
    checks.one_of("similarity", similarity, SIMILARITIES)
    embedding = identity() if embedding is None else embedding

    def score(meta_params, queries, support):
        del meta_params
        # A row of labels adds up to 1, or to NaN for a label outside the classes.
        known = jnp.sum(support.labels, axis=1)[None]
        similarities = SIMILARITIES[similarity](queries, support.features) * known
        of_class = (support.labels.T != 0)[None]
        return jnp.max(jnp.where(of_class, similarities[:, None], -jnp.inf), axis=2)

    return metric_learner(embedding, score, ways=ways, **options)


def identity() -> Model:
    """The embedding that returns its inputs; it has no parameters."""
    return Model(lambda key, inputs: (), lambda params, inputs, *, key=None, step=0: inputs)


def negative_squared_distance(a: Array, b: Array) -> Array:
    """``[Q, D], [K, D] -> [Q, K]``."""
    # Not by expanding the square: near neighbours would cancel to noise in single precision.
    return -jnp.sum(jnp.square(a[:, None] - b[None]), axis=2)


def cosine_similarity(a: Array, b: Array) -> Array:
    """``[Q, D], [K, D] -> [Q, K]``; a vector of zeros is similar 0 to everything."""
    return exact_product(normalised(a), normalised(b).T)


SIMILARITIES = {"euclidean": negative_squared_distance, "cosine": cosine_similarity}


def normalised(rows: Array) -> Array:
    """Rows of length one, ``[K, D] -> [K, D]``; zeros stay zeros."""
    # The floor keeps the gradient finite at zero.
    return rows * jax.lax.rsqrt(jnp.maximum(jnp.sum(rows**2, axis=1, keepdims=True), 1e-12))
