"""Seconds of compiling: `python -m experiments.benchmark --suite=compile
--output=results/compile.json`.

The training program of every image config, without the cache that spares users all but the first
time, with as many devices as they would get.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from configs import cifar_fs, miniimagenet, omniglot
from configs.base import few_shot
from experiments.benchmark import parts, steps
from experiments.benchmark.measure import Options
from experiments.benchmark.parts import Parts
from experiments.harness.config import Config
from experiments.harness.main import set_up_cpu

FILES = {
    "omniglot": (omniglot, (28, 28, 1)),
    "miniimagenet": (miniimagenet, (84, 84, 3)),
    "cifar_fs": (cifar_fs, (32, 32, 3)),
}
"""Config files and shapes of an image, by name."""


def run(output: Path, options: Options) -> dict[str, Any]:
    """Measure what the output does not hold yet; print it all."""
    del options
    set_up_cpu(omniglot.get_config())
    return parts.run("compile", output, measured())


def measured(options: Sequence[str] = ("", *few_shot.OPTIONS)) -> Parts:
    """Return what is measured, by name: a config file each."""
    found: Parts = {}
    for name, (file, image_shape) in FILES.items():
        variants = [
            f"{setting}_{option}".rstrip("_") for setting in file.SETTINGS for option in options
        ]
        configs = {variant: file.get_config(variant) for variant in variants}
        found[name] = functools.partial(table, configs, image_shape)
    return found


def table(configs: dict[str, Config], image_shape: tuple[int, int, int]) -> list[dict[str, Any]]:
    """Seconds by variant, the longest first."""
    seconds = {variant: training(config, image_shape) for variant, config in configs.items()}
    ordered = sorted(seconds.items(), key=lambda row: -row[1])
    return [{"variant": variant, "compile_seconds": spent} for variant, spent in ordered]


def training(config: Config, image_shape: tuple[int, int, int]) -> float:
    """Seconds of compiling the training program of a config; it is run once."""
    jax.clear_caches()
    return steps.first_iterations(config, steps.noise(image_shape), 1)[0].compile_seconds
