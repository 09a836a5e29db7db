"""Measurements that need a GPU: `python -m experiments.benchmark --suite=gpu
--output=results/gpu.json`.

What it costs to compile, and what that brings; how long the paper's 60,000 iterations would take;
speed beside PyTorch on the same GPU; which precision of products the meta-gradient bears; how many
tasks to take at a time; how fast the robots run.
"""

import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

from configs import locomotion as locomotion_config
from experiments import locomotion
from experiments.benchmark import measure, meta_rl, parts, steps
from experiments.benchmark.measure import Options
from experiments.benchmark.parts import Parts
from experiments.harness.config import Config
from experiments.harness.main import keep_compiled_programs
from mamljax.tasks.sampling import sample_tasks
from mamljax.types import Learner, Params, Task

PRECISIONS = ("highest", "default", "tensorfloat32", "bfloat16")
ROBOTS = ("cheetah_direction", "ant_direction")
TUNING: dict[str, dict[str, Any]] = {
    "as jax does": {},
    "fusions not tried": {"xla_gpu_experimental_enable_fusion_autotuner": False},
    "products not by Triton": {"xla_gpu_enable_triton_gemm": False},
    "nothing tried": {"xla_gpu_autotune_level": 0},
}
"""Options of XLA, which by default tries many kernels for every product and every loop before it
takes one."""
PAPER_ITERATIONS = 60_000
NAMES = ("omniglot", "miniimagenet")


def run(output: Path, options: Options) -> dict[str, Any]:
    """Measure what the output does not hold yet; print it all."""
    keep_compiled_programs()
    return parts.run("gpu", output, measured(seconds=options.seconds, repeats=options.repeats))


def measured(
    *, seconds: float, repeats: int, change: Callable[[Config], None] = lambda config: None
) -> Parts:
    """Return what is measured, by name, in the order of what matters most.

    Args:
      seconds, repeats: of each measurement.
      change: of the configs, to something smaller.
    """
    found: Parts = {}
    configs = {name: steps.IMAGES[name][1]() for name in NAMES}
    robots: dict[str, Config] = {name: locomotion_config.get_config(name) for name in ROBOTS}
    for config in robots.values():
        config.train.rollout_chunk = 0  # all tasks at once, which only a CPU's cache minds
    for config in (*configs.values(), *robots.values()):
        change(config)

    def add(what: str, function: Callable[..., Any], *arguments: Any) -> None:
        for name, config in configs.items():
            found[f"{what}, {name}"] = functools.partial(function, name, config, *arguments)

    add("tuning", tuning, seconds)
    add("to the end", to_the_end)
    add("race", beside_torch, seconds, repeats)
    add("precision", precisions, seconds)
    add("task chunks", task_chunks, seconds)
    for name, config in robots.items():
        found[f"simulation, {name}"] = functools.partial(simulation, config, seconds)
    return found


def tuning(name: str, config: Config, seconds: float) -> list[dict[str, Any]]:
    """Return what compiling the meta-gradient takes, and its time, by how much XLA tries.

    Programs that earlier runs have kept are not compiled again: this is measured first.
    """
    learner, arguments = _setting(name, config)
    lowered = jax.jit(learner.meta_gradient).lower(*arguments)
    rows = []
    for tried, options in TUNING.items():
        started = time.perf_counter()
        compiled = lowered.compile(compiler_options=options)
        compile_seconds = time.perf_counter() - started
        milliseconds = measure.milliseconds(functools.partial(compiled, *arguments), seconds)
        rows.append(
            {"tried": tried, "compile_seconds": compile_seconds, "milliseconds": milliseconds}
        )
    return rows


def beside_torch(name: str, config: Config, seconds: float, repeats: int) -> list[dict[str, Any]]:
    """Tasks per second of mamljax, naive JAX and, where it is installed, PyTorch."""
    with tempfile.TemporaryDirectory() as workdir:
        suite = steps.SUITES[name][0](Path(workdir), config)
        measure.require_same(suite.contestants)
        rows = measure.measure(suite, seconds, repeats)
    return [
        {
            "contestant": f"{row['name']} {row['variant']}",
            "tasks_per_second": row["tasks_per_second"],
            "mamljax_is_times_faster": row["reference_is_times_faster"]["of_medians"],
        }
        for row in rows
    ]


def to_the_end(name: str, config: Config, iterations: int = 500) -> dict[str, Any]:
    """The hours that the paper's training would take, from some of its iterations."""
    iterations = min(iterations, config.train.num_iterations)
    load, _ = steps.IMAGES[name]
    seen = steps.first_iterations(config, load(), iterations)
    spent = sum(call.seconds for call in seen)
    return {
        "iterations": iterations,
        "seconds": spent,
        "compile_seconds": seen[0].compile_seconds,
        "hours_of_60000": spent / iterations * PAPER_ITERATIONS / 3600,
    }


def precisions(name: str, config: Config, seconds: float) -> list[dict[str, Any]]:
    """Return time and error of the meta-gradient by the precision of products."""
    learner, arguments = _setting(name, config)
    rows, expected = [], None
    for precision in PRECISIONS:
        with jax.default_matmul_precision(precision):
            compiled = jax.jit(learner.meta_gradient).lower(*arguments).compile()
        found = ravel_pytree(compiled(*arguments)[0])[0]
        expected = found if expected is None else expected
        error = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
        milliseconds = measure.milliseconds(functools.partial(compiled, *arguments), seconds)
        rows.append({"precision": precision, "milliseconds": milliseconds, "error": error})
    return rows


def task_chunks(name: str, config: Config, seconds: float) -> list[dict[str, Any]]:
    """Return time and memory of the meta-gradient by the number of tasks at a time."""
    rows, chunk = [], 1
    while chunk <= config.train.meta_batch:
        changed = config.copy_and_resolve_references()
        changed.train.task_chunk = chunk
        learner, arguments = _setting(name, changed)
        compiled = jax.jit(learner.meta_gradient).lower(*arguments).compile()
        rows.append(
            {
                "task_chunk": chunk,
                "milliseconds": measure.milliseconds(
                    functools.partial(compiled, *arguments), seconds
                ),
                "temporary_megabytes": measure.temporary_megabytes(compiled),
            }
        )
        chunk *= 2
    return rows


def simulation(config: Config, seconds: float) -> dict[str, float]:
    """Environment steps per second at the batch of the config: random actions, and the policy."""
    functions = meta_rl.parts(config, locomotion.build(config))
    steps = config.train.meta_batch * config.train.episodes * config.env.horizon
    rates = {}
    for name in ("random actions", "rollouts"):
        compiled = jax.jit(functions[name]).lower(jax.random.key(0)).compile()
        run = functools.partial(compiled, jax.random.key(1))
        rates[name] = 1e3 * steps / measure.milliseconds(run, seconds)
    return rates


def _setting(name: str, config: Config) -> tuple[Learner, tuple[Params, Task, jax.Array]]:
    """The learner of a race, and what its meta-gradient is asked for: parameters, tasks, key."""
    load, _ = steps.IMAGES[name]
    method, sampler, params = steps.set_up(config, load())
    tasks = sample_tasks(sampler, params, jax.random.key(1), config.train.meta_batch)
    return method.learner, (params, tasks, jax.random.key(2))
