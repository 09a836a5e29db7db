"""Image sets before they are prepared: where their files are, and which classes they make.

A `Source` looks in two steps. `find` lists the files without reading them, so that it can run on
every load; `classes` checks that all is there. Only `ImageClass.read` decodes images.
"""

from collections.abc import Callable, Collection, Mapping, Sequence, Sized
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mamljax.data.files import DataError, File
from mamljax.data.images import Pixels, decode


class ImageClass(NamedTuple):
    """One class: its name, how many images it has, and what reads them, uint8 ``[size, ...]``."""

    name: str
    size: int
    read: Callable[[], np.ndarray]


class Source(NamedTuple):
    """A set of images.

    title: its name in messages.
    key: the folder of its prepared form; to be changed with whatever changes the arrays.
    shape: height, width and channels.
    find: data folder -> the set's files; None if the set is made rather than found.
    classes: those files -> all classes.
    unusable: what is wrong with files by their names alone, one line each; it is told together with
      what cannot be read.
    """

    title: str
    key: str
    shape: tuple[int, int, int]
    find: Callable[[Path], list[File]] | None
    classes: Callable[[list[File]], list[ImageClass]]
    unusable: Callable[[list[File]], list[str]] = lambda files: []


def from_files(by_class: Mapping[str, list[File]], pixels: Pixels) -> list[ImageClass]:
    """Classes whose images are files, in the order of their names."""
    return [
        ImageClass(name, len(files), partial(_decode_all, files, pixels))
        for name, files in sorted(by_class.items())
    ]


def check_complete(
    title: str, found: Mapping[str, Sized], names: Collection[str], count: int
) -> None:
    """Refuse a set that lacks a class, or has one without exactly `count` images."""
    again = "unpack or fetch the whole set again."
    missing = sorted(set(names) - set(found))
    if missing:
        raise DataError(
            f"{title} is incomplete: {len(missing)} of {len(names)} classes are missing, "
            f"such as {missing[0]!r}; {again}"
        )
    for name in names:
        if len(found[name]) != count:
            raise DataError(
                f"{title} class {name!r} has {len(found[name])} images; expected {count}: {again}"
            )


def _decode_all(files: Sequence[File], pixels: Pixels) -> np.ndarray:
    decoded, problems = [], []
    for file in files:
        try:
            decoded.append(decode(file, pixels))
        except DataError as problem:
            problems.append(str(problem))
    if problems:
        raise DataError("\n".join(problems))
    return np.stack(decoded)
