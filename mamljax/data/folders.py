"""A user's own images: ``SPLIT/CLASS/IMAGE`` in a folder, or classes to be split by a seed."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mamljax.checks import ArgumentError
from mamljax.data.files import DataError, File, in_folder
from mamljax.data.images import SUFFIXES, Pixels, is_image
from mamljax.data.sources import ImageClass, Source, from_files
from mamljax.data.splits import SPLITS, by_hash

KINDS = ", ".join(suffix[1:] for suffix in SUFFIXES)
LAYOUT = f"Put images at SPLIT/CLASS/IMAGE, where SPLIT is one of {', '.join(SPLITS)}"
DIVIDE = "Or give fractions=(0.8, 0.1, 0.1), which splits the classes of train by a seed."


class NoClasses(DataError):
    """A split of a folder has no classes."""


def source(
    data_dir: Path,
    image_size: tuple[int, int],
    *,
    grayscale: bool = False,
    resize: bool = False,
    divided: bool = False,
) -> Source:
    """Classes named ``SPLIT/CLASS``, of as many images as each has.

    Where they are yet to be `divided` into splits, all of them are classes of ``train``, and may
    lie at ``CLASS/IMAGE`` too.
    """
    shape = (*image_size, 1 if grayscale else 3)
    hint = " (resize=True brings all to that size)"
    pixels = Pixels(stored=None if resize else image_size, shape=shape, hint=hint)
    options = f"{data_dir.resolve()} {shape} {resize}" + (" divided" if divided else "")
    key = f"folder-2-{hashlib.sha256(options.encode()).hexdigest()[:16]}"
    return Source(
        f"{data_dir}",
        key,
        shape,
        partial(find, divided=divided),
        lambda files: _classes(files, pixels),
        _unusable,
    )


def find(folder: Path, *, divided: bool = False) -> list[File]:
    """All images, and whatever else lies where images should.

    Raises:
      DataError: if there are no images; if they are to be divided, and are so already.
    """
    files = list(in_folder(folder))
    if divided:
        files = _below_train(folder, files)
    if not any(map(is_image, files)):
        layout = "Put them at CLASS/IMAGE, or train/CLASS/IMAGE." if divided else f"{LAYOUT}."
        raise DataError(f"there are no images ({KINDS}) in {folder}. {layout}")
    among = (len(file.parts) >= 3 and file.parts[0] in SPLITS for file in files)
    return [file for file, counts in zip(files, among, strict=True) if counts or is_image(file)]


def _below_train(folder: Path, files: list[File]) -> list[File]:
    """The files as if all classes lay below ``train``.

    Raises:
      DataError: if some lie below another split.
    """
    used = {file.parts[0] for file in files if is_image(file)} & set(SPLITS)
    if others := sorted(used - {"train"}):
        raise DataError(
            f"fractions divide the classes of {folder}/train, but there are classes in "
            f"{' and '.join(others)} too: leave fractions out, or move all classes to train."
        )
    if used:
        return files
    return [file._replace(path=f"train/{file.path}") for file in files]


def _unusable(files: Sequence[File]) -> list[str]:
    """A line for each image that is in no class, and for each file that is no image."""
    return [
        f"{file.where} is in the folder of no class. {LAYOUT}."
        if is_image(file)
        else f"{file.where} is not read, since it is none of {KINDS}: convert it, or move it away."
        for file in files
        if not _is_in_class(file)
    ]


def _is_in_class(file: File) -> bool:
    return is_image(file) and len(file.parts) == 3 and file.parts[0] in SPLITS


def _classes(files: list[File], pixels: Pixels) -> list[ImageClass]:
    found = defaultdict(list)
    for file in filter(_is_in_class, files):
        found["/".join(file.parts[:2])].append(file)
    return from_files(found, pixels)


def of_split(names: Sequence[str], split: str) -> list[str]:
    """The classes of a split, which must have some."""
    chosen = [name for name in names if name.startswith(f"{split}/")]
    if not chosen:
        there = sorted({name.split("/")[0] for name in names})
        hint = f" {DIVIDE}" if there == ["train"] else ""
        raise NoClasses(f"there is no folder {split!r}, only {', '.join(there)}. {LAYOUT}.{hint}")
    return chosen


def divided(
    names: Sequence[str], split: str, fractions: tuple[float, float, float], seed: int
) -> list[str]:
    """The classes of a split, where a seed decides which split each class belongs to.

    The same names, fractions and seed give the same splits on every machine.

    Args:
      names: of all classes.
      split: one of `SPLITS`.
      fractions: of the classes, for each of `SPLITS`; rounded.
      seed: any integer.

    Raises:
      NoClasses: if none is left for it.
    """
    order = sorted(names, key=lambda name: by_hash(f"{seed} {name}"))
    held_back = [round(sum(fractions[place:]) * len(names)) for place in range(1, len(SPLITS))]
    ends = [0, *(len(names) - number for number in held_back), len(names)]
    place = SPLITS.index(split)
    chosen = order[ends[place] : ends[place + 1]]
    if not chosen:
        raise NoClasses(
            f"fractions={fractions} of {len(names)} classes leave none for {split}: give it a "
            "larger share, or more classes."
        )
    return sorted(chosen)


def check_fractions(fractions: Sequence[float]) -> tuple[float, float, float]:
    """The shares of train, validation and test, as they were given.

    Raises:
      ArgumentError: unless they are three numbers of at least 0 whose sum is 1.
    """
    given = tuple(fractions) if isinstance(fractions, (tuple, list)) else ()
    numbers = all(isinstance(x, (int, float)) and x >= 0 for x in given)
    if len(given) != len(SPLITS) or not numbers or abs(sum(given) - 1) > 1e-6:
        raise ArgumentError(
            "fractions must be the shares of train, validation and test, three numbers of at least "
            f"0 whose sum is 1, such as fractions=(0.8, 0.1, 0.1); got {fractions!r}."
        )
    train, validation, test = map(float, given)
    return train, validation, test
