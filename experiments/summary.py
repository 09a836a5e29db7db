"""Merge the reports of runs: a table for every experiment, and figures, beside the paper's numbers.

python -m experiments.summary runs/*
python -m experiments.summary results/sinusoid/maml-seed*.json --output=summary
python -m experiments.summary runs/maml runs/fomaml --paired
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mamljax.checks import ArgumentError
from mamljax.running import files, plots, report
from mamljax.running.report import Record


def main(words: Sequence[str]) -> None:
    """Print a table for every group of reports; with ``--output``, write them and draw figures."""
    parser = argparse.ArgumentParser(
        prog="mamljax report",
        description="Merge the reports of runs, seed by seed, beside the paper's.",
    )
    parser.add_argument("runs", nargs="+", help="work directories of runs, or report.json files")
    parser.add_argument("--output", type=Path, help="a folder for summary.md and its figures")
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
            found = report.paired(*map(Path, given.runs))
            print("\n".join(report.markdown_table(found)))
            return
        pages = [
            _page(index, records, given.output)
            for index, records in enumerate(report.groups(report.read(given.runs)))
        ]
    except ArgumentError as error:
        parser.error(str(error))
    text = "\n".join(pages)
    print(text)
    if given.output:
        files.write_text(given.output / "summary.md", text)


def _page(index: int, records: Sequence[Record], output: Path | None) -> str:
    """Return the table of one group of reports, and draw its figure if there is a folder for it."""
    first = records[0]
    lines = [f"# {first['experiment']}", "", *report.markdown_table(report.table(records)), ""]
    lines += [f"`{first['command']}`", ""]
    if output:
        name = f"figure{index}.png"
        plots.learning_curves(
            output / name,
            plots.curves(records),
            ylabel=first["results"][0]["metric"],
            title=f"{first['experiment']}, {len(records)} seeds; crosses: the paper",
        )
        lines += [f"![{first['experiment']}]({name})", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
