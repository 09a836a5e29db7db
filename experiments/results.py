"""Bring the tables of RESULTS.md and README.md up to date with what lies in results/.

    python -m experiments.results

What stands between ``<!-- table: FILES -->`` and ``<!-- end -->`` is made anew: the table of the
reports that the pattern matches, below results/, and where they come from. Prose stays. Files of
measurements have tables of their own: ``<!-- table: speed.json races -->``, see `TABLES`.
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from configs import paper
from experiments.reproduction import standing
from experiments.reproduction.places import Places
from mamljax import files
from mamljax.checks import ArgumentError
from mamljax.running import report
from mamljax.running.report import Record, Table

ROOT = Path(__file__).parents[1]
TUTORIALS = ROOT / "docs" / "tutorials"
PAGES = (ROOT / "RESULTS.md", ROOT / "README.md", TUTORIALS / "photos.md", TUTORIALS / "scale.md")
MARKED = re.compile(r"(<!-- table: (\S+)(?: (\w+))? -->\n).*?(<!-- end -->)", re.DOTALL)


def rendered(text: str, folder: Path = ROOT / "results") -> str:
    """Return a page with its tables made anew.

    Raises:
      ArgumentError: for a pattern that no file matches, or a table that there is not.
    """

    def replaced(found: re.Match[str]) -> str:
        begin, pattern, kind, end = found.groups()
        if kind in OF_ROWS:
            places = Places(results=folder, runs=folder / "none")  # of what is published alone
            chosen = [row for row in paper.ROWS if pattern in ("all", row.name.partition("/")[0])]
            lines = OF_ROWS[kind](chosen, places)
            return begin + "\n".join(lines) + "\n" + end
        paths = sorted(folder.glob(pattern))
        if not paths:
            raise ArgumentError(f"{folder} has no report {pattern}.")
        lines = measured(paths[0], kind) if kind else reported(paths)
        return begin + "\n".join(lines) + "\n" + end

    return MARKED.sub(replaced, text)


def reported(paths: Sequence[Path]) -> list[str]:
    """Return the table of reports that differ in the seed alone, and where they come from."""
    records = report.read(paths)
    return [*report.markdown_table(report.table(records)), "", *origin(records)]


def measured(path: Path, kind: str) -> list[str]:
    """Return one of `TABLES` of a file."""
    if kind not in TABLES:
        raise ArgumentError(f"there is no table {kind!r}; there are {', '.join(TABLES)}.")
    return report.markdown_table(TABLES[kind](json.loads(path.read_text(encoding="utf-8"))))


def origin(records: Sequence[Record]) -> list[str]:
    """Return where numbers come from: training, device, versions, command."""
    first = records[0]
    device, versions = first["device"], first["versions"]
    devices = f"{device['count']} device{'' if device['count'] == 1 else 's'}"
    return [
        f"- {first['results'][0]['num_tasks']} test tasks for each seed",
        *(f"- training{line}" for line in _trainings(records)),
        *_gains(first),
        *_gaps(first),
        f"- {device['platform'].upper()} ({device['kind']}, {device['cpu_cores']} cores, "
        f"{devices}), Python {versions['python']}, jax {versions['jax']}, "
        f"mamljax {versions['mamljax']}",
        f"- `{first['command']}`",
    ]


def _trainings(records: Sequence[Record]) -> list[str]:
    """Training of the first seed, or of each where they are not equally long."""
    lengths = [{name: run.get("iterations") for name, run in x["train"].items()} for x in records]
    if all(length == lengths[0] for length in lengths):
        return [f": {line}" for line in _training(records[0])]
    return [f", seed {x['seed']}: {line}" for x in records for line in _training(x)]


def _training(record: Record) -> list[str]:
    """Iterations and time of every method that was trained."""
    lines = []
    for name, run in record["train"].items():
        if not run.get("iterations"):
            continue
        text = f"{name}, {run['iterations']:,} iterations"
        if seconds := run.get("wall_seconds"):
            text += f" in {_duration(seconds)}"
        elif rate := run.get("iterations_per_second"):
            text += f", about {_duration(run['iterations'] / rate)} by the median rate"
        if (tested := run.get("tested_checkpoint")) not in (None, run["iterations"]):
            text += f", the checkpoint of {tested:,} tested"
        if flat := run.get("flat_for"):
            text += f"; it ended where validation had not risen for {flat:,}"
        if imported := run.get("imported"):
            text += f"; tested from {imported}"
        lines.append(text)
    return lines


def _gains(record: Record) -> list[str]:
    """In reinforcement learning: what each step gained, over tasks compared with themselves."""
    gains = record.get("details", {}).get("gain", {})
    return [
        f"- gained by 1, 2, ... steps of {name}, each task against itself: "
        + ", ".join(
            f"{mean:.3g} ± {ci95:.2g}"
            for mean, ci95 in zip(gain["mean"], gain["ci95"], strict=True)
        )
        for name, gain in gains.items()
    ]


def _gaps(record: Record) -> list[str]:
    """In reinforcement learning: which part of the gap to the oracle each step closes."""
    gaps = record.get("details", {}).get("oracle_gap_closed", {})
    return [
        f"- gap to the oracle closed after 1, 2, ... steps by {name}: " + ", ".join(_parts(parts))
        for name, parts in gaps.items()
    ]


def _parts(closed: list[float] | dict[str, list[Any]]) -> list[str]:
    """Parts of a gap in words; earlier versions wrote no intervals."""
    if isinstance(closed, list):
        return [f"{part:.2f}" for part in closed]
    both = zip(closed["mean"], closed["ci95"], strict=True)
    return [f"{part:.2f} ({low:.2f} to {high:.2f})" for part, (low, high) in both]


def _duration(seconds: float) -> str:
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds:.0f} seconds"


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


def gap(found: Record) -> Table:
    """Return the part of the gap to the oracle that each method closes, beside the paper's."""
    name = found["experiment"].removeprefix("meta-RL: ")
    ours = found["details"]["oracle_gap_closed"]
    cells = [
        [method, " / ".join(_parts(parts)), _paper_gap(name, method)]
        for method, parts in ours.items()
    ]
    return Table(["gap closed after 1 / 2 / 3 steps", "here", "paper"], cells, "")


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
    "torch loop": "a PyTorch loop over tasks",
    "torch batched": "PyTorch batched by hand",
    "jax.vmap of lax.conv": "naive JAX",
}


def rows(chosen: Sequence[paper.Row], places: Places) -> list[str]:
    """Return how far every row of the paper is trained."""
    found = standing.trainings(standing.standing(row, places) for row in chosen)
    return report.markdown_table(found)


def numbers(chosen: Sequence[paper.Row], places: Places) -> list[str]:
    """Return how every number of the paper stands."""
    found = standing.numbers(standing.standing(row, places) for row in chosen)
    return report.markdown_table(found)


def reports(chosen: Sequence[paper.Row], places: Places) -> list[str]:
    """Return the table of every row that has a report, where it comes from, and its figure."""
    lines = []
    for row in chosen:
        paths = [path for seed in row.seeds if (path := places.report(row, seed)).is_file()]
        if not paths:
            continue
        lines += ["", f"### {row.name}", "", *reported(paths)]
        if (places.results / f"{row.name}_training.png").is_file():
            lines += ["", f"![Training of {row.name}](results/{row.name}_training.png)"]
    return [*lines, ""]


def weights(chosen: Sequence[paper.Row], places: Places) -> list[str]:
    """Return the published weights: the number, what tests and what trained them."""
    cells = []
    for row in chosen:
        if not all(p.is_file() for p in (places.weights(row), places.report(row, row.seeds[0]))):
            continue
        (record,) = report.read([places.report(row, row.seeds[0])])
        number = record["results"][0]
        trained = row.network or row.name
        test = f"mamljax evaluate {row.config} results/{trained}.npz"
        if row.data:
            test += f" --config.data.dir=data/{row.data}"
        train = f"mamljax reproduce --only={trained}"
        mean, half = number["mean"][-1], number["ci95"][-1]
        cells.append([row.name, f"{mean:.4f} ± {half:.4f}", f"`{test}`", f"`{train}`"])
    header = ["row", "number", "what tests them", "what trains them"]
    return report.markdown_table(Table(header, cells, ""))


def images(chosen: Sequence[paper.Row], places: Places) -> list[str]:
    """Return tables 1 and 3: ours and the paper's in per cent, and how far ours is trained."""
    ours = {}
    for found in (standing.standing(row, places) for row in chosen if row.data):
        part = _part(found, places)
        for number in reversed(found.numbers):  # of several query counts the first, the paper's
            task = number.setting.partition(",")[0]
            ours[found.row.data, task, number.method] = f"{100 * number.ours:.1f}{part}"
    tasks = [("omniglot", ways, shots) for ways in (5, 20) for shots in (1, 5)]
    tasks += [("miniimagenet", 5, shots) for shots in (1, 5)]
    cells = []
    for method in dict.fromkeys(method for _, _, method in paper.IMAGES):
        cells.append([method])
        for data, ways, shots in tasks:
            theirs = paper.IMAGES.get((data, ways, method), {}).get(shots)
            found = ours.get((data, f"{ways}-way {shots}-shot", method), "-")
            cells[-1].append(f"{found} / {theirs[0]:.1f}" if theirs else "")
    header = [f"{SETS[data]} {ways}-way {shots}-shot" for data, ways, shots in tasks]
    return report.markdown_table(Table(["%, ours / paper", *header], cells, ""))


def _part(found: standing.Standing, places: Places) -> str:
    """Say in brackets how much of the training is behind the reports of a row, if not all of it."""
    seeds = [seed for seed in found.row.seeds if places.report(found.row, seed).is_file()]
    short = [seed for seed in seeds if not standing.is_done(found.row, seed, places)]
    least = min((standing.published(found.row, seed, places) for seed in short), default=0)
    return f" ({least / found.goal:.0%})" if short else ""


def others(chosen: Sequence[paper.Row], places: Places) -> list[str]:
    """Return MAML's numbers beside the paper's where there are no images, of `OTHERS`."""
    cells = {}
    for found in (standing.standing(row, places) for row in chosen):
        experiment = found.row.name.partition("/")[0]
        by_step = [number for number in found.findings if number.method == "maml"]
        if experiment not in OTHERS or experiment in cells or not by_step:
            continue
        steps = " / ".join(str(number.step) for number in by_step)
        ours = " / ".join(f"{number.ours:.3g}" for number in by_step)
        theirs = " / ".join(f"{number.paper:.3g}" for number in by_step)
        what = f"{OTHERS[experiment]}, steps {steps}, {len(found.row.seeds)} seeds"
        cells[experiment] = [what, ours, theirs]
    return report.markdown_table(Table(["maml", "ours", "paper"], list(cells.values()), ""))


OTHERS = {"sinusoid": "sinusoids, 5-shot error", "navigation": "2D navigation, return"}
"""What the numbers are, by experiment. Brax's robots earn other returns than the paper's."""

SETS = {"omniglot": "Omniglot", "miniimagenet": "miniImagenet"}
"""Names of the image sets, by their folder."""


OF_ROWS: dict[str, Callable[[Sequence[paper.Row], Places], list[str]]] = {
    "rows": rows,
    "numbers": numbers,
    "reports": reports,
    "weights": weights,
    "images": images,
    "others": others,
}
"""Of the paper's rows, all of them or one experiment's, by the words in a mark."""

TABLES: dict[str, Callable[[Record], Table]] = {
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


def main() -> None:
    """Rewrite the pages; outside of a checkout there are none."""
    for page in filter(Path.is_file, PAGES):
        files.write_text(page, rendered(page.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
