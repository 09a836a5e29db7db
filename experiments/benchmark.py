"""Speed of mamljax beside the same training step in other libraries, measured in one run.

    python -m experiments.benchmark --suite=sinusoid --output=results/speed_sinusoid.json

Contestants must first agree on the meta-loss and the meta-gradient, then they take turns. Peers
whose library is not installed are skipped (``pip install -e .[bench]`` installs PyTorch). The JSON
holds every measurement; a bar chart of the same name lies next to it.

A further suite is a function of a work directory that returns a `Suite`, and an entry in `SUITES`.
"""

import contextlib
import importlib.metadata
import importlib.util
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from absl import app, flags
from matplotlib.figure import Figure
from rich.table import Table

import mamljax
from configs import sinusoid as sinusoid_config
from experiments import sinusoid as sinusoid_experiment
from experiments.race import Contestant, Evaluation, Suite, matmul_gflops, measure, require_same
from experiments.settings import Config
from mamljax import files, losses, models, plots, report
from mamljax.metrics import MetricLogger
from mamljax.progress import training_progress
from mamljax.tasks.sampling import sample_tasks


def sinusoid(workdir: Path, config: Config = None) -> Suite:
    """The paper's sinusoid regression: mamljax with logging on, PyTorch without."""
    config = config or sinusoid_config.get_config("paper")
    ours, *shared = _mamljax_sinusoid(workdir, config)
    peers, skipped = [], []
    if importlib.util.find_spec("torch"):
        from experiments.peers import torch_sinusoid

        peers = list(torch_sinusoid.contestants(config, *shared))
    else:
        skipped.append("PyTorch is skipped: not installed (`pip install -e .[bench]`).")
    setting = {key: config.to_dict()[key] for key in ("seed", "model", "task", "train", "log")}
    return Suite(setting, config.train.meta_batch, [ours, *peers], skipped)


SUITES = {"sinusoid": sinusoid}


@contextlib.contextmanager
def logging_hooks(workdir: Path, run: str, num_steps: int, done: int) -> Iterator[list]:
    """The hooks that an experiment logs with: JSON lines, TensorBoard, progress."""
    with (
        MetricLogger(workdir, run, resume_step=done) as logger,
        training_progress(run, num_steps, done) as show,
    ):
        yield [show, logger]


def run(suite: Suite, name: str, output: Path, *, seconds: float, repeats: int) -> dict[str, Any]:
    """Check that the contestants agree, race them, write the JSON and the chart, print a table."""
    agreement = require_same(suite.contestants)
    found = report.provenance(f"speed: {name}", suite.setting)
    if not suite.skipped:
        found["versions"]["torch"] = importlib.metadata.version("torch")
    found |= {
        "threads": {"NPROC": os.environ.get("NPROC"), "used_by": "mamljax"},
        "matmul_gflops": matmul_gflops(),
        "seconds_per_measurement": seconds,
        "skipped": list(suite.skipped),
        "agreement": agreement,
        "results": measure(suite, seconds, repeats),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(output, found)
    draw(output.with_suffix(".png"), found)
    show(found)
    return found


def show(found: dict[str, Any]) -> None:
    """Print the results; of each peer's variants a star marks the one that is compared."""
    columns = ("contestant", "variant", "iterations/s (min to max)", "tasks/s", "compile s")
    table = Table(*columns, "mamljax is faster by (round by round)", title=found["experiment"])
    for row in found["results"]:
        rate, ratio = row["iterations_per_second"], row["reference_is_times_faster"]
        pairs = ratio["pairwise"]
        table.add_row(
            row["name"],
            row["variant"] + (" *" if row["best_variant"] else ""),
            f"{rate['median']:,.1f} ({rate['min']:,.1f} to {rate['max']:,.1f})",
            f"{row['tasks_per_second']:,.0f}",
            f"{row['compile_seconds']:.2f}",
            f"{ratio['of_medians']:.3g}x ({pairs['min']:.3g} to {pairs['max']:.3g})",
        )
    console = report.console()
    console.print(table)
    for line in found["skipped"]:
        console.print(line, markup=False)


def draw(path: Path, found: dict[str, Any]) -> None:
    """A bar per contestant, at its best variant, with the range over the rounds."""
    rows = [row for row in reversed(found["results"]) if row["best_variant"]]
    rates = [row["iterations_per_second"] for row in rows]
    medians = np.array([rate["median"] for rate in rates])
    spread = [medians - [r["min"] for r in rates], [r["max"] for r in rates] - medians]
    figure = Figure(figsize=(7.5, 1.2 + 0.6 * len(rows)), layout="constrained")
    axes = figure.subplots()
    colors = ["tab:gray"] * (len(rows) - 1) + ["tab:blue"]
    names = [f"{row['name']}\n{row['variant']}" for row in rows]
    axes.barh(names, medians, xerr=spread, color=colors, capsize=3)
    for index, (row, rate) in enumerate(zip(rows, rates, strict=True)):
        times = row["reference_is_times_faster"]["of_medians"]
        text = f"  {rate['median']:,.0f}" + (f"  (1/{times:.3g})" if times != 1 else "")
        axes.text(rate["max"], index, text, va="center")
    axes.set_xscale("log")
    axes.set_xlim(min(medians) / 4, max(rate["max"] for rate in rates) * 5)
    axes.set(xlabel="meta-iterations per second (log scale)", title=found["experiment"])
    axes.grid(axis="x", alpha=0.3)
    plots.save(figure, path)


def _mamljax_sinusoid(workdir: Path, config: Config) -> tuple[Contestant, Any, Any, Any]:
    """The contestant; the weights to start from, those to compare at, and the tasks for that."""
    train, chunk = config.train, config.log.chunk
    learner = mamljax.maml(
        sinusoid_experiment.build_model(config),
        losses.mean_squared_error,
        inner_lr=train.inner_lr,
        num_steps=train.num_inner_steps,
    )
    sampler = sinusoid_experiment.task_sampler(config, train.shots, train.queries)
    tx = optax.adam(train.meta_lr)
    step_fn = mamljax.meta_step(learner.meta_gradient, tx)
    keys = jax.random.split(jax.random.key(config.seed), 4)
    example = np.zeros((1, 1), np.float32)
    start = learner.init(keys[0], example)
    # At weights as small as those the second-order terms vanish, and a first-order gradient would
    # pass for the right one: contestants are compared at larger weights.
    large = models.mlp((*config.model.hidden, 1), init="he_normal").init(keys[1], example)
    tasks = sample_tasks(sampler, start, keys[2], train.meta_batch)
    state = mamljax.init_state(start, tx)

    def train_on(num_iterations):
        nonlocal state
        done, compile_seconds = int(state.step), []
        total = done + num_iterations
        with logging_hooks(workdir, "mamljax", total, done) as hooks:
            hooks.append(lambda chunk: compile_seconds.append(chunk.compile_seconds))
            options = {"meta_batch": train.meta_batch, "chunk": chunk, "hooks": hooks}
            state = mamljax.fit(step_fn, state, sampler, keys[3], num_steps=total, **options)
        return compile_seconds[0]

    def check():
        gradient, metrics = jax.jit(learner.meta_gradient)(large, tasks, keys[3])
        return Evaluation(float(metrics.loss), _by_name(gradient))

    batch = [np.asarray(leaf) for leaf in jax.tree.leaves(tasks)]
    ours = Contestant("mamljax", f"chunk {chunk}", chunk, True, check, train_on)
    return ours, _by_name(start), _by_name(large), batch


def _by_name(tree) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def main(argv: Sequence[str]) -> None:
    """Run one suite."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}")
    # One thread, as the experiments set it (config.cpu_threads): read when jax makes its CPU
    # client, at the first computation. Only XLA reads it; torch's threads are set for each run.
    os.environ.setdefault("NPROC", "1")
    name, output = flags.FLAGS.suite, Path(flags.FLAGS.output)
    with tempfile.TemporaryDirectory() as workdir:
        suite = SUITES[name](Path(workdir))
        run(suite, name, output, seconds=flags.FLAGS.seconds, repeats=flags.FLAGS.repeats)


if __name__ == "__main__":
    # Defined here and not on import, so that no test or other command meets them twice.
    flags.DEFINE_enum("suite", "sinusoid", sorted(SUITES), "What to measure.")
    flags.DEFINE_string("output", None, "The JSON file to write; the chart goes next to it.")
    flags.DEFINE_float("seconds", 3.0, "Of each measurement.", lower_bound=0.0)
    flags.DEFINE_integer("repeats", 7, "Measurements per contestant.", lower_bound=1)
    flags.mark_flag_as_required("output")
    app.run(main)
