"""Races: the same training step in mamljax and in other libraries, measured in one run.

Contestants must first agree on the meta-loss and the meta-gradient, then they take turns. Peers
whose library is not installed are skipped (``pip install -e .[bench]`` installs PyTorch). The JSON
holds every measurement; a chart of the same name lies next to it.
"""

import importlib.metadata
import importlib.util
import os
import tempfile
from pathlib import Path
from typing import Any

import jax
from matplotlib.figure import Figure
from rich.console import Console

from experiments.benchmark.measure import Options, Suite, matmul_gflops, measure, require_same
from experiments.benchmark.steps import LIBRARIES, SUITES
from experiments.harness.main import set_up_cpu
from mamljax import files
from mamljax.running import plots
from mamljax.running.provenance import provenance
from mamljax.running.table import Table, print_table


def run(name: str, output: Path, options: Options) -> dict[str, Any]:
    """Race a training step of `SUITES`."""
    make, get_config = SUITES[name]
    config = get_config()
    set_up_cpu(config)
    with tempfile.TemporaryDirectory() as workdir:
        return race(make(Path(workdir), config), name, output, options)


def race(suite: Suite, name: str, output: Path, options: Options) -> dict[str, Any]:
    """Check that the contestants agree, race them, write the JSON and the chart, print a table."""
    agreement = require_same(suite.contestants)
    found = provenance(f"speed: {name}", suite.setting)
    for package in filter(importlib.util.find_spec, LIBRARIES):
        found["versions"][package] = importlib.metadata.version(package)
    found |= {
        # XLA's alone; torch's threads are set for each run.
        "threads": {"NPROC": os.environ.get("NPROC"), "cpu_devices": jax.device_count()},
        "matmul_gflops": matmul_gflops(),
        "seconds_per_measurement": options.seconds,
        "skipped": list(suite.skipped),
        "agreement": agreement,
        "results": measure(suite, options.seconds, options.repeats),
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
    cells = []
    for row in found["results"]:
        rate, ratio = row["iterations_per_second"], row["reference_is_times_faster"]
        pairs = ratio["pairwise"]
        cells.append(
            [
                row["name"],
                row["variant"] + (" *" if row["best_variant"] else ""),
                f"{rate['median']:,.4g} ({rate['min']:,.4g} to {rate['max']:,.4g})",
                f"{row['tasks_per_second']:,.0f}",
                f"{row['gflops']:,.1f}" if row["gflops"] else "",
                f"{row['compile_seconds']:.2f}",
                f"{ratio['of_medians']:.3g}x ({pairs['min']:.3g} to {pairs['max']:.3g})",
            ]
        )
    header = [*columns, "mamljax is faster by (round by round)"]
    print_table(Table(header, cells, ""), title=found["experiment"])
    console = Console()
    peak = max(found["matmul_gflops"].values())
    console.print(f"One large matrix product per core: {peak:,.0f} GFLOP/s.")
    for line in found["skipped"]:
        console.print(line, markup=False)


def draw(path: Path, found: dict[str, Any]) -> None:
    """A dot per contestant, at its best variant, with the range over the rounds."""
    rows = [row for row in reversed(found["results"]) if row["best_variant"]]
    rates = [row["iterations_per_second"] for row in rows]
    figure = Figure(figsize=(7.5, 1.2 + 0.6 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for index, (row, rate) in enumerate(zip(rows, rates, strict=True)):
        plots.dot(axes, rate["median"], index, (rate["min"], rate["max"]), row["name"])
        times = row["reference_is_times_faster"]["of_medians"]
        text = f"  {rate['median']:,.4g}" + (f"  (1/{times:.3g})" if times != 1 else "")
        axes.text(rate["max"], index, text, va="center")
    names = [f"{row['name']}\n{row['variant']}" for row in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.set_xscale("log")
    axes.set_xlim(min(r["min"] for r in rates) / 2, max(r["max"] for r in rates) * 5)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set(xlabel="meta-iterations per second; bar: smallest to largest round")
    axes.set_title(found["experiment"])
    axes.grid(axis="x", alpha=0.3)
    plots.save(figure, path)
