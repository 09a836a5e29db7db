"""The time of a training step by kind of operation: `python -m experiments.benchmark
--suite=profile --output=results/profile.json`.

One meta-gradient of every image race is traced; the operations of the compiled program are sorted
by what part of the computation they stem from.
"""

import functools
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from configs import omniglot
from experiments.benchmark import parts, steps
from experiments.benchmark.measure import Options
from experiments.benchmark.parts import Parts
from experiments.harness.config import Config
from experiments.harness.main import set_up_cpu
from mamljax.data import ImageSet
from mamljax.tasks.sampling import sample_tasks

PRODUCTS, OTHER = "matrix products", "storing, copying, the rest"
KINDS = {
    "patches": re.compile("/conv/"),
    "norm, ReLU, pooling": re.compile(r"/block_\d+/"),
    "waiting for the other device": re.compile("psum"),
}
"""Scopes in the network, by name, of operations other than matrix products."""

_PRODUCTS = ("dot", "convolution")  # a convolution too is one, with patches that nobody makes

_OPERATION = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = .*? ([\w-]+)\(")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) \(.*\{$")
_CONTAINERS = ("while", "call", "conditional")


def run(output: Path, options: Options) -> dict[str, Any]:
    """Measure what the output does not hold yet; print it all."""
    del options
    set_up_cpu(omniglot.get_config())
    return parts.run("profile", output, measured())


def measured() -> Parts:
    """Return what is measured, by name."""
    return {
        name: functools.partial(profile, get_config(), load)
        for name, (load, get_config) in steps.IMAGES.items()
    }


def profile(config: Config, load: Callable[[], ImageSet]) -> list[dict[str, Any]]:
    """Milliseconds of one meta-gradient, summed over devices, by kind of operation.

    Raises:
      RuntimeError: if the trace holds no operation of the program.
    """
    method, sampler, params = steps.set_up(config, load())
    key = jax.random.key(config.seed)
    tasks = sample_tasks(sampler, params, key, num_tasks=config.train.meta_batch)
    compiled = jax.jit(method.learner.meta_gradient).lower(params, tasks, key).compile()
    run = functools.partial(compiled, params, tasks, key)
    jax.block_until_ready(run())
    kinds = sort_operations(compiled.as_text() or "")
    times: dict[str, float] = defaultdict(float)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(run())
        for name, milliseconds in _recorded(Path(folder)):
            if name in kinds:
                times[kinds[name]] += milliseconds
    total = sum(times.values())
    if not total:
        raise RuntimeError("The profiler recorded no operation of the compiled program.")
    return [
        {"kind": kind, "milliseconds": time, "share": time / total}
        for kind, time in sorted(times.items(), key=lambda item: -item[1])
    ]


def _recorded(folder: Path) -> Iterator[tuple[str, float]]:
    """Everything that a trace tells of by name, operations among it, and its milliseconds."""
    for path in folder.rglob("*.xplane.pb"):
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
            for line in plane.lines:
                for event in line.events:
                    yield event.name, event.duration_ns / 1e6


def sort_operations(program: str) -> Mapping[str, str]:
    """Operations of a compiled program by name: of which kind each is; loops are left out."""
    operations, products, computation = [], set(), ""
    for line in program.splitlines():
        if header := _COMPUTATION.match(line):
            computation = header[1]
        elif operation := _OPERATION.match(line):
            operations.append((operation[1], operation[2], line))
            if operation[2] in _PRODUCTS:
                products.add(computation)
    kinds = {}
    for name, opcode, line in operations:
        if opcode in _CONTAINERS:
            continue
        called = re.search(r"calls=%?([\w.-]+)", line)
        if opcode in _PRODUCTS or (called and called[1] in products):
            kinds[name] = PRODUCTS
            continue
        found = re.search(r'op_name="([^"]*)"', line)
        scope = found[1] if found else ""
        kinds[name] = next((kind for kind, part in KINDS.items() if part.search(scope)), OTHER)
    return kinds
