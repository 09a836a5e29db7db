"""The time of a meta-iteration in reinforcement learning, part by part.

    python -m experiments.benchmark --suite=navigation --output=results/speed_navigation.json

Measures, round robin in one run, the same batch of environments under random actions (a bare
simulator), under the policy, with advantages, with adaptation (what training samples), the
meta-gradient, the whole trust-region step, and the whole meta-iteration; each at the settings of
the experiment's config. The differences between them say what each part costs.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from configs import locomotion as locomotion_config
from configs import navigation as navigation_config
from experiments import locomotion, navigation
from experiments.benchmark.measure import Contestant, Options, Suite, matmul_gflops, measure
from experiments.harness.config import Config
from experiments.harness.main import set_up_cpu
from experiments.meta_rl import methods
from mamljax import files, init_state, models, rl
from mamljax.rl.sampler import experience
from mamljax.running.provenance import provenance
from mamljax.sharding import largest_task_mesh, over_tasks
from mamljax.tasks import sample_tasks

ENVS = ("navigation", *rl.LOCOMOTION)


def parts(config: Config, env: rl.Env) -> dict[str, Callable[[Any], Any]]:
    """Functions of a key, each doing more of a meta-iteration than the one before."""
    method = methods.build(config, env, "maml")
    learner, tx = method.learner(), methods.outer_optimizer(config)
    drawn = methods.sampler(config, method, learner, config.train)
    recorded = rl.recorded(drawn, learner.adapt)
    mesh = largest_task_mesh(config.train.meta_batch)
    rollout_chunk = config.train.rollout_chunk or None
    step = methods.step_of(config, learner, tx)
    params = learner.init(jax.random.key(0), jnp.zeros((1, env.observation_size)))
    state = init_state(params, tx)

    @jax.jit
    def tasks(key):
        sizes = {"num_tasks": config.train.meta_batch, "task_chunk": rollout_chunk, "mesh": mesh}
        return sample_tasks(recorded, params, key, **sizes)

    def noise(params, observations):
        del params
        zeros = jnp.zeros((*observations.shape[:-1], env.action_size))
        return models.Gaussian(zeros, zeros)

    def every_task(function):
        """Map `function`, which does something with one task and a key."""

        def one(_, key):
            task_key, key = jax.random.split(key)
            return function(env.sample_task(task_key), key)

        def run(key):
            keys = jax.random.split(key, config.train.meta_batch)
            return over_tasks(one, (), keys, rollout_chunk or len(keys), mesh)

        return run

    def rolled(policy):
        sizes = {"episodes": config.train.episodes, "horizon": config.env.horizon}
        return lambda task, key: rl.rollout(env, policy, params, task, key, **sizes)

    policy = rolled(learner.predict)
    fixed = tasks(jax.random.key(1))
    return {
        "random actions": every_task(rolled(noise)),
        "rollouts": every_task(policy),
        "rollouts and advantages": every_task(lambda task, key: experience(policy(task, key))),
        "sampling": tasks,
        "meta-gradient": lambda key: learner.meta_gradient(params, fixed, key)[0],
        "trust-region step": lambda key: step(state, fixed, key)[0].meta_params,
        "meta-iteration": lambda key: step(state, tasks(key), key)[0].meta_params,
    }


def contestant(name: str, function: Callable[[Any], Any]) -> Contestant:
    """A part, compiled once."""
    compiled = jax.jit(function).lower(jax.random.key(0)).compile()
    done = 0

    def run(times: int) -> float:
        nonlocal done
        for _ in range(times):
            done += 1
            jax.block_until_ready(compiled(jax.random.key(done)))
        return 0.0

    return Contestant(name, "", 1, False, None, run)


def breakdown(config: Config, seconds: dict[str, float]) -> dict[str, Any]:
    """Seconds of one meta-iteration by what they are spent on, and environment steps per second."""
    draws = config.train.num_inner_steps + 1
    steps = config.train.meta_batch * config.train.episodes * config.env.horizon
    simulation = draws * seconds["rollouts"]
    baseline = draws * (seconds["rollouts and advantages"] - seconds["rollouts"])
    return {
        "seconds": {
            "simulation": simulation,
            "advantages": baseline,
            "adaptation": seconds["sampling"] - simulation - baseline,
            "meta-gradient": seconds["meta-gradient"],
            "trust region": seconds["trust-region step"] - seconds["meta-gradient"],
            "meta-iteration": seconds["meta-iteration"],
        },
        "meta_iterations_per_second": 1 / seconds["meta-iteration"],
        "env_steps_per_second": {
            "random actions": steps / seconds["random actions"],
            "rollouts": steps / seconds["rollouts"],
            "training": draws * steps / seconds["meta-iteration"],
        },
    }


def run(name: str, output: Path, options: Options) -> dict[str, Any]:
    """Measure one environment, write the JSON, print the table."""
    point = name == "navigation"
    config: Config = navigation_config.get_config() if point else locomotion_config.get_config(name)
    set_up_cpu(config)
    env = navigation.build(config) if point else locomotion.build(config)
    contestants = [contestant(part, function) for part, function in parts(config, env).items()]
    suite = Suite({}, config.train.meta_batch, contestants)
    rows = measure(suite, options.seconds, options.repeats)
    seconds = {row["name"]: 1 / row["iterations_per_second"]["median"] for row in rows}
    found = provenance(f"speed: meta-RL, {name}", config.to_dict())
    found |= {"cpu_devices": jax.device_count(), "matmul_gflops": matmul_gflops()}
    found |= breakdown(config, seconds)
    found["measurements"] = {row["name"]: row["iterations_per_second"] for row in rows}
    files.write_json(output, found)
    show(found)
    return found


def show(found: dict[str, Any]) -> None:
    """Print what each part costs."""
    table = Table("part", "seconds", title=found["experiment"])
    for part, value in found["seconds"].items():
        table.add_row(part, f"{value:.3f}")
    console = Console()
    console.print(table)
    for kind, rate in found["env_steps_per_second"].items():
        console.print(f"environment steps/s, {kind}: {rate:,.0f}")
