"""How long compiling takes: `python -m experiments.benchmark --suite=compile
--output=results/compile.json`.

The training program of every image config, without the cache that spares users all but the first
time, with as many devices as they would get.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax

from configs import cifar_fs, few_shot, miniimagenet, omniglot
from experiments import races
from experiments.parts import Parts
from experiments.settings import Config

FILES = {
    "omniglot": (omniglot, (28, 28, 1)),
    "miniimagenet": (miniimagenet, (84, 84, 3)),
    "cifar_fs": (cifar_fs, (32, 32, 3)),
}
"""By name: the config file, and the shape of an image."""


def parts(options: Sequence[str] = ("", *few_shot.OPTIONS)) -> Parts:
    """What is measured, by name: a config file each."""
    measured: Parts = {}
    for name, (file, image_shape) in FILES.items():
        variants = [
            f"{setting}_{option}".rstrip("_") for setting in file.SETTINGS for option in options
        ]
        configs = {variant: file.get_config(variant) for variant in variants}
        measured[name] = functools.partial(table, configs, image_shape)
    return measured


def table(configs: dict[str, Config], image_shape: tuple[int, int, int]) -> list[dict[str, Any]]:
    """Seconds by variant, the longest first."""
    seconds = {variant: training(config, image_shape) for variant, config in configs.items()}
    ordered = sorted(seconds.items(), key=lambda row: -row[1])
    return [{"variant": variant, "compile_seconds": spent} for variant, spent in ordered]


def training(config: Config, image_shape: tuple[int, int, int]) -> float:
    """Seconds of compiling the training program of a config; it is run once."""
    jax.clear_caches()
    return races.first_iterations(config, races.noise(image_shape), 1)[0].compile_seconds
