"""Timing contestants against each other: what they are, proof that they agree, the race."""

import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

LOSS_TOLERANCE = 1e-5
"""Largest relative difference between two losses that count as the same."""
GRADIENT_TOLERANCE = 1e-4
"""Largest difference between two gradients, per leaf and relative to the leaf's norm."""

NEGLIGIBLE = 1e-6
"""A leaf smaller than this part of the gradient counts as zero."""


class Evaluation(NamedTuple):
    """The meta-loss on the agreed batch, and the meta-gradient's leaves by name."""

    loss: float
    gradient: dict[str, np.ndarray]


class Contestant(NamedTuple):
    """One implementation of a training step, set up in one way.

    name: such as ``torch.func``. Contestants of one name differ only in `variant`.
    variant: such as ``1 thread``; of the variants of one name the fastest is what is compared.
    unit: `run` is called for whole multiples of this many meta-iterations.
    compiles: each run compiles anew, so that a measurement had better be a single one.
    check: the meta-loss and the meta-gradient from the agreed weights on the agreed batch; None
      for what is only measured.
    run: do this many meta-iterations, all work finished on return. Returns the seconds that went
      into compiling, which the measuring loop takes off.
    temporary_megabytes: what the meta-gradient needs beside its arguments, where that is known.
    gflop: a billion operations in its matrix products, likewise.
    """

    name: str
    variant: str
    unit: int
    compiles: bool
    check: Callable[[], Evaluation] | None
    run: Callable[[int], float]
    temporary_megabytes: float | None = None
    gflop: float | None = None


class Options(NamedTuple):
    """Options of a measurement.

    seconds: of each measurement.
    repeats: measurements per contestant.
    problem, data_dir: of the suite ``methods``: what is compared on, and where Omniglot is.
    """

    seconds: float = 3.0
    repeats: int = 7
    problem: str = "sinusoid"
    data_dir: str | None = None


class Suite(NamedTuple):
    """A race: the first contestant is the one that the others are compared with.

    setting: the numbers that define the training step.
    tasks_per_iteration: the meta-batch.
    contestants: each is measured; the first name is the reference.
    skipped: a line for each peer that cannot run here.
    """

    setting: dict[str, Any]
    tasks_per_iteration: int
    contestants: Sequence[Contestant]
    skipped: Sequence[str] = ()


class DisagreementError(AssertionError):
    """A contestant computes something else, so its speed would mean nothing."""


def require_same(contestants: Sequence[Contestant]) -> list[dict[str, Any]]:
    """Check every contestant against the first; returns how far each is off.

    Raises:
      DisagreementError: for a loss or a gradient beyond the tolerances above.
    """
    checked = [(contestant, contestant.check()) for contestant in contestants if contestant.check]
    expected = checked[0][1]
    records = []
    for contestant, found in checked[1:]:
        who = f"{contestant.name}, {contestant.variant}"
        if found.gradient.keys() != expected.gradient.keys():
            raise DisagreementError(f"{who}: its gradient has leaves {sorted(found.gradient)}")
        loss_error = abs(found.loss - expected.loss) / abs(expected.loss)
        # A bias before batch normalisation has no effect: what comes out is rounding noise, and
        # is compared with the size of the whole gradient instead of its own.
        whole = np.sqrt(sum(np.linalg.norm(leaf) ** 2 for leaf in expected.gradient.values()))
        errors = {
            name: float(
                np.linalg.norm(found.gradient[name] - leaf)
                / (norm if (norm := np.linalg.norm(leaf)) > NEGLIGIBLE * whole else whole)
            )
            for name, leaf in expected.gradient.items()
        }
        # Written so that NaN fails too.
        wrong = {name: error for name, error in errors.items() if not error <= GRADIENT_TOLERANCE}
        if wrong or not loss_error <= LOSS_TOLERANCE:
            raise DisagreementError(
                f"{who} and {contestants[0].name} do not compute the same: relative error of the "
                f"loss {loss_error:.2g} (allowed {LOSS_TOLERANCE:g}), of the meta-gradient "
                f"{wrong or errors} (allowed {GRADIENT_TOLERANCE:g} per leaf)."
            )
        record = {"name": contestant.name, "variant": contestant.variant}
        worst = max(errors.values())
        records.append(record | {"loss_error": loss_error, "gradient_error": worst})
    return records


def measure(suite: Suite, seconds: float, repeats: int) -> list[dict[str, Any]]:
    """Race the contestants round robin; returns one record per contestant, see `_record`.

    What disturbs the machine for a while then hits all contestants alike. Every other round runs
    backwards, so that nobody always comes after the same one.
    """
    racers = [(contestant, *_calibrate(contestant, seconds)) for contestant in suite.contestants]
    rounds: list[list[tuple[int, float]]] = [[] for _ in racers]
    for turn in range(repeats):
        order = range(len(racers)) if turn % 2 == 0 else reversed(range(len(racers)))
        for index in order:
            contestant, iterations, _ = racers[index]
            rounds[index].append(_timed(contestant, iterations, seconds))
    records = [
        _record(contestant, compile_seconds, timings, suite.tasks_per_iteration)
        for (contestant, _, compile_seconds), timings in zip(racers, rounds, strict=True)
    ]
    for record in records:
        same = [other for other in records if other["name"] == record["name"]]
        record["best_variant"] = record is max(same, key=_median)
    reference = next(record for record in records if record["best_variant"])
    for record in records:
        record["reference_is_times_faster"] = _ratio(reference, record)
    return records


def matmul_gflops(size: int = 1024, seconds: float = 0.5) -> dict[str, float]:
    """The best rate of float32 matrix products: numpy's, one on each core, and jax's as set up."""
    size = size if jax.default_backend() == "cpu" else 8 * size  # what fills a GPU
    matrix = np.random.default_rng(0).standard_normal((size, size), np.float32)
    multiply = jax.jit(jax.numpy.matmul)
    on_device = jax.device_put(matrix)
    cores = len(os.sched_getaffinity(0))
    best = {}
    with ThreadPoolExecutor(cores) as pool:  # numpy's own threads are off, see `experiments`
        contestants = {"jax": (1, lambda: multiply(on_device, on_device).block_until_ready())}
        if jax.default_backend() == "cpu":
            every = cores * [matrix]
            contestants["numpy"] = cores, lambda: list(pool.map(np.matmul, every, every))
        for name, (products, multiply_all) in contestants.items():
            multiply_all()  # compiles, and wakes the threads
            end, shortest = time.perf_counter() + seconds, float("inf")
            while (started := time.perf_counter()) < end or shortest == float("inf"):
                multiply_all()
                shortest = min(shortest, time.perf_counter() - started)
            best[name] = products * 2 * size**3 / shortest / 1e9
    return best


def milliseconds(function: Callable[[], Any], seconds: float) -> float:
    """The median time of a call, over `seconds` of calls after a first one."""
    jax.block_until_ready(function())
    times, end = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        started = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - started)
    return 1e3 * statistics.median(times)


def temporary_megabytes(compiled: Any) -> float | None:
    """Return a compiled function's memory beside arguments and results; None if it tells none."""
    memory = compiled.memory_analysis()
    return memory.temp_size_in_bytes / 1e6 if memory else None


def _calibrate(contestant: Contestant, seconds: float) -> tuple[int, float]:
    """Warm up; returns the iterations of a single run, and the seconds of compiling."""
    wanted = seconds if contestant.compiles else seconds / 20
    iterations, compile_seconds = contestant.unit, contestant.run(contestant.unit)
    while True:
        done, spent = _timed(contestant, iterations, 0.0)
        growth = wanted / spent if spent >= wanted / 4 else min(wanted / spent, 10)
        iterations = contestant.unit * max(1, math.ceil(done * growth / contestant.unit))
        if spent >= wanted / 4:
            return iterations, compile_seconds


def _timed(contestant: Contestant, iterations: int, seconds: float) -> tuple[int, float]:
    """Run until the time is up, but once where that compiles; iterations and seconds used.

    Many short runs, because where others use the machine, threads that wait for each other can
    become a hundred times slower or faster from one second to the next.
    """
    done, spent = 0, 0.0
    while True:
        started = time.perf_counter()
        compile_seconds = contestant.run(iterations)
        spent += time.perf_counter() - started - compile_seconds
        done += iterations
        if contestant.compiles or spent >= seconds:
            return done, spent


def _record(contestant, compile_seconds, timings, tasks) -> dict[str, Any]:
    rates = [iterations / seconds for iterations, seconds in timings]
    return {
        "name": contestant.name,
        "variant": contestant.variant,
        "iterations_per_second": _summary(rates),
        "tasks_per_second": statistics.median(rates) * tasks,
        "milliseconds_per_iteration": 1e3 / statistics.median(rates),
        "compile_seconds": compile_seconds,
        "temporary_megabytes": contestant.temporary_megabytes,
        "gflops": contestant.gflop and contestant.gflop * statistics.median(rates),
        "iterations": [iterations for iterations, _ in timings],
    }


def _ratio(reference, record) -> dict[str, Any]:
    """Return how many times faster the reference is: by the medians, and round by round."""
    ours, theirs = (r["iterations_per_second"]["rounds"] for r in (reference, record))
    pairs = [ours / theirs for ours, theirs in zip(ours, theirs, strict=True)]
    return {"of_medians": _median(reference) / _median(record), "pairwise": _summary(pairs)}


def _summary(values: list[float]) -> dict[str, Any]:
    middle = statistics.median(values)
    return {"median": middle, "min": min(values), "max": max(values), "rounds": values}


def _median(record) -> float:
    return record["iterations_per_second"]["median"]
