"""Tables of the paper's rows: how far they are trained, their numbers beside the paper's."""

from collections.abc import Callable, Sequence

from configs import paper
from experiments.reproduction import standing
from experiments.reproduction.places import Places
from experiments.tables import runs
from mamljax.running import report
from mamljax.running.table import Table, markdown_lines


def rows(chosen: Sequence[paper.Row], places: Places) -> list[str]:
    """Return how far every row of the paper is trained."""
    found = standing.trainings(standing.standing(row, places) for row in chosen)
    return markdown_lines(found)


def numbers(chosen: Sequence[paper.Row], places: Places) -> list[str]:
    """Return how every number of the paper stands."""
    found = standing.numbers(standing.standing(row, places) for row in chosen)
    return markdown_lines(found)


def reports(chosen: Sequence[paper.Row], places: Places) -> list[str]:
    """Return the table of every row that has a report, where it comes from, and its figure."""
    lines = []
    for row in chosen:
        paths = [path for seed in row.seeds if (path := places.report(row, seed)).is_file()]
        if not paths:
            continue
        lines += ["", f"### {row.name}", "", *runs.reported(paths)]
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
    return markdown_lines(Table(header, cells, ""))


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
    return markdown_lines(Table(["%, ours / paper", *header], cells, ""))


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
    return markdown_lines(Table(["maml", "ours", "paper"], list(cells.values()), ""))


OTHERS = {"sinusoid": "sinusoids, 5-shot error", "navigation": "2D navigation, return"}
"""What the numbers are, by experiment. Brax's robots earn other returns than the paper's."""

SETS = {"omniglot": "Omniglot", "miniimagenet": "miniImagenet"}
"""Names of the image sets, by their folder."""


TABLES: dict[str, Callable[[Sequence[paper.Row], Places], list[str]]] = {
    "rows": rows,
    "numbers": numbers,
    "reports": reports,
    "weights": weights,
    "images": images,
    "others": others,
}
"""Of the paper's rows, all of them or one experiment's, by the words in a mark."""
