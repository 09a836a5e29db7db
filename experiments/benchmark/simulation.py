"""Steps of the robots per second, one device: the clock of Brax and of the paper, and on lanes.

    python -m experiments.benchmark --suite=simulation --output=results/simulation.json

Episodes under random actions, as many at once as in training: five tasks of twenty episodes.
Brax's own clock is an action every 0.05 s; see `mamljax.rl.robots` and `mamljax.rl.lanes`.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from configs import locomotion as locomotion_config
from experiments.benchmark import parts
from experiments.benchmark.measure import Options, Suite, measure
from experiments.benchmark.meta_rl import contestant
from experiments.harness.main import set_up_cpu
from mamljax import rl
from mamljax.rl.lanes import on_lanes

ROBOTS = ("cheetah_direction", "ant_direction")
BRAX_SECONDS = 0.05
EPISODES, HORIZON = 100, 50


def run(output: Path, options: Options) -> dict[str, Any]:
    """Measure what the output does not hold yet; print it all."""
    set_up_cpu(locomotion_config.get_config())
    measured: parts.Parts = {name: functools.partial(rates, name, options) for name in ROBOTS}
    return parts.run("simulation", output, measured)


def rates(
    name: str, options: Options, episodes: int = EPISODES, horizon: int = HORIZON
) -> list[dict[str, Any]]:
    """Return a row for each form, measured in turns: steps per second, and beside the last form."""
    brax, ours = rl.locomotion(name, dt=BRAX_SECONDS), rl.locomotion(name)
    forms: dict[str, tuple[rl.Env, Callable]] = {
        "Brax's clock": (brax, brax.step),
        "the paper's clock": (ours, ours.step),
        "the paper's clock, on lanes": (ours, on_lanes(ours.step)),
    }
    contestants = [
        contestant(form, functools.partial(simulate, env, step, episodes, horizon))
        for form, (env, step) in forms.items()
    ]
    found = measure(Suite({}, episodes, contestants[::-1]), options.seconds, options.repeats)[::-1]
    return [
        {
            "form": row["name"],
            "env_steps_per_second": row["tasks_per_second"] * horizon,
            "on_lanes_is_times_faster": row["reference_is_times_faster"]["of_medians"],
            "round_by_round": _range(row["reference_is_times_faster"]["pairwise"]),
        }
        for row in found
    ]


def _range(pairs: dict[str, Any]) -> str:
    return f"{pairs['min']:.3g} to {pairs['max']:.3g}"


def simulate(
    env: rl.Env, step: Callable[..., Any], episodes: int, horizon: int, key: jax.Array
) -> jax.Array:
    """The rewards of episodes of one task under random actions, ``[H, E]``."""
    task_key, start_key, act_key = jax.random.split(key, 3)
    task = env.sample_task(task_key)
    start = jax.vmap(env.reset, (None, 0))(task, jax.random.split(start_key, episodes))

    def advance(state, key):
        actions = jax.random.normal(key, (episodes, env.action_size))
        state = jax.vmap(step, (None, 0, 0))(task, state, actions)
        return state, state.reward

    return jax.lax.scan(advance, start, jax.random.split(act_key, horizon))[1]
