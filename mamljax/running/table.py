"""Tables of words: on the terminal, and in Markdown."""

from typing import NamedTuple

import rich.box
import rich.table
from rich.console import Console
from rich.text import Text

LONG_WORD = 13
"""Characters of a word that no table breaks; there may be many columns in a narrow terminal."""


class Table(NamedTuple):
    """Words to be printed: a header, rows of as many cells, and what to know of them.

    labels: how many of the first columns are words; the others are numbers.
    """

    header: list[str]
    cells: list[list[str]]
    note: str
    labels: int = 2


def markdown_lines(found: Table) -> list[str]:
    """Return the lines of a Markdown table, and its note."""
    lines = [f"| {' | '.join(cells)} |" for cells in (found.header, *found.cells)]
    lines.insert(1, "|" + "---|" * len(found.header))
    return [*lines, "", found.note] if found.note else lines


def print_table(found: Table, title: str) -> None:
    """Print a table, within the width of the terminal, if there is one, or 80 columns."""
    screen = Console()
    printed = rich.table.Table(
        title=title, caption=Text(found.note), box=rich.box.SIMPLE_HEAD, padding=0, pad_edge=False
    )
    for index, (name, width) in enumerate(zip(found.header, _widths(found, screen), strict=True)):
        justify = "left" if index < found.labels else "right"
        printed.add_column(name, justify=justify, overflow="fold", width=width)
    for line in found.cells:
        printed.add_row(*map(Text, line))
    screen.print(printed)


def _widths(found: Table, screen: Console) -> list[int]:
    """Columns as wide as their cells, or narrower, the fullest first, down to a word's length."""
    columns = [[name, *column] for name, *column in zip(found.header, *found.cells, strict=True)]
    wanted = [max(map(len, column)) for column in columns]
    words = [max(map(len, " ".join(column).split() or [""])) for column in columns]
    least = [min(word, LONG_WORD) for word in words]
    room = screen.width - len(columns) - 1
    if sum(least) > room:  # then numbers give way first
        least = [low if at < found.labels else 1 for at, low in enumerate(least)]
    if sum(least) > room:
        least = [1] * len(columns)
    widths = list(wanted)
    while sum(widths) > room and widths != least:
        spare = [width - low for width, low in zip(widths, least, strict=True)]
        widths[spare.index(max(spare))] -= 1
    return widths
