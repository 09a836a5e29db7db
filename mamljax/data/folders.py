"""A user's own images: ``SPLIT/CLASS/IMAGE`` in a folder."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from mamljax.data.files import DataError, File, in_folder
from mamljax.data.images import SUFFIXES, Pixels, is_image
from mamljax.data.sources import ImageClass, Source, from_files
from mamljax.data.splits import SPLITS

LAYOUT = f"Put images at SPLIT/CLASS/IMAGE, where SPLIT is one of {', '.join(SPLITS)}."


def source(
    data_dir: Path, image_size: tuple[int, int], *, grayscale: bool = False, resize: bool = False
) -> Source:
    """Classes named ``SPLIT/CLASS``, of as many images as each has."""
    shape = (*image_size, 1 if grayscale else 3)
    pixels = Pixels(stored=None if resize else image_size, shape=shape)
    options = f"{data_dir.resolve()} {shape} {resize}"
    key = f"folder-2-{hashlib.sha256(options.encode()).hexdigest()[:16]}"
    return Source(f"{data_dir}", key, shape, find, lambda files: _classes(files, pixels))


def find(folder: Path) -> list[File]:
    """All images, each in the folder of its class.

    Raises:
      DataError: if there are none; naming images that lie anywhere else, and other files that lie
        among the images.
    """
    files = list(in_folder(folder))
    found = [file for file in files if is_image(file)]
    lost = [file for file in found if len(file.parts) != 3 or file.parts[0] not in SPLITS]
    if lost:
        raise DataError(
            f"images are not where they should be in {folder}: {_listed(lost)}. {LAYOUT}"
        )
    kinds = ", ".join(suffix[1:] for suffix in SUFFIXES)
    if not found:
        raise DataError(f"there are no images ({kinds}) in {folder}. {LAYOUT}")
    others = [
        file
        for file in files
        if len(file.parts) >= 3 and file.parts[0] in SPLITS and not is_image(file)
    ]
    if others:
        raise DataError(
            f"among the images are files that are not read, since they are no {kinds}: "
            f"{_listed(others)}. Convert them, or move them away."
        )
    return found


def _listed(files: Sequence[File]) -> str:
    """Say where up to ten files are, and how many there are besides."""
    more = f" and {len(files) - 10} more" if len(files) > 10 else ""
    return f"{', '.join(file.where for file in files[:10])}{more}"


def of_split(names: Sequence[str], split: str) -> list[str]:
    """The classes of a split, which must have some."""
    chosen = [name for name in names if name.startswith(f"{split}/")]
    if not chosen:
        there = ", ".join(sorted({name.split("/")[0] for name in names}))
        raise DataError(f"there is no folder {split!r}, only {there}. {LAYOUT}")
    return chosen


def _classes(files: list[File], pixels: Pixels) -> list[ImageClass]:
    found = defaultdict(list)
    for file in files:
        found["/".join(file.parts[:2])].append(file)
    return from_files(found, pixels)
