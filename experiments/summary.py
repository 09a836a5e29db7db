"""Tables of runs: seeds merged, what else differs as columns, beside the paper's numbers.

mamljax report runs/*
mamljax report results/sinusoid/maml-seed*.json --output=summary
mamljax report runs/* --csv > runs.csv
mamljax report runs/maml runs/fomaml --paired
"""

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mamljax import files
from mamljax.checks import ArgumentError
from mamljax.running import plots, report
from mamljax.running.paired import paired
from mamljax.running.report import Record
from mamljax.running.table import Table, markdown_lines, print_table


def main(words: Sequence[str]) -> None:
    """Print a table for every experiment; with ``--output``, write them and draw figures."""
    parser = argparse.ArgumentParser(
        prog="mamljax report",
        description="Make one table of the runs of an experiment, beside the paper's: seeds are "
        "merged, and what else differs between the configs of the runs becomes columns.",
    )
    parser.add_argument("runs", nargs="+", help="work directories of runs, or report.json files")
    parser.add_argument("--output", type=Path, help="a folder for summary.md and its figures")
    parser.add_argument(
        "--csv",
        action="store_true",
        help="print a line for every run, method, setting and inner step, for programs",
    )
    parser.add_argument(
        "--paired",
        action="store_true",
        help="print the difference of two runs, task by task, with its interval",
    )
    given = parser.parse_args(words)
    try:
        if given.paired:
            if len(given.runs) != 2:
                raise ArgumentError(f"--paired compares two runs; got {len(given.runs)}.")
            print_table(paired(*map(Path, given.runs)), title="Paired")
            return
        runs = dict(zip(given.runs, report.read(given.runs), strict=True))
        tables = {name: report.table(same) for name, same in by_experiment(runs).items()}
    except ArgumentError as error:
        parser.error(str(error))
    if given.csv:
        lines = report.lines(runs)
        names = dict.fromkeys(name for line in lines for name in line)
        writer = csv.DictWriter(sys.stdout, list(names), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    else:
        for name, table in tables.items():
            print_table(table, title=name)
    if given.output:
        pages = [
            _page(name, table, by_experiment(runs)[name], given.output)
            for name, table in tables.items()
        ]
        files.write_text(given.output / "summary.md", "\n".join(pages))


def by_experiment(runs: Mapping[str, Record]) -> dict[str, list[Record]]:
    """Return the reports of each experiment."""
    found: dict[str, list[Record]] = {}
    for record in runs.values():
        found.setdefault(record["experiment"], []).append(record)
    return found


def _page(name: str, table: Table, records: Sequence[Record], output: Path) -> str:
    """Return the table of an experiment, and a figure for every config, which is drawn."""
    lines = [f"# {name}", "", *markdown_lines(table), ""]
    pools = report.groups(records)
    differing = report.differences([pool[0] for pool in pools])
    for index, pool in enumerate(pools):
        title = ", ".join(f"{key} {values[index]}" for key, values in differing.items()) or name
        figure = f"{name.replace(' ', '_').replace(':', '')}_{index}.png"
        plots.learning_curves(
            output / figure,
            plots.curves(pool),
            ylabel=pool[0]["results"][0]["metric"],
            title=f"{title}, {len(pool)} seed{'s' if len(pool) > 1 else ''}; crosses: the paper",
        )
        lines += [f"`{pool[0]['command']}`", "", f"![{title}]({figure})", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
