"""Caltech-UCSD Birds-200-2011 (Wah et al. 2011)."""

from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

from mamljax.data.files import DataError, File, in_folder
from mamljax.data.images import Pixels, is_image
from mamljax.data.sources import ImageClass, Source, from_files
from mamljax.data.splits import CUB

PIXELS = Pixels(stored=None, shape=(84, 84, 3))
IMAGES = 11_788
FOLDERS = ("CUB_200_2011/images", "images", ".")
HELP = (
    "Unpack CUB_200_2011.tgz there, from https://data.caltech.edu/records/65de6-vp158, so that "
    "the images are at CUB_200_2011/images/001.Black_footed_Albatross/*.jpg."
)


def source(names: Collection[str] = CUB, images: int = IMAGES) -> Source:
    """200 species of 41 to 60 photos, squeezed to 84 x 84 in colour, without bounding boxes.

    A class is called by the number that its folder's name begins with, ``"001"`` to ``"200"``.
    """

    def classes(files: list[File]) -> list[ImageClass]:
        found = defaultdict(list)
        for file in files:
            found[file.parts[0].split(".")[0]].append(file)
        if missing := sorted(set(names) - set(found)):
            raise DataError(f"CUB lacks {len(missing)} classes, such as {missing[0]!r}. {HELP}")
        number = sum(len(found[name]) for name in names)
        if number != images:
            raise DataError(f"CUB has {number:,} images; expected {images:,}. {HELP}")
        return from_files({name: found[name] for name in names}, PIXELS)

    return Source("CUB", "cub-1", PIXELS.shape, find, classes)


def find(folder: Path) -> list[File]:
    """The images in ``NUMBER.SPECIES/IMAGE``, where the archive or its folder ``images`` lies.

    Raises:
      DataError: if there are none.
    """
    for below in FOLDERS:
        found = [
            file
            for file in in_folder(folder / below)
            if is_image(file) and len(file.parts) == 2 and file.parts[0][:3].isdigit()
        ]
        if found:
            return found
    raise DataError(f"CUB is not in {folder}. {HELP}")
