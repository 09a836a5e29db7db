"""Every race and every breakdown of meta-RL, one after the other, and what comes out of them all.

    python -m experiments.benchmark --suite=speed --output=results/speed.json

Each runs as a command of its own, since threads and devices are set once per process; its JSON and
chart go beside the output. What lies there already is kept: delete it to measure it again.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments.benchmark.measure import Options
from mamljax import files
from mamljax.running import plots
from mamljax.running.progress import progress
from mamljax.running.provenance import provenance
from mamljax.running.table import Table, print_table

RACES = ("sinusoid", "omniglot", "omniglot_20way", "miniimagenet", "miniimagenet_fomaml")
BREAKDOWNS = ("navigation", "cheetah_direction", "ant_direction")


def run(output: Path, options: Options) -> dict[str, Any]:
    """Measure what is missing, then write the JSON and the chart and print the tables."""
    suites = (*RACES, *BREAKDOWNS)
    with progress("speed", len(suites)) as update:
        for done, name in enumerate(suites, start=1):
            path = _path(output, name)
            if not path.exists():
                words = [f"--suite={name}", f"--output={path}"]
                words += [f"--seconds={options.seconds}", f"--repeats={options.repeats}"]
                command = [sys.executable, "-m", "experiments.benchmark", *words]
                subprocess.run(command, check=True)
            update(done, name)
    measured = {"seconds": options.seconds, "repeats": options.repeats}
    found = provenance("speed", measured)
    found["races"] = [race(name, _read(output, name)) for name in RACES]
    found["breakdowns"] = [breakdown(name, _read(output, name)) for name in BREAKDOWNS]
    files.write_json(output, found)
    draw(output.with_suffix(".png"), found["races"])
    show(found)
    return found


def race(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """One row: mamljax, and how many times faster than each peer at its best variant."""
    ours, *others = (row for row in found["results"] if row["best_variant"])
    faster = {row["name"]: row["reference_is_times_faster"] for row in others}
    peak = max(found["matmul_gflops"].values())
    return {
        "name": name,
        "milliseconds_per_iteration": ours["milliseconds_per_iteration"],
        "iterations_per_second": ours["iterations_per_second"],
        "tasks_per_second": ours["tasks_per_second"],
        "compile_seconds": ours["compile_seconds"],
        "temporary_megabytes": ours["temporary_megabytes"],
        "share_of_peak": ours["gflops"] / peak,
        "peak_gflops": peak,
        "times_faster": {name: times["of_medians"] for name, times in faster.items()},
        "rounds_faster": {
            name: [times["pairwise"]["min"], times["pairwise"]["max"]]
            for name, times in faster.items()
        },
        "device": found["device"],
    }


def breakdown(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """One row: where the seconds of a meta-iteration go, and simulated steps per second."""
    fields = ("seconds", "meta_iterations_per_second", "env_steps_per_second", "device")
    return {"name": name, **{field: found[field] for field in fields}}


def draw(path: Path, races: Sequence[dict[str, Any]]) -> None:
    """Draw how many times faster mamljax is than each peer, race by race."""
    names = list(dict.fromkeys(name for row in races for name in row["times_faster"]))
    figure = Figure(figsize=(7.5, 1.4 + 0.9 * len(races)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(reversed(races)):
        axes.axhline(place + 0.5, color="lightgray", linewidth=0.8)
        for name, times in row["times_faster"].items():
            at = place + 0.22 * ((len(names) - 1) / 2 - names.index(name))
            plots.dot(axes, times, at, row["rounds_faster"][name], name)
            axes.text(row["rounds_faster"][name][1], at, f"  {times:.2g}x", va="center", fontsize=9)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    most = [high for row in races for _, high in row["rounds_faster"].values()]
    axes.set_xlim(0.8, 2 * max([*most, 1]))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_yticks(range(len(races)), [row["name"].replace("_", "\n") for row in reversed(races)])
    axes.set(xlabel="mamljax is so many times faster; bar: smallest to largest round")
    axes.grid(axis="x", alpha=0.3)
    found = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    if found:
        figure.legend(found.values(), found.keys(), loc="outside upper center", ncols=2)
    plots.save(figure, path)


def show(found: dict[str, Any]) -> None:
    """Print both tables."""
    peers = list(dict.fromkeys(name for row in found["races"] for name in row["times_faster"]))
    columns = ("race", "ms per meta-step", "tasks/s", "compile s", "MB", "of matmul peak")
    cells = [
        [
            row["name"],
            f"{row['milliseconds_per_iteration']:,.3g}",
            f"{row['tasks_per_second']:,.0f}",
            f"{row['compile_seconds']:.1f}",
            f"{row['temporary_megabytes']:.1f}",
            f"{row['share_of_peak']:.0%}",
            *(f"{row['times_faster'][n]:.3g}x" if n in row["times_faster"] else "" for n in peers),
        ]
        for row in found["races"]
    ]
    header = [*columns, *(f"faster than {name}" for name in peers)]
    print_table(Table(header, cells, "", 1), title="Speed")
    parts = list(found["breakdowns"][0]["seconds"])
    cells = [
        [
            row["name"],
            *(f"{row['seconds'][part]:.3g}" for part in parts),
            f"{row['env_steps_per_second']['training']:,.0f}",
        ]
        for row in found["breakdowns"]
    ]
    where = Table(["environment", *parts, "env steps/s"], cells, "", 1)
    print_table(where, title="Seconds of a meta-iteration")


def _path(output: Path, name: str) -> Path:
    return output.with_name(f"{output.stem}_{name}.json")


def _read(output: Path, name: str) -> dict[str, Any]:
    return json.loads(_path(output, name).read_text(encoding="utf-8"))
