"""Prepare an image set, so that training starts at once, and tell what is in it.

mamljax data omniglot --dir=data/omniglot
"""

import argparse
import sys
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from mamljax import data
from mamljax.data.loading import SOURCES
from mamljax.data.splits import SPLITS


def main(words: Sequence[str]) -> None:
    """Prepare every split, and print a row for each."""
    parser = argparse.ArgumentParser(
        prog="mamljax data", description="Prepare an image set, so that training starts at once."
    )
    parser.add_argument("source", choices=[*SOURCES, "folder"], help="of the images")
    parser.add_argument("--dir", help="where its files are; glyphs need none")
    parser.add_argument("--cache", help="where prepared sets are kept, ~/.cache/mamljax/data")
    parser.add_argument("--scheme", help="which classes train and test: " + _schemes())
    parser.add_argument("--download", action="store_true", help="fetch Omniglot into --dir")
    parser.add_argument("--size", type=int, nargs=2, help="height and width, of folder alone")
    parser.add_argument("--resize", action="store_true", help="bring images of folder to --size")
    given = parser.parse_args(words)
    table = Table("split", "classes", "images", "image", "per class", title=given.source)
    schemes = data.SCHEMES.get(given.source)
    splits = data.split_names(given.source, given.scheme) if schemes else SPLITS
    for split in splits:
        try:
            found = data.load(
                given.source,
                split,
                data_dir=given.dir,
                cache_dir=given.cache,
                scheme=given.scheme,
                download=given.download,
                image_size=given.size and tuple(given.size),
                resize=given.resize,
            )
        except ValueError as error:
            parser.error(str(error))
        counts = np.asarray(found.counts)
        shape = " x ".join(map(str, found.images.shape[2:]))
        each = f"{counts.min()} to {counts.max()}" if np.ptp(counts) else f"{counts[0]}"
        table.add_row(split, f"{len(found.names):,}", f"{counts.sum():,}", shape, each)
    Console().print(table)


def _schemes() -> str:
    return "; ".join(f"{source}: {', '.join(names)}" for source, names in data.SCHEMES.items())


if __name__ == "__main__":
    main(sys.argv[1:])
