"""Plain classification of all training classes, then fine-tuning on a support set."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.tree_util import Partial

from mamljax import checks
from mamljax.algorithms import maml
from mamljax.losses import cross_entropy
from mamljax.meta import backprop
from mamljax.models.head import fresh_head, with_head
from mamljax.tasks.augment import Augment
from mamljax.tasks.episodes import augmented, images_per_class, unit_interval
from mamljax.tasks.stored import Stored, stored_or_on_device
from mamljax.types import Array, Batch, Learner, Model, Partition, Sampler, Task


def fine_tune(
    embedding: Model,
    *,
    classes: int,
    ways: int,
    inner_lr: Any = 0.01,
    num_steps: int = 1,
    partition: Partition | None = None,
    task_chunk: int | None = None,
    mesh: Mesh | None = None,
) -> Learner:
    """One classifier of all training classes; at test, gradient descent from its body.

    The fine-tuning baseline of Ravi and Larochelle 2017 and of Finn et al. 2017, table 1. Training
    is supervised classification: the objective is the cross-entropy of the query set, see
    `minibatches`. Adapting replaces the head by zeros for the task's classes, so that predictions
    start uniform and the first step moves the head alone. The step size only matters at test, see
    `tune_inner_lr`.

    Args:
      embedding: the body; what it returns is flattened to features ``[K, D]``.
      classes: training classes, outputs of the head that `init` makes.
      ways: classes ``N`` of a test task.
      inner_lr: the step size of fine-tuning.
      num_steps: inner steps of fine-tuning.
      partition: what is fine-tuned, such as ``by_path("^head/")``; all by default.
      task_chunk, mesh: see `backprop`.
    """
    checks.at_least("ways", ways, 1)
    model = with_head(embedding, classes)

    def start(meta_params, support):
        del support
        return meta_params | {"head": fresh_head(meta_params["head"], ways)}

    learner = maml(
        model,
        cross_entropy,
        inner_lr=inner_lr,
        num_steps=num_steps,
        partition=partition,
        start=start,
    )

    def joint(meta_params, task, key):
        return learner.loss(meta_params, task.query, key, 0)

    meta_gradient = backprop(joint, task_chunk=task_chunk, mesh=mesh)
    return learner._replace(objective=joint, meta_gradient=meta_gradient)


def minibatches(
    images: Array | np.ndarray | Stored,
    *,
    size: int,
    counts: Array | np.ndarray | None = None,
    augment: Augment | None = None,
    decode: Callable[[Array], Array] | None = None,
) -> Sampler:
    """A sampler of minibatches of all classes, to train a classifier with `fit`.

    A draw is a `Task` without a support set, whose query set is `size` examples drawn uniformly,
    with replacement, from all images; labels are the classes, 0 to C - 1. Each of a
    meta-batch is normalised by itself.

    Args:
      images: uint8 ``[C, M, H, W, ch]``, class by class; `Stored` ones stay on disk.
      size: examples per minibatch.
      counts: ``[C]``, images of each class; rows beyond are padding. All ``M`` by default.
      augment: random changes of every image, see `tasks.augment`.
      decode: from the bytes of a batch to floats, as in `episodes`.

    Raises:
      ArgumentError: if the arrays do not fit each other, or the images are not uint8.
    """
    checks.at_least("size", size, 1)
    decode = unit_interval if decode is None else decode
    checks.is_function("decode", decode, "images -> inputs")
    if augment is not None:
        checks.is_function("augment", augment, "(key, images) -> images")
    counts = images_per_class(images, counts)

    def sampler(images, ends, meta_params, key):
        del meta_params
        index = jax.random.randint(key, (size,), 0, ends[-1])
        labels = jnp.searchsorted(ends, index, side="right")
        starts = jnp.concatenate([jnp.zeros(1, ends.dtype), ends[:-1]])
        drawn = images[labels, index - starts[labels]]
        if augment is not None:
            drawn = augmented(augment, jax.random.fold_in(key, 1), drawn)
        return Task(support=(), query=Batch(decode(drawn), labels))

    # The images travel as an argument: as a constant they would be copied into every program.
    return Partial(sampler, stored_or_on_device(images), jnp.asarray(np.cumsum(counts), jnp.int32))
