"""Image sets that do not fit into memory: `python -m experiments.benchmark --suite=streaming
--output=results/streaming.json`.

100,000 synthetic images of 84 x 84, as many as miniImagenet's and two thirds more, are trained on
from disk under a limit of 1 GB, and in memory with and without that limit. Each is a process of its
own. The limit is the system's, on what a process may write to (RLIMIT_DATA), used or not; stacks of
threads, which count in full, are made small. Both kinds draw the same tasks, so that their
parameters have to agree to the last bit. The network is small, so that reading has little to hide
behind.
"""

import functools
import hashlib
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from configs import miniimagenet as miniimagenet_config
from experiments.benchmark import parts
from experiments.benchmark.measure import Options
from experiments.benchmark.parts import Parts
from experiments.few_shot import methods
from experiments.harness.config import Config
from mamljax.data import ImageSet, cache
from mamljax.data.sources import ImageClass, Source
from mamljax.meta import init_state, meta_step
from mamljax.train import Call, fit

ROOT = Path(__file__).parents[2]
SMALL_STACKS = ("sh", "-c", 'ulimit -s 2048; exec "$@"', "sh")
"""Runs what follows with stacks of 2 MB, which a program has to begin with."""
NO_MEMORY = ("Unable to allocate", "MemoryError", "bad_alloc", "RESOURCE_EXHAUSTED")


class Setting(NamedTuple):
    """Size of the measurement.

    classes, per_class, side: of the images, which have three colours.
    calls: of the compiled loop that are measured, after one that is not.
    steps_per_call: meta-iterations in each.
    filters: of every convolution.
    limit: bytes.
    """

    classes: int = 200
    per_class: int = 500
    side: int = 84
    calls: int = 3
    steps_per_call: int = 5
    filters: int = 8
    limit: int = 10**9


class Kind(NamedTuple):
    """One way to hold the images."""

    on_disk: bool
    limited: bool


KINDS = {
    "on disk, 1 GB": Kind(on_disk=True, limited=True),
    "in memory, 1 GB": Kind(on_disk=False, limited=True),
    "in memory": Kind(on_disk=False, limited=False),
    "on disk": Kind(on_disk=True, limited=False),
}


def run(output: Path, options: Options) -> dict[str, Any]:
    """Measure what the output does not hold yet; print it all."""
    del options
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        found = parts.run("streaming", output, measured(Path(folder), Setting()))
    pair = [found["parts"][name][0] for name in ("on disk", "in memory")]
    for what in ("iterations_per_second", "cpu_seconds_per_iteration"):
        on_disk, in_memory = (row[what] for row in pair)
        print(f"{what}: {on_disk:.3g} on disk, {in_memory:.3g} in memory")
    return found


def measured(folder: Path, setting: Setting) -> Parts:
    """What is measured, by name; a folder takes the prepared images."""
    return {
        name: functools.partial(_in_process, folder, setting, kind) for name, kind in KINDS.items()
    }


def _in_process(folder: Path, setting: Setting, kind: Kind) -> list[dict[str, Any]]:
    """The measurement of `train`, or that memory did not suffice."""
    prepare(folder, setting)
    asked = json.dumps({"folder": str(folder), "setting": setting, "kind": kind})
    done = subprocess.run(
        [
            *(SMALL_STACKS if kind.limited else ()),
            *(sys.executable, "-m", "experiments.benchmark.streaming", asked),
        ],
        cwd=ROOT,
        # One pool of memory for all threads: every further one sets 64 MB of addresses aside.
        env=os.environ | {"MALLOC_ARENA_MAX": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode == 0:
        return [{"fits": "yes"} | json.loads(done.stdout.splitlines()[-1])]
    if any(words in done.stderr for words in NO_MEMORY):
        return [{"fits": "no"}]
    raise RuntimeError(f"exit status {done.returncode}: {done.stderr}")


def prepare(folder: Path, setting: Setting, *, on_disk: bool = True) -> ImageSet:
    """The images, which are made first if they are not there."""
    shape = (setting.side, setting.side, 3)

    def read(seed: int) -> np.ndarray:
        size = (setting.per_class, *shape)
        return np.random.default_rng(seed).integers(0, 256, size, np.uint8)

    def classes(files: list) -> list[ImageClass]:
        del files  # there are none
        return [
            ImageClass(f"{c:04d}", setting.per_class, functools.partial(read, c))
            for c in range(setting.classes)
        ]

    source = Source("synthetic images", "synthetic", shape, None, classes)
    return cache.read(source, lambda names: names, None, folder, on_disk=on_disk)


def train(folder: Path, setting: Setting, kind: Kind) -> dict[str, Any]:
    """First-order MAML with miniImagenet's config: its rate, its memory, where it arrives."""
    if kind.limited:
        resource.setrlimit(resource.RLIMIT_DATA, (setting.limit, setting.limit))
    config: Config = miniimagenet_config.get_config("5way1shot_fomaml")
    config.model.filters = setting.filters
    images = prepare(folder, setting, on_disk=kind.on_disk)
    method = methods.build(config, images.images.shape[2:], len(images.names), None)
    example = np.zeros((1, *images.images.shape[2:]), np.float32)
    tx = optax.adam(config.train.meta_lr)
    state = init_state(jax.jit(method.learner.init)(jax.random.key(0), example), tx)
    calls: list[Call] = []
    busy: list[float] = []  # seconds of the processor, which another program does not stretch

    def note(call: Call) -> None:
        calls.append(call)
        busy.append(time.process_time())

    state = fit(
        meta_step(method.learner.meta_gradient, tx),
        state,
        method.sampler(images),
        jax.random.key(1),
        num_steps=(setting.calls + 1) * setting.steps_per_call,
        meta_batch=config.train.meta_batch,
        steps_per_call=setting.steps_per_call,
        hooks=[note],
    )
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(state.meta_params):
        digest.update(np.asarray(leaf).tobytes())
    rate = float(np.median([call.iterations_per_second for call in calls[1:]]))
    spent = float(np.median(np.diff(busy))) / setting.steps_per_call
    return {
        "iterations_per_second": rate,
        "cpu_seconds_per_iteration": spent,
        "megabytes_at_most": _megabytes_at_most(),
        "parameters": digest.hexdigest()[:12],
    }


def _megabytes_at_most() -> float:
    """The most memory that this program has had.

    Not ``ru_maxrss``, which begins with what the process that started this one had.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (peak,) = re.findall(r"VmHWM:\s*(\d+) kB", status)
    return int(peak) / 1024


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    found = train(Path(asked["folder"]), Setting(*asked["setting"]), Kind(*asked["kind"]))
    print(json.dumps(found))
