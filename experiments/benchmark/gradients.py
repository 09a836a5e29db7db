"""How much of a policy gradient is signal, of a robot's policy after 64 meta-iterations.

    python -m experiments.benchmark --suite=gradients --output=results/gradients.json

An inner step learns from the few episodes of one task. Draws of the same task are compared: the
cosine of their gradients, and the return after a step by one of them and by their mean.

The outer step learns from the episodes of all tasks. The natural gradient of one meta-batch is
judged by the gradients of others: what the surrogate, in standard deviations of the advantages,
gains by a step to the edge of the trust region, on the batch itself and on the others. What is
gained on the batch alone is noise.
"""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from configs import locomotion as locomotion_config
from experiments import locomotion
from experiments.benchmark import parts
from experiments.benchmark.measure import Options
from experiments.harness import model_file
from experiments.harness.config import Config
from experiments.harness.main import set_up_cpu
from experiments.meta_rl import methods
from mamljax import rl
from mamljax.rl.sampler import experience
from mamljax.sharding import training_mesh
from mamljax.tasks import sample_tasks
from mamljax.tasks.sampling import placed
from mamljax.types import Params

NAME = "cheetah_direction"
WEIGHTS = "locomotion/cheetah_direction_64.npz"
DISCOUNTS = (0.99, 0.95, 0.9)
LAMBDAS = (1.0, 0.97, 0.9, 0.7)
SEARCHES = ((0, 0.0), (5, 1e-2), (10, 1e-2), (5, 1.0))
"""Iterations of conjugate gradients and damping; without any the gradient itself."""


class Size(NamedTuple):
    """Size of the measurement.

    tasks: that draws are compared on.
    draws: of each.
    batches: meta-batches, each the judge of the others.
    """

    tasks: int = 10
    draws: int = 5
    batches: int = 4


FULL = Size()


def run(output: Path, options: Options) -> dict[str, Any]:
    """Measure what the output does not hold yet; print it all."""
    del options
    config = locomotion_config.get_config(NAME)
    set_up_cpu(config)
    env = locomotion.build(config)
    method = methods.build(config, env, "maml")
    shapes = methods.shapes({"maml": method}, jax.random.key(0))
    runs, _ = model_file.load(parts.RESULTS / WEIGHTS, shapes)
    given = config, env, runs["maml"].meta_params
    measured: parts.Parts = {"inner steps": functools.partial(inner_steps, *given)}
    for gae_lambda in LAMBDAS[:-1]:
        name = f"outer steps, lambda {gae_lambda}"
        measured[name] = functools.partial(outer_steps, *given, gae_lambda)
    return parts.run("gradients", output, measured)


def inner_steps(
    config: Config, env: rl.Env, params: Params, size: Size = FULL
) -> list[dict[str, Any]]:
    """Return a row for each discount and lambda."""
    policy = methods.build(config, env, "maml").policy
    keys = jax.random.split(jax.random.key(0), size.tasks)
    tasks = jax.vmap(lambda key, place: placed(env.sample_task, place)(key))(
        keys, jnp.arange(size.tasks)
    )

    @jax.jit
    def rolled(params, key):
        def one(params, task, key):
            sizes = {"episodes": config.train.episodes, "horizon": config.env.horizon}
            return rl.rollout(env, policy.apply, params, task, key, **sizes)

        return jax.vmap(one)(params, tasks, jax.random.split(key, size.tasks))

    @jax.jit
    def gradient(trajectories, discount, gae_lambda):
        def one(trajectories):
            batch = experience(trajectories, discount=discount, gae_lambda=gae_lambda)

            def loss(params):
                return rl.losses.reinforce(policy.apply(params, batch.inputs), batch.targets)

            return jax.grad(loss)(params)

        return jax.vmap(one)(trajectories)

    same = jax.tree.map(lambda x: jnp.broadcast_to(x, (size.tasks, *x.shape)), params)

    def after(gradients, seed):
        stepped = jax.tree.map(lambda x, g: x - config.train.inner_lr * g, same, gradients)
        rewards = rolled(stepped, jax.random.key(seed)).rewards
        return float(rewards.sum(axis=-1).mean())

    drawn = [rolled(same, jax.random.key(seed)) for seed in range(size.draws)]
    rows = []
    for discount in DISCOUNTS:
        for gae_lambda in LAMBDAS:
            found = [gradient(trajectories, discount, gae_lambda) for trajectories in drawn]
            mean = jax.tree.map(lambda *each: sum(each) / len(each), *found)
            by_task = np.stack([jax.vmap(lambda g: ravel_pytree(g)[0])(each) for each in found], 1)
            returns = [after(each, 100 + i) for i, each in enumerate(found)]
            row: dict[str, Any] = {"discount": discount, "lambda": gae_lambda}
            row["cosine"] = float(np.mean([agreement(vectors) for vectors in by_task]))
            row["return_after"] = float(np.mean(returns))
            rows.append(row | {"return_after_the_mean": after(mean, 200)})
    return rows


def outer_steps(
    config: Config, env: rl.Env, params: Params, gae_lambda: float, size: Size = FULL
) -> list[dict[str, Any]]:
    """Return a row for each of `SEARCHES`."""
    config = config.copy_and_resolve_references()
    config.train.gae_lambda = gae_lambda
    method = methods.build(config, env, "maml")
    learner, mesh = method.learner(), training_mesh(config.train.meta_batch)
    sampler = rl.recorded(methods.sampler(config, method, learner, config.train), learner.adapt)
    arguments = rl.policy_arguments(learner, **methods.curvature_options(config))

    @jax.jit
    def searched(params, key):
        chunk = config.train.rollout_chunk or None
        tasks = sample_tasks(
            sampler, params, key, config.train.meta_batch, task_chunk=chunk, mesh=mesh
        )
        gradient = learner.meta_gradient(params, tasks, key)[0]
        curvature = arguments(params, tasks, key)["curvature"]
        directions = []
        for iterations, damping in SEARCHES:
            direction = gradient
            if iterations:
                search = rl.natural_gradient(iterations, damping)
                state = search.init(params)
                direction, _ = search.update(gradient, state, params, curvature=curvature)
            # To the edge of the trust region: half the product is the divergence.
            divergence = optax.tree.vdot(direction, curvature(direction)) / 2
            length = jnp.sqrt(config.train.max_kl / divergence)
            directions.append(length * ravel_pytree(direction)[0])
        return ravel_pytree(gradient)[0], jnp.stack(directions)

    keys = jax.random.split(jax.random.key(1), size.batches)
    found = [jax.device_get(searched(params, key)) for key in keys]
    gradients, directions = (np.stack(each) for each in zip(*found, strict=True))
    rows = []
    for i, (iterations, damping) in enumerate(SEARCHES):
        own, others = gains(gradients, directions[:, i])
        row = {"iterations": iterations, "damping": damping}
        cosine = agreement(directions[:, i])
        rows.append(row | {"cosine": cosine, "gain": own, "gain_on_others": others})
    return rows


def agreement(vectors: np.ndarray) -> float:
    """The mean cosine of two different ones of some vectors, ``[K, D]``."""
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = units @ units.T
    return float(cosines[~np.eye(len(units), dtype=bool)].mean())


def gains(gradients: np.ndarray, steps: np.ndarray) -> tuple[float, float]:
    """Return what steps gain to first order, ``[K, D]`` each: on their own batch, on the others."""
    products = steps @ gradients.T
    own = np.eye(len(gradients), dtype=bool)
    return float(products[own].mean()), float(products[~own].mean())
