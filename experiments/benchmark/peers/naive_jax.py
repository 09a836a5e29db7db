"""MAML in JAX as it is often written: `vmap` over tasks of a loss that calls `lax.conv`.

Per-task kernels make a grouped convolution of it. Tasks come from mamljax's sampler, and are split
over the same devices: with one CPU device per core it would otherwise have a single core.
"""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from experiments.benchmark.measure import Contestant, Evaluation
from mamljax.sharding import SHARED, TASK_AXIS, share_tasks

Arrays = dict[str, Any]
"""Weights by name, as `mamljax.models.weights.to_arrays` gives them."""


def contestant(
    config: Any,
    sample: Callable[[jax.Array], Sequence[jax.Array]],
    start: Arrays,
    agreed: Arrays,
    batch: Sequence[np.ndarray],
    *,
    mesh: Mesh | None,
) -> Contestant:
    """The training step of a config's network.

    Args:
      config: of the experiment.
      sample: from a key to a meta-batch: support images, labels, query images, labels.
      start: the weights that training starts from.
      agreed: the weights at which the loss and its gradient are compared.
      batch: the tasks on which they are compared.
      mesh: the devices to split tasks over.
    """
    train, tx = config.train, optax.adam(config.train.meta_lr)
    loss_of = functools.partial(cross_entropy, config.model.network)

    def task_loss(weights, support_x, support_y, query_x, query_y):
        adapted = weights
        for _ in range(train.num_inner_steps):
            grads = jax.grad(loss_of)(adapted, support_x, support_y)
            if config.method == "fomaml":
                grads = jax.lax.stop_gradient(grads)
            adapted = {
                name: w if name.endswith("offset") else w - train.inner_lr * grads[name]
                for name, w in adapted.items()
            }
        return loss_of(adapted, query_x, query_y)

    def meta_loss(weights, tasks):
        return jnp.mean(jax.vmap(task_loss, in_axes=(None, 0, 0, 0, 0))(weights, *tasks))

    def gradient(weights, tasks):
        found = jax.value_and_grad(meta_loss)(weights, tasks)
        return found if mesh is None else jax.lax.pmean(found, TASK_AXIS)

    shared = share_tasks(gradient, mesh, train.meta_batch, SHARED)

    def step(state, key):
        weights, opt_state = state
        _, grads = shared(weights, sample(key))
        updates, opt_state = tx.update(grads, opt_state)
        return optax.apply_updates(weights, updates), opt_state

    state, done, compiled = (start, tx.init(start)), 0, None

    def run(num_iterations: int) -> float:
        nonlocal state, done, compiled
        started = time.perf_counter()
        compiled = compiled or jax.jit(step).lower(state, jax.random.key(0)).compile()
        compile_seconds = time.perf_counter() - started
        for _ in range(num_iterations):
            state = compiled(state, jax.random.key(done))
            done += 1
        jax.block_until_ready(state)
        return compile_seconds

    def check() -> Evaluation:
        with jax.enable_x64(True):
            loss, grads = jax.jit(shared)(agreed, batch)
            return Evaluation(float(loss), {name: np.asarray(g) for name, g in grads.items()})

    return Contestant("jax.vmap of lax.conv", "", 1, False, check, run)


def cross_entropy(kind: str, weights: Arrays, images: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean cross-entropy of the strided or the pooled network."""
    logits = network(kind, weights, images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def network(kind: str, weights: Arrays, images: jax.Array) -> jax.Array:
    """The logits of the strided or the pooled network."""
    hidden, strided = images, kind == "omniglot"
    for i in range(4):
        hidden = jax.lax.conv_general_dilated(
            hidden,
            weights[f"block_{i}/conv/kernel"],
            (2, 2) if strided else (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        hidden = hidden + weights[f"block_{i}/conv/bias"].reshape(1, 1, 1, -1)
        mean, variance = (f(hidden, (0, 1, 2), keepdims=True) for f in (jnp.mean, jnp.var))
        hidden = (hidden - mean) / jnp.sqrt(variance + 1e-3)
        hidden = jax.nn.relu(hidden + weights[f"block_{i}/norm/offset"].reshape(1, 1, 1, -1))
        if not strided:
            window = (1, 2, 2, 1)
            hidden = jax.lax.reduce_window(hidden, -jnp.inf, jax.lax.max, window, window, "VALID")
    features = hidden.mean((1, 2)) if strided else hidden.reshape(len(hidden), -1)
    return features @ weights["head/kernel"] + weights["head/bias"][None]
