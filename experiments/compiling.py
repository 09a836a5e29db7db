"""How long compiling takes: `python -m experiments.benchmark --suite=compile
--output=results/compile.json`.

The training program of every image config, without the cache that spares users all but the first
time, with as many devices as they would get.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax

import mamljax
from configs import cifar_fs, few_shot, miniimagenet, omniglot
from experiments import classification, races
from experiments.parts import Parts
from experiments.settings import Config
from mamljax.train import Chunk

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
    method, sampler, params = races.set_up(config, races.noise(image_shape))
    tx = classification.outer_optimizer(config)
    seen: list[Chunk] = []
    mamljax.fit(
        mamljax.meta_step(method.learner.meta_gradient, tx),
        mamljax.init_state(params, tx),
        sampler,
        jax.random.key(0),
        num_steps=1,
        meta_batch=method.meta_batch,
        chunk=1,
        hooks=[seen.append],
    )
    return seen[0].compile_seconds
