"""Prepare an image set, so that training starts at once, and tell and show what is in it.

mamljax data omniglot --dir=data/omniglot
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.few_shot import enough, sheet, words
from mamljax import data
from mamljax.data import ImageSet
from mamljax.data.loading import SOURCES
from mamljax.data.splits import SPLITS


def main(arguments: Sequence[str]) -> None:
    """Prepare every split, print a row for each, and draw a sheet of them."""
    given = _parser().parse_args(arguments)
    found, without = {}, []
    for split in _splits(given):
        try:
            with words.in_flags(words.COMMAND):
                found[split] = _load(given, split)
        except data.NoClasses as error:
            if split != "validation":
                _refuse(error)
            without.append(split)
        except ValueError as error:
            _refuse(error)
    Console().print(_table(given.source, found))
    for split in without:
        print(f"There are no {split} classes: training tests its last checkpoint, not its best.")
    per_class = given.shots + given.queries
    for split, images in found.items():
        for line in enough.lacking(split, images, given.ways, per_class):
            print(f"{line} (--ways, --shots and --queries say what a task is).")
    path = given.sheet or Path("runs", "data", f"{given.source}.png")
    sheet.draw(path, found)
    print(f"Some images of each split: {path}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mamljax data",
        description="Prepare an image set, so that training starts at once; tell and show it.",
    )
    parser.add_argument("source", choices=[*SOURCES, "folder"], help="of the images")
    parser.add_argument("--dir", help="where its files are; glyphs need none")
    parser.add_argument("--cache", help="where prepared sets are kept, ~/.cache/mamljax/data")
    parser.add_argument("--scheme", help="which classes train and test: " + _schemes())
    parser.add_argument("--download", action="store_true", help="fetch Omniglot into --dir")
    own = parser.add_argument_group("your own images (folder)")
    own.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="in pixels")
    own.add_argument("--resize", action="store_true", help="bring images to --size")
    own.add_argument("--grayscale", action="store_true", help="read one channel, not three")
    own.add_argument(
        "--split",
        type=_fractions,
        help="where all classes lie in train/, or right in --dir: the shares of them to train, "
        "validate and test on, such as 0.8,0.1,0.1",
    )
    own.add_argument("--split_seed", type=int, default=0, help="decides which class is where")
    task = parser.add_argument_group("tasks, for which the splits should have enough")
    task.add_argument("--ways", type=int, default=5, help="classes per task, 5")
    task.add_argument("--shots", type=int, default=1, help="support images per class, 1")
    task.add_argument("--queries", type=int, default=1, help="query images per class, 1")
    parser.add_argument("--sheet", type=Path, help="the PNG to draw, runs/data/SOURCE.png")
    return parser


def _fractions(text: str) -> tuple[float, ...]:
    return tuple(float(number) for number in text.split(","))


def _splits(given: argparse.Namespace) -> Sequence[str]:
    if given.source in data.SCHEMES:
        return list(data.split_names(given.source, given.scheme))
    # A share of 0 asks for no classes.
    shares = given.split if given.split and len(given.split) == len(SPLITS) else [1, 1, 1]
    return [split for split, share in zip(SPLITS, shares, strict=True) if share]


def _load(given: argparse.Namespace, split: str) -> ImageSet:
    own: dict[str, Any] = {}
    if given.source == "folder":
        own = {"fractions": given.split, "seed": given.split_seed}
    return data.load(
        given.source,
        split,
        data_dir=given.dir,
        cache_dir=given.cache,
        scheme=given.scheme,
        download=given.download,
        image_size=given.size and tuple(given.size),
        resize=given.resize,
        grayscale=given.grayscale,
        **own,
    )


def _table(title: str, found: dict[str, ImageSet]) -> Table:
    table = Table("split", "classes", "images", "image", "per class", title=title)
    for split, images in found.items():
        counts = np.asarray(images.counts)
        shape = " x ".join(map(str, images.images.shape[2:]))
        each = f"{counts.min()} to {counts.max()}" if np.ptp(counts) else f"{counts[0]}"
        table.add_row(split, f"{len(images.names):,}", f"{counts.sum():,}", shape, each)
    return table


def _refuse(error: Exception) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(2) from error


def _schemes() -> str:
    return "; ".join(f"{source}: {', '.join(names)}" for source, names in data.SCHEMES.items())


if __name__ == "__main__":
    main(sys.argv[1:])
