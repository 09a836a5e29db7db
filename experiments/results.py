"""Bring the tables of RESULTS.md and README.md up to date with what lies in results/.

    python -m experiments.results

What stands between ``<!-- table: FILES -->`` and ``<!-- end -->`` is made anew: the table of the
reports that the pattern matches, below results/, and where they come from. Prose stays. Files of
measurements have tables of their own, ``<!-- table: speed.json races -->``, and so have the rows of
the paper, ``<!-- table: all numbers -->``: see experiments/tables.
"""

import re
from pathlib import Path

from configs import paper
from experiments.reproduction.places import Places
from experiments.tables import measurements, rows, runs
from mamljax import files
from mamljax.checks import ArgumentError

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
        if kind in rows.TABLES:
            places = Places(results=folder, runs=folder / "none")  # of what is published alone
            chosen = [row for row in paper.ROWS if pattern in ("all", row.name.partition("/")[0])]
            lines = rows.TABLES[kind](chosen, places)
            return begin + "\n".join(lines) + "\n" + end
        paths = sorted(folder.glob(pattern))
        if not paths:
            raise ArgumentError(f"{folder} has no report {pattern}.")
        lines = measurements.measured(paths, kind) if kind else runs.reported(paths)
        return begin + "\n".join(lines) + "\n" + end

    return MARKED.sub(replaced, text)


def main() -> None:
    """Rewrite the pages; outside of a checkout there are none."""
    for page in filter(Path.is_file, PAGES):
        files.write_text(page, rendered(page.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
