"""Measurements: speed beside other libraries, where time and memory go, methods compared.

    python -m experiments.benchmark --suite=sinusoid --output=results/speed_sinusoid.json

Suites, each described at the top of its module:
    sinusoid, omniglot, omniglot_20way, miniimagenet, miniimagenet_fomaml, inner_loop    race.py
    navigation, cheetah_direction, cheetah_velocity, ant_direction, ...               meta_rl.py
    simulation   steps of the robots per second                                    simulation.py
    gradients    how much of the robots' gradients is signal                        gradients.py
    speed        all of the races and breakdowns that the README tells of               speed.py
    profile      what the time of a step is spent on                                 profiles.py
    growth       how time and memory grow, and what fits                               growth.py
    systems      what every system of table 1 costs to train                        systems.py
    compile      how long compiling takes                                           compiling.py
    gpu          what only a GPU can tell                                                 gpu.py
    neighbours   photos predicted together and one by one                     neighbours.py
    streaming    image sets on disk beside those in memory                          streaming.py
    methods      all methods on the same tasks, instead of libraries                  methods.py
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags, logging

from experiments.benchmark import (
    compiling,
    gpu,
    gradients,
    growth,
    meta_rl,
    methods,
    neighbours,
    profiles,
    race,
    simulation,
    speed,
    steps,
    streaming,
    systems,
)
from experiments.benchmark.measure import Options

SUITES: dict[str, Callable[[Path, Options], object]] = {
    **{name: functools.partial(race.run, name) for name in steps.SUITES},
    **{name: functools.partial(meta_rl.run, name) for name in meta_rl.ENVS},
    "simulation": simulation.run,
    "gradients": gradients.run,
    "speed": speed.run,
    "profile": profiles.run,
    "growth": growth.run,
    "systems": systems.run,
    "compile": compiling.run,
    "gpu": gpu.run,
    "neighbours": neighbours.run,
    "streaming": streaming.run,
    "methods": methods.run,
}


def main(argv: Sequence[str]) -> None:
    """Run one suite."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}")
    logging.set_verbosity(logging.WARNING)  # jax and the data sets tell of every file they read
    given = flags.FLAGS
    output = Path(given.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    options = Options(given.seconds, given.repeats, given.problem, given.data_dir)
    SUITES[given.suite](output, options)


if __name__ == "__main__":
    # Defined here and not on import, so that no test or other command meets them twice.
    flags.DEFINE_enum("suite", "sinusoid", sorted(SUITES), "What to measure.")
    flags.DEFINE_enum("problem", "sinusoid", sorted(methods.PROBLEMS), "Of the suite methods.")
    flags.DEFINE_string("data_dir", None, "Where the suite methods finds Omniglot.")
    flags.DEFINE_string("output", None, "The JSON file to write; the chart goes next to it.")
    flags.DEFINE_float("seconds", 3.0, "Of each measurement.", lower_bound=0.0)
    flags.DEFINE_integer("repeats", 7, "Measurements per contestant.", lower_bound=1)
    flags.mark_flag_as_required("output")
    app.run(main)
