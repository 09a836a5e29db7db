"""CIFAR-100 (Krizhevsky 2009), as image folders or in its layout for Python."""

import io
import pickle
from collections import defaultdict
from collections.abc import Collection
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np

from mamljax.data.files import DataError, File, at, in_folder, in_tar
from mamljax.data.images import Pixels, is_image
from mamljax.data.sources import ImageClass, Source, check_complete, from_files
from mamljax.data.splits import CIFAR100

BATCHES = ("train", "test")
PYTHON = "cifar-100-python"
ARCHIVE = f"{PYTHON}.tar.gz"
PIXELS = Pixels(stored=(32, 32), shape=(32, 32, 3))
# What a pickled array calls to come back to life: an array's own account of it.
REBUILD: Any = np.zeros(0).__reduce__()[0]


def source(names: Collection[str] = CIFAR100, images: int = 600) -> Source:
    """100 classes of 600 images, 32 x 32 in colour: training and test images together."""

    def classes(files: list[File]) -> list[ImageClass]:
        if {file.name for file in files} <= {ARCHIVE, "meta", *BATCHES}:
            pixels, rows = _from_pickles(files)
            check_complete("CIFAR-100", rows, names, images)
            return [ImageClass(name, images, partial(pixels.take, rows[name], 0)) for name in names]
        found = defaultdict(list)
        for file in files:
            found[file.parts[-2]].append(file)
        check_complete("CIFAR-100", found, names, images)
        return from_files({name: found[name] for name in names}, PIXELS)

    return Source("CIFAR-100", "cifar100-1", PIXELS.shape, find, classes)


def find(folder: Path) -> list[File]:
    """Images in ``train/CLASS`` and ``test/CLASS``, or the files of the layout for Python."""
    if all((folder / batch).is_dir() for batch in BATCHES):
        return [
            file
            for file in in_folder(folder)
            if is_image(file) and len(file.parts) == 3 and file.parts[0] in BATCHES
        ]
    for place in (folder / PYTHON, folder):
        if (place / "meta").is_file():
            return [file for file in in_folder(place) if file.path in ("meta", *BATCHES)]
    if (folder / ARCHIVE).is_file():
        return [at(folder / ARCHIVE)]
    raise DataError(
        f"CIFAR-100 is not in {folder}. Put {ARCHIVE} there, from "
        f"https://www.cs.toronto.edu/~kriz/cifar.html, or the images in folders train/CLASS and "
        f"test/CLASS."
    )


def _from_pickles(files: list[File]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """All images ``[N, 32, 32, 3]``, and the rows of each class."""
    if [file.name for file in files] == [ARCHIVE]:
        where = files[0].where
        pickles = {PurePosixPath(path).name: data for path, data in in_tar(files[0])}
    else:
        where = PYTHON
        pickles = {file.name: file.read() for file in files}
    try:
        meta, *batches = (unpickle(pickles[name]) for name in ("meta", *BATCHES))
        names = [name.decode() for name in meta[b"fine_label_names"]]
        labels = np.concatenate([np.asarray(batch[b"fine_labels"]) for batch in batches])
        flat = np.concatenate([batch[b"data"] for batch in batches])
        channels_first = flat.astype(np.uint8, casting="no").reshape(
            len(labels), *PIXELS.shape[::-1]
        )
        rows = {name: np.flatnonzero(labels == i) for i, name in enumerate(names)}
    except Exception as error:  # an untrusted pickle can hold anything
        raise DataError(
            f"{where} does not hold CIFAR-100 in its layout for Python ({error!r}): fetch it again."
        ) from error
    return np.moveaxis(channels_first, 1, -1), rows


def unpickle(data: bytes) -> Any:
    """Load a pickle that holds nothing but arrays, numbers, strings and built-in containers."""
    return _Unpickler(io.BytesIO(data), encoding="bytes").load()


class _Unpickler(pickle.Unpickler):
    # All that an array is made of, under the names that any numpy gives it; whoever else asks for a
    # global would have us run their code.
    allowed: ClassVar = {
        (module, name): found
        for name, found in [
            ("ndarray", np.ndarray),
            ("dtype", np.dtype),
            ("_reconstruct", REBUILD),
        ]
        for module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in it")
        return self.allowed[module, name]
