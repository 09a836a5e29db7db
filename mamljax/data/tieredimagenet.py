"""tieredImageNet (Ren et al. 2018): 608 classes of ImageNet, split by category."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from mamljax.data.files import DataError, File, in_folder
from mamljax.data.images import Pixels, is_image
from mamljax.data.sources import ImageClass, Source, from_files
from mamljax.data.splits import split_names

PIXELS = Pixels(stored=(84, 84), shape=(84, 84, 3))
IMAGES = {"train": 448_695, "validation": 124_261, "test": 206_209}
"""Images of each split."""
HELP = (
    "Put the 84 x 84 images of tieredImageNet there, each in a folder named after its class, such "
    "as train/n01530575/*.jpg, or with a name that begins with it, such as n01530575_12.jpg."
)


def source(
    classes_of: Mapping[str, Sequence[str]] | None = None, images: Mapping[str, int] = IMAGES
) -> Source:
    """608 classes of 732 to 1,300 images, 84 x 84 in colour.

    The folders above those of the classes do not matter.
    """
    expected = split_names("tieredimagenet") if classes_of is None else classes_of
    split_of = {name: split for split, names in expected.items() for name in names}

    def classes(files: list[File]) -> list[ImageClass]:
        found = defaultdict(list)
        for file in files:
            found[class_of(file)].append(file)
        number = Counter[str]()
        for name, split in split_of.items():
            if name not in found:
                raise DataError(f"tieredImageNet lacks class {name!r} of {split}. {HELP}")
            number[split] += len(found[name])
        for split, count in images.items():
            if number[split] != count:
                raise DataError(
                    f"tieredImageNet has {number[split]:,} images of {split} classes; expected "
                    f"{count:,}: unpack or fetch the whole set again."
                )
        return from_files({name: found[name] for name in split_of}, PIXELS)

    return Source("tieredImageNet", "tieredimagenet-1", PIXELS.shape, find, classes)


def class_of(file: File) -> str:
    """The class that a file's folder is named after, or that its own name begins with."""
    parent = file.parts[-2] if len(file.parts) > 1 else ""
    return parent if _is_class(parent) else file.name.split("_")[0]


def _is_class(name: str) -> bool:
    return len(name) == 9 and name[0] == "n" and name[1:].isdigit()


def find(folder: Path) -> list[File]:
    """All images of any class of ImageNet, wherever they are below the folder.

    Raises:
      DataError: if there are none.
    """
    found = [file for file in in_folder(folder) if is_image(file) and _is_class(class_of(file))]
    if not found:
        raise DataError(f"tieredImageNet is not in {folder}. {HELP}")
    return found
