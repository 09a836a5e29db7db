"""Tables of what was measured: speed, memory, signal, and methods side by side."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from configs import paper
from experiments.tables import runs
from mamljax.checks import ArgumentError
from mamljax.running.report import Record
from mamljax.running.table import Table, markdown_lines


def measured(paths: Sequence[Path], kind: str) -> list[str]:
    """Return one of `TABLES` of a file, or of reports that differ in the seed alone, in Markdown.

    Raises:
      ArgumentError: for a table that there is not, and several files for one that shows one.
    """
    if kind not in TABLES:
        raise ArgumentError(f"there is no table {kind!r}; there are {', '.join(TABLES)}.")
    if len(paths) > 1 and kind not in OF_SEEDS:
        names = ", ".join(path.name for path in paths)
        raise ArgumentError(
            f"the table {kind!r} shows one file: name one in its mark; got {names}."
        )
    found = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    return markdown_lines(TABLES[kind](*found))


def races(found: Record) -> Table:
    """Return how fast the training steps are, and how many times faster than each peer."""
    peers = list(dict.fromkeys(name for row in found["races"] for name in row["times_faster"]))
    header = ["training step", "ms", "tasks/s", "s to compile", "MB", "% of peak"]
    cells = [
        [
            _words(row["name"]),
            _short(row["milliseconds_per_iteration"]),
            _short(row["tasks_per_second"]),
            f"{row['compile_seconds']:.1f}",
            f"{row['temporary_megabytes']:.1f}",
            f"{100 * row['share_of_peak']:.0f}",
            *(_times(row["times_faster"].get(name)) for name in peers),
        ]
        for row in found["races"]
    ]
    faster = (f"faster than {_words(name)} by" for name in peers)
    return Table([*header, *faster], cells, "")


def _times(factor: float | None) -> str:
    return "" if factor is None else f"{factor:.1f}x" if factor < 10 else f"{factor:.0f}x"


def peers(found: Record) -> Table:
    """Return the five races in brief: time, and how many times faster than each peer."""
    whole = races(found)
    keep = [0, 1, *range(6, len(whole.header))]
    header = [whole.header[i].removeprefix("faster than ").removesuffix(" by") for i in keep]
    return Table(header, [[line[i] for i in keep] for line in whole.cells], "")


def breakdowns(found: Record) -> Table:
    """Return where the seconds of a meta-iteration go in reinforcement learning."""
    parts = list(found["breakdowns"][0]["seconds"])
    rates = ("random actions", "rollouts")
    cells = [
        [
            _words(row["name"]),
            *(f"{row['seconds'][part]:.2f}" for part in parts),
            *(f"{row['env_steps_per_second'][rate]:,.0f}" for rate in rates),
        ]
        for row in found["breakdowns"]
    ]
    return Table(["environment", *parts, *(f"steps/s, {rate}" for rate in rates)], cells, "")


def profiles(found: Record) -> Table:
    """Return what the devices are busy with in one meta-gradient, in per cent."""
    kinds = list(dict.fromkeys(row["kind"] for part in found["parts"].values() for row in part))
    cells = []
    for name, part in found["parts"].items():
        shares = {row["kind"]: row["share"] for row in part}
        cells.append([_words(name), *(f"{100 * shares.get(kind, 0.0):.0f}" for kind in kinds)])
    return Table(["training step", *kinds], cells, "")


def inner_loops(found: Record) -> Table:
    """Return what second derivatives cost, and what recomputing the inner steps saves."""
    cells = [
        [
            row["name"],
            f"{row['milliseconds_per_iteration']:.0f}",
            f"{row['temporary_megabytes']:.1f}",
        ]
        for row in found["results"]
    ]
    return Table(["ten inner steps", "ms per meta-step", "MB"], cells, "")


def largest(found: Record) -> Table:
    """Return the largest step that fits into memory, by what grows."""
    parts = {
        name.rpartition(", ")[2]: part
        for name, part in found["parts"].items()
        if name.startswith("largest")
    }
    forms = [row["form"] for row in next(iter(parts.values()))]
    cells = [[form, *(f"{part[i]['largest']:,}" for part in parts.values())]
             for i, form in enumerate(forms)]  # fmt: skip
    return Table(["form", *parts], cells, "")


def compiling(found: Record) -> Table:
    """Return the seconds of compiling: of each config file the fastest, middle and slowest."""
    cells = []
    for name, part in found["parts"].items():
        seconds = sorted(row["compile_seconds"] for row in part)
        middle = seconds[len(seconds) // 2]
        cells.append([name, str(len(seconds)), *(f"{s:.1f}" for s in (seconds[0], middle))])
        cells[-1].append(f"{seconds[-1]:.1f} ({part[0]['variant']})")
    return Table(["config", "variants", "s, fastest", "median", "slowest"], cells, "")


def systems(found: Record) -> Table:
    """Return what an iteration and the whole training of each system cost."""
    cells = [
        [name, _short(part["milliseconds"]), f"{part['iterations']:,}", f"{part['hours']:.2g}"]
        for name, part in found["parts"].items()
    ]
    return Table(["row", "ms per iteration", "iterations", "hours"], cells, "")


def inner_steps(found: Record) -> Table:
    """Return how inner gradients agree, and what a step by them comes to."""
    names = ("discount", "lambda", "cosine", "return_after", "return_after_the_mean")
    cells = [[f"{row[name]:.3g}" for name in names] for row in found["parts"]["inner steps"]]
    told = ["cosine of two draws", "return after a step by one", "by their mean"]
    return Table(["discount", "lambda", *told], cells, "")


def outer_steps(found: Record) -> Table:
    """Return how directions of the outer step agree, and what they gain."""
    cells = []
    for name, part in found["parts"].items():
        _, _, gae_lambda = name.partition("lambda ")
        for row in part if gae_lambda else ():
            by = f"{row['iterations']}, {row['damping']:g}" if row["iterations"] else "gradient"
            gained = (f"{row[name]:.4f}" for name in ("gain", "gain_on_others"))
            cells.append([gae_lambda, by, f"{row['cosine']:.2f}", *gained])
    told = ["cosine of two batches", "gain on its own", "on others"]
    return Table(["lambda", "iterations, damping", *told], cells, "")


def simulation(found: Record) -> Table:
    """Return the robots' steps per second in every form, and the gain of the last."""
    cells = [
        [
            _words(name),
            row["form"],
            f"{row['env_steps_per_second']:,.0f}",
            f"{row['on_lanes_is_times_faster']:.1f}x ({row['round_by_round']})",
        ]
        for name, part in found["parts"].items()
        for row in part
    ]
    return Table(["robot", "form", "steps/s", "on lanes is faster by"], cells, "")


def _methods(problem: str) -> Callable[[Record], Table]:
    def table(found: Record) -> Table:
        best_last = found[problem]["results"][0]["measures"] == "accuracy"
        rows = sorted(
            found[problem]["results"],
            key=lambda row: -row.get("mean", 0.0) if best_last else row.get("mean", 1e9),
        )
        cells = [[row["method"], f"{row['inner_lr']:g}", *_quality(row)] for row in rows]
        measure = rows[0]["measures"]
        header = ["method", "inner step size", f"{measure} (smallest to largest seed)"]
        return Table([*header, "ms per meta-step", "MB"], cells, "")

    return table


def _quality(row: dict[str, Any]) -> list[str]:
    failed = f"{row['num_failed']} of {len(row['seeds'])} seeds diverged"
    if "mean" not in row:
        return [failed, "", ""]
    text = f"{row['mean']:.3f} ± {row['ci95']:.3f} ({row['lowest']:.3f} to {row['highest']:.3f})"
    megabytes = row["temporary_megabytes"]
    return [
        f"{text}, {failed}" if row["num_failed"] else text,
        f"{row['milliseconds_per_step']:.2f}",
        f"{megabytes:.1f}" if megabytes else "",
    ]


def neighbours(found: Record) -> Table:
    """Return the accuracy of photos predicted together and one by one, by whose statistics."""
    cells = []
    for name, part in found["parts"].items():
        if name == "other ways":
            continue
        cells.append([f"`{name}`", *map(_percent, part)])
    header = ["model", "together, `batch`", "one by one, `batch`", "one by one, `support`"]
    return Table(header, cells, "")


def streaming(found: Record) -> Table:
    """Return the memory and the speed of images on disk and in memory."""
    cells = []
    for name, (row,) in found["parts"].items():
        if row["fits"] == "no":
            cells.append([name, "does not fit", "", ""])
            continue
        rates = (row["iterations_per_second"], row["cpu_seconds_per_iteration"])
        cells.append([name, f"{row['megabytes_at_most']:,.0f}", *(f"{x:.2f}" for x in rates)])
    header = ["images", "MB at most", "iterations/s", "CPU seconds per iteration"]
    return Table(header, cells, "")


def ways(found: Record) -> Table:
    """Return the accuracy for other numbers of classes than in training."""
    rows = found["parts"]["other ways"]
    cells = [[str(row["ways"]), _percent(row), f"{100 / row['ways']:.0f}"] for row in rows]
    return Table(["classes", "accuracy, %", "chance, %"], cells, "")


def _percent(row: dict[str, Any]) -> str:
    return f"{100 * row['accuracy']:.1f} ± {100 * row['ci95']:.1f}"


def gap(*found: Record) -> Table:
    """Return the part of the gap to the oracle that each method closes, beside the paper's.

    A part is a ratio, whose mean over seeds says little: each seed has a column.
    """
    name = found[0]["experiment"].removeprefix("meta-RL: ")
    ours = [record["details"]["oracle_gap_closed"] for record in found]
    cells = []
    for method in ours[0]:
        by_seed = (" / ".join(runs.parts(parts[method])) for parts in ours)
        cells.append([method, *by_seed, _paper_gap(name, method)])
    here = [f"seed {record['seed']}" for record in found] if len(found) > 1 else ["here"]
    return Table(["gap closed after 1 / 2 / 3 steps", *here, "paper"], cells, "")


def _paper_gap(env: str, method: str) -> str:
    if (env, method) not in paper.RETURNS:
        return ""
    first, *later = paper.RETURNS[env, method]
    best = paper.RETURNS[env, "oracle"][0]
    return " / ".join(f"{(x - first) / (best - first):.2f}" for x in later)


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _words(name: str) -> str:
    """A name as a reader would have it."""
    return TITLES.get(name, name.replace("_", " "))


TITLES = {
    "sinusoid": "sinusoid, one core",
    "omniglot": "Omniglot 5-way 1-shot",
    "omniglot_20way": "Omniglot 20-way 1-shot",
    "miniimagenet": "miniImagenet 5-way 1-shot",
    "miniimagenet_fomaml": "miniImagenet, first order",
    "torch loop": "a PyTorch loop",
    "torch batched": "PyTorch batched by hand",
    "jax.vmap of lax.conv": "naive JAX",
}


TABLES: dict[str, Callable[..., Table]] = {
    "races": races,
    "peers": peers,
    "breakdowns": breakdowns,
    "profiles": profiles,
    "inner_loops": inner_loops,
    "largest": largest,
    "compiling": compiling,
    "systems": systems,
    "simulation": simulation,
    "inner_steps": inner_steps,
    "outer_steps": outer_steps,
    "gap": gap,
    "neighbours": neighbours,
    "ways": ways,
    "streaming": streaming,
    **{problem: _methods(problem) for problem in ("sinusoid", "glyphs", "omniglot")},
}
"""Tables of files of measurements, by the word that stands behind the file in a mark."""
OF_SEEDS = ("gap",)
"""Those that show reports which differ in the seed alone, all others a single file."""
