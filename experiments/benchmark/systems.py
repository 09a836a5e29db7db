"""Milliseconds of an iteration of every system of tables 1 and 3, and the hours of its training:
`python -m experiments.benchmark --suite=systems --output=results/systems.json`.

As `mamljax reproduce` trains them, on images of the same size; hours are those of the iterations
alone, without validation and test.
"""

import functools
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from configs import omniglot, paper
from experiments.benchmark import parts, steps
from experiments.benchmark.measure import Options
from experiments.benchmark.parts import Parts
from experiments.harness.config import Config
from experiments.harness.main import set_up_cpu
from experiments.reproduction.standing import config_of
from mamljax.data import ImageSet


def run(output: Path, options: Options) -> dict[str, Any]:
    """Measure what the output does not hold yet; print it all."""
    set_up_cpu(omniglot.get_config())
    return parts.run("systems", output, measured(options))


def measured(options: Options) -> Parts:
    """Return what is measured, by name: the paper's rows that train a network of their own."""
    found: Parts = {}
    for row in paper.ROWS:
        if row.data and not row.network:
            config, (load, _) = config_of(row), steps.IMAGES[row.data]
            # As many iterations to a measurement as take about so long, by what is known of them.
            guess = 3600 * row.hours / config.train.num_iterations
            config.log.every = max(round(options.seconds / guess), 1)
            repeats = min(options.repeats, 3)
            found[row.name] = functools.partial(training, config, load, repeats)
    return found


def training(config: Config, load: Callable[[], ImageSet], repeats: int) -> dict[str, Any]:
    """Return the milliseconds of an iteration, and the hours of all of them.

    Args:
      config: whose ``log.every`` iterations are a measurement.
      load: returns the images.
      repeats: measurements, of which the median is taken, after one that is left out.
    """
    iterations = config.train.num_iterations
    seen = steps.first_iterations(config, load(), (1 + repeats) * config.log.every)
    jax.clear_caches()
    seconds = 1 / statistics.median(call.iterations_per_second for call in seen[1:])
    return {
        "milliseconds": 1e3 * seconds,
        "iterations": iterations,
        "hours": iterations * seconds / 3600,
        "compile_seconds": seen[0].compile_seconds,
    }
