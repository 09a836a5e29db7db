"""miniImagenet (Vinyals et al. 2016) as Ravi and Larochelle 2017 list it."""

import csv
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from mamljax.data.files import DataError, File, in_folder, in_zip
from mamljax.data.images import Pixels, is_image
from mamljax.data.sources import ImageClass, Source, check_complete, from_files
from mamljax.data.splits import split_names

CSV = {"train": "train.csv", "validation": "val.csv", "test": "test.csv"}
PIXELS = Pixels(stored=(84, 84), shape=(84, 84, 3))
HELP = (
    "Put the 84 x 84 images of miniImagenet there, in folders of any layout or in a zip file, with "
    "Ravi and Larochelle's train.csv, val.csv and test.csv (columns filename and label)."
)


def source(classes_of: Mapping[str, Sequence[str]] | None = None, images: int = 600) -> Source:
    """100 classes of 600 images, 84 x 84 in colour.

    Which images a class has is looked up in the csv files by file name, so the folders that the
    images lie in do not matter.
    """
    expected = split_names("miniimagenet") if classes_of is None else classes_of

    def classes(files: list[File]) -> list[ImageClass]:
        by_name = {file.name: file for file in files}
        found = defaultdict(list)
        for split, name in CSV.items():
            for filename, label in _rows(by_name[name], expected[split]):
                found[label].append(_image(by_name, filename, by_name[name]))
        names = [name for split in CSV for name in expected[split]]
        check_complete("miniImagenet", found, names, images)
        return from_files(found, PIXELS)

    return Source("miniImagenet", "miniimagenet-1", PIXELS.shape, find, classes)


def find(folder: Path) -> list[File]:
    """All images and the three csv files, wherever they are below the folder or in its zip files.

    Raises:
      DataError: if a csv file or all images are missing, or a file name is there twice.
    """
    files = list(in_folder(folder))
    # Who unpacks an archive may keep it.
    if not any(map(is_image, files)):
        zipped = [in_zip(path) for path in sorted(folder.glob("*.zip"))]
        files += [file for archive in zipped for file in archive]
    wanted = [file for file in files if is_image(file) or file.name in CSV.values()]
    times = Counter(file.name for file in wanted)
    missing = [name for name in CSV.values() if name not in times]
    if missing or not any(map(is_image, wanted)):
        lacking = " and ".join(missing) or "any image"
        raise DataError(f"miniImagenet is not in {folder}, which lacks {lacking}. {HELP}")
    twice = [file.where for file in wanted if times[file.name] > 1]
    if twice:
        raise DataError(
            f"{twice[0]} is there twice: remove one, since names must tell files apart."
        )
    return wanted


def _rows(file: File, expected: Sequence[str]) -> list[tuple[str, str]]:
    """The (file name, label) of each row."""
    try:
        rows = list(csv.DictReader(file.read().decode("utf-8-sig").splitlines()))
        pairs = [(PurePosixPath(row["filename"]).name, str(row["label"])) for row in rows]
    except (KeyError, TypeError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{file.where} is not a csv file with columns filename and label ({error!r}). {HELP}"
        ) from error
    strange = sorted({label for _, label in pairs} - set(expected))
    if strange:
        raise DataError(
            f"{file.where} lists class {strange[0]!r}, which Ravi and Larochelle do not have in "
            f"this split. {HELP}"
        )
    return pairs


def _image(by_name: Mapping[str, File], filename: str, listed: File) -> File:
    if filename not in by_name:
        raise DataError(
            f"{listed.where} names {filename!r}, which is not among the "
            f"{len(by_name) - len(CSV):,} images found. {HELP}"
        )
    return by_name[filename]
