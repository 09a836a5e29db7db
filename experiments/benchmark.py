"""Speed of mamljax beside the same training step in other libraries, measured in one run.

    python -m experiments.benchmark --suite=sinusoid --output=results/speed_sinusoid.json

Contestants must first agree on the meta-loss and the meta-gradient, then they take turns. Peers
whose library is not installed are skipped (``pip install -e .[bench]`` installs PyTorch). The JSON
holds every measurement; a bar chart of the same name lies next to it.

The suite ``speed`` is all of them, see `experiments.speed`; ``compile`` and ``growth`` tell how
long compiling takes, and how time and memory grow, see `experiments.compiling` and
`experiments.growth`; ``profile`` what the time of a step is spent on, see `experiments.profiles`;
``gpu`` what only a GPU can tell, see `experiments.gpu`; ``methods`` compares methods instead of
libraries, see `experiments.methods`.
"""

import importlib.metadata
import importlib.util
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging
from matplotlib.figure import Figure
from rich.table import Table

from configs import methods as methods_config
from configs import omniglot as omniglot_config
from experiments import compiling, gpu, growth, methods, parts, profiles, settings, speed
from experiments.race import Suite, matmul_gflops, measure, require_same
from experiments.races import SUITES
from mamljax import files, plots, report


def run(suite: Suite, name: str, output: Path, *, seconds: float, repeats: int) -> dict[str, Any]:
    """Check that the contestants agree, race them, write the JSON and the chart, print a table."""
    agreement = require_same(suite.contestants)
    found = report.provenance(f"speed: {name}", suite.setting)
    if importlib.util.find_spec("torch"):
        found["versions"]["torch"] = importlib.metadata.version("torch")
    found |= {
        # XLA's alone; torch's threads are set for each run.
        "threads": {"NPROC": os.environ.get("NPROC"), "cpu_devices": jax.device_count()},
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
    columns = (
        "contestant",
        "variant",
        "iterations/s (min to max)",
        "tasks/s",
        "GFLOP/s",
        "compile s",
    )
    table = Table(*columns, "mamljax is faster by (round by round)", title=found["experiment"])
    for row in found["results"]:
        rate, ratio = row["iterations_per_second"], row["reference_is_times_faster"]
        pairs = ratio["pairwise"]
        table.add_row(
            row["name"],
            row["variant"] + (" *" if row["best_variant"] else ""),
            f"{rate['median']:,.4g} ({rate['min']:,.4g} to {rate['max']:,.4g})",
            f"{row['tasks_per_second']:,.0f}",
            f"{row['gflops']:,.1f}" if row["gflops"] else "",
            f"{row['compile_seconds']:.2f}",
            f"{ratio['of_medians']:.3g}x ({pairs['min']:.3g} to {pairs['max']:.3g})",
        )
    console = report.console()
    console.print(table)
    peak = max(found["matmul_gflops"].values())
    console.print(f"One large matrix product per core: {peak:,.0f} GFLOP/s.")
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
        text = f"  {rate['median']:,.4g}" + (f"  (1/{times:.3g})" if times != 1 else "")
        axes.text(rate["max"], index, text, va="center")
    axes.set_xscale("log")
    axes.set_xlim(min(medians) / 4, max(rate["max"] for rate in rates) * 5)
    axes.set(xlabel="meta-iterations per second (log scale)", title=found["experiment"])
    axes.grid(axis="x", alpha=0.3)
    plots.save(figure, path)


def main(argv: Sequence[str]) -> None:
    """Run one suite."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}")
    logging.set_verbosity(logging.WARNING)  # jax and the data sets tell of every file they read
    name, output = flags.FLAGS.suite, Path(flags.FLAGS.output)
    length = {"seconds": flags.FLAGS.seconds, "repeats": flags.FLAGS.repeats}
    if name == "speed":
        speed.run(output, **length)
        return
    if name == "gpu":
        settings.keep_compiled_programs()
        parts.run(name, output, gpu.parts(**length))
        return
    by_parts = {"compile": compiling.parts, "profile": profiles.parts}
    if name in by_parts:
        settings.set_up_cpu(omniglot_config.get_config())
        parts.run(name, output, by_parts[name]())
        return
    if name == "growth":
        found = parts.run(name, output, growth.parts(seconds=length["seconds"]))
        growth.draw(output.with_suffix(".png"), found["parts"])
        return
    if name == "methods":
        config = methods_config.get_config(flags.FLAGS.problem)
        settings.set_up_cpu(config)
        settings.keep_compiled_programs()  # the seeds share theirs; times leave compiling out
        folder = {"data_dir": flags.FLAGS.data_dir} if flags.FLAGS.data_dir else {}
        methods.run(config, output, **folder)
        return
    with tempfile.TemporaryDirectory() as workdir:
        make, get_config = SUITES[name]
        config = get_config()
        settings.set_up_cpu(config)
        suite = make(Path(workdir), config)
        run(suite, name, output, **length)


if __name__ == "__main__":
    # Defined here and not on import, so that no test or other command meets them twice.
    flags.DEFINE_enum(
        "suite",
        "sinusoid",
        [*sorted(SUITES), "speed", "compile", "growth", "profile", "gpu", "methods"],
        "What to measure.",
    )
    flags.DEFINE_enum("problem", "sinusoid", sorted(methods.PROBLEMS), "Of the suite methods.")
    flags.DEFINE_string("data_dir", None, "Where the suite methods finds Omniglot.")
    flags.DEFINE_string("output", None, "The JSON file to write; the chart goes next to it.")
    flags.DEFINE_float("seconds", 3.0, "Of each measurement.", lower_bound=0.0)
    flags.DEFINE_integer("repeats", 7, "Measurements per contestant.", lower_bound=1)
    flags.mark_flag_as_required("output")
    app.run(main)
