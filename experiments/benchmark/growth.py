"""Growth of time and memory, and what fits: `python -m experiments.benchmark --suite=growth
--output=results/growth.json`.

The meta-gradient of Omniglot's network with more tasks, inner steps and ways, and the largest that
miniImagenet's can have in `BUDGET_GIGABYTES`: with all tasks at once and one at a time, with and
without recomputing inner steps in the backward pass. Memory is what the compiled program says it
needs, so what would not fit can be measured too.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

from configs import miniimagenet as miniimagenet_config
from configs import omniglot as omniglot_config
from experiments.benchmark import measure, parts
from experiments.benchmark.measure import Options
from experiments.benchmark.parts import Parts
from experiments.few_shot import methods
from experiments.harness.config import Config
from mamljax.running import plots
from mamljax.types import Batch, Learner, PyTree, Task

BUDGET_GIGABYTES = 16.0
"""Memory of a common GPU, or of a laptop."""


class Problem(NamedTuple):
    """A training step, and the size of its images."""

    config: Config
    image_shape: tuple[int, int, int]


class Axis(NamedTuple):
    """A number that can grow.

    grow: ``(problem, number) -> problem``.
    sizes: at which time and memory are measured.
    power: memory grows like this power of it, at most.
    """

    grow: Callable[[Problem, int], Problem]
    sizes: tuple[int, ...]
    power: int = 1


def _with(section: str, name: str) -> Callable[[Problem, int], Problem]:
    def grow(problem: Problem, number: int) -> Problem:
        config = problem.config.copy_and_resolve_references()
        config[section][name] = number
        return problem._replace(config=config)

    return grow


def _image_side(problem: Problem, number: int) -> Problem:
    return problem._replace(image_shape=(number, number, problem.image_shape[2]))


GROWTH = {
    "tasks": Axis(_with("train", "meta_batch"), (4, 8, 16, 32, 64)),
    "inner steps": Axis(_with("train", "num_inner_steps"), (1, 2, 4, 8, 16)),
    "ways": Axis(_with("task", "ways"), (5, 10, 20, 40)),
}
LARGEST = {
    "tasks": Axis(_with("train", "meta_batch"), (4,)),
    "inner steps": Axis(_with("train", "num_inner_steps"), (5,)),
    "image side": Axis(_image_side, (84,), power=2),
}
FORMS = {
    "all tasks at once": (False, False),
    "all at once, remat": (False, True),
    "one task at a time": (True, False),
    "one at a time, remat": (True, True),
}
"""Forms by name: whether tasks are taken one at a time, and whether inner steps are recomputed."""


def run(output: Path, options: Options) -> dict[str, Any]:
    """Measure what the output does not hold yet; print it all, and draw the growth."""
    found = parts.run("growth", output, measured(seconds=options.seconds))
    draw(output.with_suffix(".png"), found["parts"])
    return found


def measured(
    *,
    seconds: float,
    budget: float = BUDGET_GIGABYTES,
    change: Callable[[Config], None] = lambda config: None,
) -> Parts:
    """Return what is measured, by name.

    Args:
      seconds: of each measurement of time.
      budget: gigabytes in which the largest have to fit.
      change: of the configs, to something smaller.
    """
    omniglot: Config = omniglot_config.get_config("5way1shot")
    omniglot.train.meta_batch, omniglot.train.num_inner_steps = 8, 2
    miniimagenet: Config = miniimagenet_config.get_config("5way1shot")
    small, large = Problem(omniglot, (28, 28, 1)), Problem(miniimagenet, (84, 84, 3))
    for config in (omniglot, miniimagenet):
        change(config)
    found: Parts = {}
    for name, axis in GROWTH.items():
        found[f"growth, {name}"] = functools.partial(growth, small, axis, seconds)
    for name, axis in LARGEST.items():
        title = f"largest in {budget:g} GB, {name}"
        found[title] = functools.partial(largest, large, axis, budget)
    return found


def growth(problem: Problem, axis: Axis, seconds: float) -> list[dict[str, Any]]:
    """Time and memory at each size of an axis, in each form."""
    rows = []
    for size in axis.sizes:
        for form in FORMS:
            learner, shapes = _step(axis.grow(problem, size), form)
            compiled = jax.jit(learner.meta_gradient).lower(*shapes).compile()
            arguments = _example(learner, shapes)
            milliseconds = measure.milliseconds(functools.partial(compiled, *arguments), seconds)
            row = {"size": size, "form": form, "milliseconds": milliseconds}
            rows.append(row | {"temporary_megabytes": measure.temporary_megabytes(compiled)})
    return rows


def largest(problem: Problem, axis: Axis, budget: float) -> list[dict[str, Any]]:
    """Return by form the largest power of two times the present size whose step fits."""
    (start,) = axis.sizes
    rows = []
    for form in FORMS:

        @functools.cache
        def needs(doublings: int, form: str = form) -> float:
            learner, shapes = _step(axis.grow(problem, start * 2**doublings), form)
            return _gigabytes(jax.jit(learner.meta_gradient).lower(*shapes).compile())

        found = _last_below(needs, budget, axis.power)
        row = {"form": form, "largest": start * 2**found if found >= 0 else None}
        rows.append(row | {"gigabytes": needs(found) if found >= 0 else None})
    return rows


def draw(path: Path, done: dict[str, Any]) -> None:
    """Time and memory against tasks, inner steps and ways, a line per form."""
    quantities = {
        "milliseconds": "ms per meta-gradient",
        "temporary_megabytes": "temporary memory, MB",
    }
    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.subplots(len(quantities), len(GROWTH), sharex="col", sharey="row")
    for column, name in enumerate(GROWTH):
        rows = done[f"growth, {name}"]
        for row, (quantity, label) in enumerate(quantities.items()):
            panel = axes[row, column]
            for form in FORMS:
                seen = [(r["size"], r[quantity]) for r in rows if r["form"] == form]
                style = "--" if "remat" in form else "-"
                color = "tab:blue" if "at once" in form else "tab:orange"
                panel.plot(*zip(*seen, strict=True), style, color=color, marker=".", label=form)
            panel.set_xscale("log", base=2)
            panel.set_yscale("log")
            panel.xaxis.set_major_formatter("{x:g}")
            panel.grid(alpha=0.3)
            if column == 0:
                panel.set_ylabel(label)
        axes[-1, column].set_xlabel(name)
    axes[0, 0].legend(loc="upper left", fontsize=8)
    plots.save(figure, path)


def _step(problem: Problem, form: str) -> tuple[Learner, tuple[PyTree, ...]]:
    """The learner in one form, and the shapes of what its meta-gradient takes."""
    config = problem.config.copy_and_resolve_references()
    one_at_a_time, config.train.remat = FORMS[form]
    config.train.task_chunk = 1 if one_at_a_time else config.train.meta_batch
    learner = methods.build(config, problem.image_shape, config.task.ways, None).learner
    key = jax.eval_shape(lambda: jax.random.key(0))
    example = jax.ShapeDtypeStruct((1, *problem.image_shape), jnp.float32)
    params = jax.eval_shape(learner.init, key, example)

    def batch(per_class: int) -> Batch:
        leading = (config.train.meta_batch, config.task.ways * per_class)
        images = jax.ShapeDtypeStruct((*leading, *problem.image_shape), jnp.float32)
        return Batch(images, jax.ShapeDtypeStruct(leading, jnp.int32))

    return learner, (params, Task(batch(config.task.shots), batch(config.train.queries)), key)


def _example(learner: Learner, shapes: tuple[PyTree, ...]) -> tuple[PyTree, ...]:
    """Something of these shapes: noise for images, all of the first class."""
    _, tasks, _ = shapes
    key = jax.random.key(0)
    params = learner.init(key, jnp.zeros((1, *tasks.support.inputs.shape[2:])))

    def batch(shapes):
        images = jax.random.uniform(key, shapes.inputs.shape)
        return Batch(images, jnp.zeros(shapes.targets.shape, jnp.int32))

    return params, Task(batch(tasks.support), batch(tasks.query)), key


def _gigabytes(compiled: Any) -> float:
    """Return what a compiled function needs in all."""
    memory = compiled.memory_analysis()
    sizes = (
        memory.argument_size_in_bytes,
        memory.output_size_in_bytes,
        memory.temp_size_in_bytes,
    )
    return sum(sizes) / 1e9


def _last_below(needs: Callable[[int], float], budget: float, power: int, most: int = 20) -> int:
    """The largest ``n <= most`` with ``needs(n) <= budget``, -1 if there is none; `needs` rises.

    The first two tell where to look, since each costs a compilation.
    """
    first, second = needs(0), needs(1)
    slope = max((second - first) / (2**power - 1), 1e-12)  # of first + slope (2^(n power) - 1)
    guess = next(
        (n for n in range(most) if first + slope * (2 ** ((n + 1) * power) - 1) > budget), most
    )
    while guess >= 0 and needs(guess) > budget:
        guess -= 1
    while 0 <= guess < most and needs(guess + 1) <= budget:
        guess += 1
    return guess
