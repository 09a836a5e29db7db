"""MAML by jax-meta (Deleu), a public library of meta-learning in JAX, on the network of a race.

All but the network and the tasks is the library's: the inner loop, `vmap` over tasks, the jitted
outer step. It knows no devices; tasks that lie on several let jax split the work among them.
"""

import importlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments.benchmark.measure import Contestant, Evaluation
from experiments.benchmark.peers import naive_jax
from experiments.benchmark.peers.naive_jax import Arrays
from mamljax.sharding import TASK_AXIS

# Not import statements: jax-meta is in an optional extra.
MAML: Any = importlib.import_module("jax_meta.metalearners").MAML


class Part(NamedTuple):
    """The support or the query sets of a meta-batch, as jax-meta takes them."""

    inputs: Any
    targets: Any


class Network(NamedTuple):
    """Stands for a network in Haiku: to initialise and apply; it has no state.

    kind: of `naive_jax.network`.
    start: the weights to start from.
    """

    kind: str
    start: Arrays

    def init(self, key: jax.Array) -> tuple[Arrays, dict]:
        """Weights and state."""
        del key
        return self.start, {}

    def apply(
        self, weights: Arrays, state: dict, images: jax.Array, *shared: Arrays
    ) -> tuple[jax.Array, dict]:
        """Logits and state; weights that do not adapt come behind the images."""
        for more in shared:
            weights = weights | more
        return naive_jax.network(self.kind, weights, images), state


class PartlyAdapting(MAML):
    """jax-meta's MAML, whose norms do not adapt."""

    def adapt(self, weights: Arrays, state: dict, inputs: Any, targets: Any, args: tuple) -> Any:
        """The adapted weights, and what the inner loop logs."""
        shared = {name: w for name, w in weights.items() if name.endswith("offset")}
        adapting = {name: w for name, w in weights.items() if name not in shared}
        adapted, logs = super().adapt(adapting, state, inputs, targets, (*args, shared))
        return adapted | shared, logs


def contestant(
    config: Any,
    sample: Callable[[jax.Array], Sequence[jax.Array]],
    start: Arrays,
    agreed: Arrays,
    batch: Sequence[np.ndarray],
    *,
    mesh: Mesh | None,
) -> Contestant:
    """The training step of a config's network, second order, which alone jax-meta has.

    The arguments are those of `naive_jax.contestant`.
    """
    train = config.train
    learner = PartlyAdapting(
        Network(config.model.network, start), num_steps=train.num_inner_steps, alpha=train.inner_lr
    )
    params, state = learner.init(jax.random.key(0), optax.adam(train.meta_lr))
    by_task = None
    if mesh is not None:
        by_task = NamedSharding(mesh, PartitionSpec(TASK_AXIS))
        params, state = jax.device_put((params, state), NamedSharding(mesh, PartitionSpec()))
    draw = jax.jit(sample, out_shardings=by_task)
    done, compiled = 0, False

    def step(params, state):
        nonlocal done
        train_inputs, train_targets, test_inputs, test_targets = draw(jax.random.key(done))
        done += 1
        parts = Part(train_inputs, train_targets), Part(test_inputs, test_targets)
        return learner.step(params, state, *parts)[:2]

    def run(num_iterations: int) -> float:
        nonlocal params, state, compiled
        started = time.perf_counter()
        if not compiled:
            compiled = True
            params, state = step(*step(params, state))  # whose results may lie on other devices
            jax.block_until_ready(params)
        compile_seconds = time.perf_counter() - started
        for _ in range(num_iterations):
            params, state = step(params, state)
        jax.block_until_ready(params)
        return compile_seconds

    def check() -> Evaluation:
        with jax.enable_x64(True):
            inputs, targets, *query = batch
            gradient = jax.value_and_grad(learner.batch_outer_loss, has_aux=True)
            (loss, _), grads = jax.jit(gradient, static_argnums=4)(
                agreed, {}, Part(inputs, targets), Part(*query), ()
            )
            return Evaluation(float(loss), {name: np.asarray(g) for name, g in grads.items()})

    return Contestant("jax-meta", "", 1, False, check, run)
