"""A variational autoencoder of sets (Edwards and Storkey 2017, *Towards a neural statistician*)."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh

from mamljax import checks
from mamljax.baselines.amortised import Encoded, amortised, refuse_support_statistics
from mamljax.losses import cross_entropy, one_hot
from mamljax.meta import backprop
from mamljax.models import from_linen, mlp
from mamljax.models.conv import Conv
from mamljax.models.head import class_means, flattened
from mamljax.types import Array, Learner, Model


class Normal(NamedTuple):
    """Normal distributions with independent entries: mean and logarithm of the variance, each
    ``[..., D]``."""

    mean: Array
    log_variance: Array


class Statistician(NamedTuple):
    """A classifier, and the generative model that it is by.

    learner: classifies.
    sample: ``(adapted params, key, number) -> images [N * number, ...]`` in [0, 1], class by class.
    """

    learner: Learner
    sample: Callable[[Encoded, Array, int], Array]


def kl_divergence(p: Normal, q: Normal) -> Array:
    """``KL(p || q)``, ``[..., D] -> [...]``."""
    distance = jnp.square(p.mean - q.mean) * jnp.exp(-q.log_variance)
    difference = p.log_variance - q.log_variance
    return 0.5 * jnp.sum(distance + jnp.exp(difference) - 1 - difference, axis=-1)


def log_likelihood(logits: Array, pixels: Array) -> Array:
    """The logarithm of Bernoulli probabilities, ``[K, ...] -> [K]``; grey pixels count in part."""
    each = pixels * jax.nn.log_sigmoid(logits) + (1 - pixels) * jax.nn.log_sigmoid(-logits)
    return jnp.sum(each.reshape(len(each), -1), axis=1)


class Decoder(nn.Module):
    """Codes to logits of pixels: a small map, doubled twice by convolutions.

    Attributes:
      shape: of one input: an image ``(H, W, ch)``, or a vector ``(D,)``, without convolutions.
      hidden: units of the layer before a vector.
      filters: of each convolution.
    """

    shape: tuple[int, ...]
    hidden: int
    filters: int

    @nn.compact
    def __call__(self, codes: Array) -> Array:
        """``[K, codes] -> [K, *shape]``."""
        if len(self.shape) != 3:
            x = nn.elu(nn.Dense(self.hidden)(codes))
            return nn.Dense(math.prod(self.shape))(x).reshape(-1, *self.shape)
        height, width, channels = self.shape
        small = -(-height // 4), -(-width // 4), self.filters
        x = nn.elu(nn.Dense(math.prod(small))(codes)).reshape(-1, *small)
        for _ in range(2):
            x = nn.elu(_doubled(Conv(4 * self.filters)(x)))
        return Conv(channels)(x)[:, :height, :width]


def statistician(
    embedding: Model,
    shape: tuple[int, ...],
    *,
    ways: int,
    context: int = 512,
    latent: int = 16,
    hidden: int = 256,
    filters: int = 32,
    sample_dropout: float = 0.5,
    task_chunk: int | None = None,
    mesh: Mesh | None = None,
) -> Statistician:
    """The neural statistician: a statistic of a class's set is a distribution over its context.

    Edwards and Storkey 2017. An image is drawn from its latent code and the context that all images
    of its class share. Training maximises the variational bound (section 3) of every class of a
    task as one set, support and query examples together: nothing is trained to classify. Some
    examples are left out of their set's statistic, which is told how many stay, so that it learns
    how much fewer say. A query has the class for which ``KL(q(context | support) || q(context |
    query))`` is least.

    Its parameters are by network: ``embedding``, ``before`` and ``after`` the mean over a set (the
    statistic network), ``posterior`` and ``prior`` of the latent code, ``decoder``.

    Args:
      embedding: ``inputs -> [K, ...]``; the statistic and the posterior read its features.
      shape: of one input, with pixels in [0, 1]: ``(H, W, ch)``, or ``(D,)``.
      ways: classes ``N`` of a task; labels are 0 to N - 1.
      context, latent: entries of the context and of the latent code.
      hidden: units of each dense layer.
      filters: of the decoder.
      sample_dropout: probability that training leaves an example out of the statistic of its set,
        of which at least one stays.
      task_chunk, mesh: see `backprop`.

    Raises:
      ArgumentError: for a size below 1, or a probability outside 0 to 1.
    """
    checks.fraction("sample_dropout", sample_dropout)
    for name, size in {"ways": ways, "context": context, "latent": latent}.items():
        checks.at_least(name, size, 1)
    shape = checks.sizes("shape", shape)
    refuse_support_statistics("statistician", embedding)
    layers: dict[str, Any] = {"activation": "elu", "norm": "layer"}
    codes = mlp((hidden, hidden, hidden, 2 * latent), **layers)
    networks = {
        "embedding": flattened(embedding),
        "before": mlp((hidden,)),
        "after": mlp((hidden, hidden, 2 * context), **layers),
        "posterior": codes,
        "prior": codes,
        "decoder": from_linen(Decoder(shape, hidden, filters)),
    }

    def init(key, inputs):
        features = jax.eval_shape(
            lambda: networks["embedding"].apply(networks["embedding"].init(key, inputs), inputs)
        )
        width = features.shape[1]
        sizes = (width, hidden + 1, width + context, context, latent + context)
        examples = [inputs, *(jnp.zeros((1, size), features.dtype) for size in sizes)]
        keys = jax.random.split(key, len(networks))
        return {
            name: network.init(key, example)
            for (name, network), key, example in zip(networks.items(), keys, examples, strict=True)
        }

    def apply(name, meta_params, inputs, **options):
        return networks[name].apply(meta_params[name], inputs, **options)

    def statistic(meta_params, features, labels=None):
        """``q(context | set)``, of sets by one-hot labels ``[K, N]``, or of each example alone."""
        each = nn.elu(apply("before", meta_params, features))
        pooled = each if labels is None else class_means(each, labels)
        sizes = jnp.ones(len(each)) if labels is None else jnp.maximum(jnp.sum(labels, axis=0), 1)
        of_sets = jnp.concatenate([pooled, jnp.log(sizes).astype(pooled.dtype)[:, None]], axis=1)
        return _normal(apply("after", meta_params, of_sets))

    def encode(meta_params, support, key):
        del key
        features = apply("embedding", meta_params, support.inputs)
        return statistic(meta_params, features, one_hot(support.targets, ways, features.dtype))

    def predict(params, inputs, *, key=None, step=0):
        features = apply("embedding", params.meta_params, inputs, key=key, step=step)
        alone = statistic(params.meta_params, features)
        classes = jax.tree.map(lambda x: x[None], params.memory)
        return -kl_divergence(classes, jax.tree.map(lambda x: x[:, None], alone))

    def objective(meta_params, task, key):
        embed_key, dropout_key, context_key, latent_key = jax.random.split(key, 4)
        parts = zip((task.support, task.query), jax.random.split(embed_key), strict=True)
        features = jnp.concatenate(
            [apply("embedding", meta_params, batch.inputs, key=k) for batch, k in parts]
        )
        pixels, targets = jax.tree.map(lambda *both: jnp.concatenate(both), *task)
        labels = one_hot(targets, ways, features.dtype)
        contexts = statistic(meta_params, features, _some(labels, dropout_key, sample_dropout))
        of_example = labels @ _draw(contexts, context_key)
        read = jnp.concatenate([features, of_example], axis=1)
        posterior = _normal(apply("posterior", meta_params, read))
        prior = _normal(apply("prior", meta_params, of_example))
        logits = decode(meta_params, _draw(posterior, latent_key), of_example)
        bound = jnp.sum(log_likelihood(logits, pixels) - kl_divergence(posterior, prior))
        of_contexts = kl_divergence(contexts, jax.tree.map(jnp.zeros_like, contexts))
        bound = bound - jnp.sum(of_contexts * jnp.any(labels > 0, axis=0))
        return -bound / len(pixels)

    def decode(meta_params, latents, contexts):
        return apply("decoder", meta_params, jnp.concatenate([latents, contexts], axis=1))

    def sample(params, key, number):
        contexts = jnp.repeat(params.memory.mean, number, axis=0)
        prior = _normal(apply("prior", params.meta_params, contexts))
        return jax.nn.sigmoid(decode(params.meta_params, _draw(prior, key), contexts))

    learner = amortised(Model(init, predict), encode, cross_entropy)
    meta_gradient = backprop(objective, task_chunk=task_chunk, mesh=mesh)
    return Statistician(learner._replace(objective=objective, meta_gradient=meta_gradient), sample)


def _doubled(maps: Array) -> Array:
    """Four maps as one of twice the height and width, ``[K, H, W, 4 F] -> [K, 2 H, 2 W, F]``."""
    # After a convolution it is a transposed one, which by itself takes twice as long on CPU.
    count, height, width, maps_in = maps.shape
    places = maps.reshape(count, height, width, 2, 2, maps_in // 4).transpose(0, 1, 3, 2, 4, 5)
    return places.reshape(count, 2 * height, 2 * width, maps_in // 4)


def _some(labels: Array, key: Array, dropout: float) -> Array:
    """One-hot labels ``[K, N]`` without those dropped; of each class at least one stays."""
    draws = jax.random.uniform(key, labels.shape[:1])[:, None]
    largest = jnp.max(labels * draws, axis=0, keepdims=True)
    return labels * (draws >= jnp.minimum(largest, dropout))


def _normal(outputs: Array) -> Normal:
    return Normal(*jnp.split(outputs, 2, axis=-1))


def _draw(normal: Normal, key: Array) -> Array:
    noise = jax.random.normal(key, normal.mean.shape, normal.mean.dtype)
    return normal.mean + jnp.exp(normal.log_variance / 2) * noise
