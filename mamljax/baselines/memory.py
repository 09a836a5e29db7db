"""A memory of keys and their classes (Kaiser et al. 2017, *Learning to remember rare events*)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mamljax import checks
from mamljax.baselines.amortised import amortised, refuse_support_statistics
from mamljax.baselines.metric import cosine_similarity, normalised
from mamljax.losses import one_hot
from mamljax.meta import backprop
from mamljax.models.head import with_head
from mamljax.types import Array, Learner, LossFn, Model


class Memory(NamedTuple):
    """The state that an episode carries from one example to the next.

    keys: ``[slots, width]`` of length one; zeros where nothing was written.
    values: ``[slots, N]``, the class of each key as a one-hot row; zeros where there is none.
    ages: ``[slots]``, examples since each was written.
    """

    keys: Array
    values: Array
    ages: Array


def empty(slots: int, width: int, ways: int, dtype: jnp.dtype) -> Memory:
    """A memory in which nothing was written."""
    keys, values = jnp.zeros((slots, width), dtype), jnp.zeros((slots, ways), dtype)
    return Memory(keys, values, jnp.zeros(slots, dtype))


def write(memory: Memory, key: Array, label: Array) -> Memory:
    """Remember one example (section 2 of the paper).

    Where its nearest neighbour has its class, that key becomes the mean of both, of length one.
    Otherwise the example takes the oldest slot. The slot's age is 0, all others grow older.

    Args:
      memory: before.
      key: ``[width]`` of length one.
      label: ``[N]``, one-hot.
    """
    filled = jnp.any(memory.values > 0, axis=1)
    similarities = cosine_similarity(key[None], memory.keys)[0]
    nearest = jnp.argmax(jnp.where(filled, similarities, -jnp.inf))
    right = jnp.sum(memory.values[nearest] * label)
    # Empty slots have never been made young: they are the oldest.
    slot = jnp.where(right > 0, nearest, jnp.argmax(memory.ages))
    key = normalised((key + right * memory.keys[nearest])[None])[0]
    return Memory(
        memory.keys.at[slot].set(key),
        memory.values.at[slot].set(label),
        (memory.ages + 1).at[slot].set(0),
    )


def nearest_of_each_class(memory: Memory, keys: Array) -> Array:
    """Each class's nearest key, ``[Q, width] -> [Q, N, width]``; zeros where a class has none."""
    similarities = cosine_similarity(keys, memory.keys)[:, None]
    of_class = memory.values.T > 0
    nearest = jnp.argmax(jnp.where(of_class, similarities, -jnp.inf), axis=2)
    return jnp.where(jnp.any(of_class, axis=1)[None, :, None], memory.keys[nearest], 0)


def similarity(keys: Array, nearest: Array) -> Array:
    """Cosines with the nearest keys, ``[Q, width], [Q, N, width] -> [Q, N]``; all of length one."""
    return jnp.einsum("qd,qnd->qn", keys, nearest, precision="highest")


def margin_loss(margin: float) -> LossFn:
    """The mean of ``max(0, wrong - right + margin)``: similarities ``[Q, N]``, labels ``[Q]``.

    Right is the similarity of the label's class, wrong the largest one of the others.
    """

    def loss(similarities: Array, labels: Array) -> Array:
        is_right = one_hot(labels, similarities.shape[1], similarities.dtype) > 0
        right = jnp.sum(jnp.where(is_right, similarities, 0), axis=1)
        wrong = jnp.max(jnp.where(is_right, -jnp.inf, similarities), axis=1)
        return jnp.mean(jax.nn.relu(wrong - right + margin))

    return loss


def memory_module(
    embedding: Model,
    *,
    ways: int,
    width: int = 128,
    slots: int = 256,
    margin: float = 0.1,
    task_chunk: int | None = None,
    mesh: Mesh | None = None,
) -> Learner:
    """An embedding whose support set is remembered as keys; a query has the class of the nearest.

    Kaiser et al. 2017. In training a whole task is one stream, support examples in random order and
    then queries: each is first answered from what came before, and scored by `margin_loss`, then
    written. At test the memory is that after the support set. Gradients reach the embedding through
    the example that is answered, not through what is remembered, as in the authors' code.

    Its parameters are those of `with_head`: a linear layer makes keys of the embedding's features.

    Args:
      embedding: ``inputs -> [K, ...]``.
      ways: classes ``N`` of a task, 2 or more; labels are 0 to N - 1.
      width: of a key.
      slots: of the memory; with fewer than a task has examples, the oldest are forgotten.
      margin: alpha of the loss.
      task_chunk, mesh: see `backprop`.

    Raises:
      ArgumentError: for a size that is too small, or a margin that is not positive.
    """
    checks.at_least("ways", ways, 2)
    checks.at_least("width", width, 1)
    checks.at_least("slots", slots, 1)
    checks.positive("margin", margin)
    refuse_support_statistics("memory_module", embedding)
    model, loss_fn = with_head(embedding, width), margin_loss(margin)

    def embed(meta_params, inputs, key=None, step=0):
        return normalised(model.apply(meta_params, inputs, key=key, step=step))

    def read(keys, labels):
        """The memory after a stream, and the keys nearest to each example before it was written."""
        keys, rows = jax.lax.stop_gradient(keys), one_hot(labels, ways, keys.dtype)
        # A stream cannot fill more slots than it has examples.
        memory = empty(min(slots, len(keys)), width, ways, keys.dtype)

        def recall_then_write(memory, example):
            key, label = example
            return write(memory, key, label), nearest_of_each_class(memory, key[None])[0]

        return jax.lax.scan(recall_then_write, memory, (keys, rows))

    def shuffled(key, batch):
        order = jax.random.permutation(key, batch.targets.shape[0])
        return jax.tree.map(lambda x: jnp.asarray(x)[order], batch)

    def encode(meta_params, support, key):
        support = shuffled(key, support)
        return read(embed(meta_params, support.inputs), support.targets)[0]

    def apply(params, inputs, *, key=None, step=0):
        keys = embed(params.meta_params, inputs, key, step)
        return similarity(keys, nearest_of_each_class(params.memory, keys))

    def objective(meta_params, task, key):
        draws = jax.random.split(key, 4)
        parts = [shuffled(k, b) for k, b in zip(draws, (task.support, task.query), strict=False)]
        keys = [embed(meta_params, b.inputs, k) for k, b in zip(draws[2:], parts, strict=True)]
        keys, labels = jnp.concatenate(keys), jnp.concatenate([b.targets for b in parts])
        _, nearest = read(keys, labels)
        return loss_fn(similarity(keys, nearest), labels)

    learner = amortised(Model(model.init, apply), encode, loss_fn)
    meta_gradient = backprop(objective, task_chunk=task_chunk, mesh=mesh)
    return learner._replace(objective=objective, meta_gradient=meta_gradient)
