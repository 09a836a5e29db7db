"""Omniglot (Lake, Salakhutdinov, Tenenbaum 2015): handwritten characters of 50 alphabets."""

import hashlib
import http.client
import urllib.request
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import BinaryIO

from mamljax.data.files import DataError, File, in_folder, in_zip
from mamljax.data.images import Pixels, is_image
from mamljax.data.sources import ImageClass, Source, check_complete, from_files
from mamljax.data.splits import OMNIGLOT
from mamljax.files import staged

URL = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python"
MD5 = {
    "images_background.zip": "68d2efa1b9178cc56df9314c21c6e718",
    "images_evaluation.zip": "6b91aef0f799c5bb55b94e3f2daec811",
}
MAX_BYTES = 2**26
TIMEOUT_SECONDS = 30.0
# Ink is 1 and paper 0 in the end, as in the paper, but the files have them the other way round.
PIXELS = Pixels(stored=(105, 105), shape=(28, 28, 1), invert=True)


def source(names: Collection[str] = OMNIGLOT, drawers: int = 20) -> Source:
    """The characters, each drawn by 20 people, 105 x 105 made 28 x 28, ink 255 on 0."""

    def classes(files: list[File]) -> list[ImageClass]:
        found = defaultdict(list)
        for file in files:
            found["/".join(file.parts[-3:-1])].append(file)
        check_complete("Omniglot", found, names, drawers)
        return from_files({name: found[name] for name in names}, PIXELS)

    return Source("Omniglot", "omniglot-1", PIXELS.shape, find, classes)


def find(folder: Path) -> list[File]:
    """The drawings in ``images_background`` and ``images_evaluation``, zipped or not."""
    found = []
    for archive in MD5:
        unzipped = folder / archive.removesuffix(".zip")
        if unzipped.is_dir():
            found.extend(in_folder(unzipped))
        elif (folder / archive).is_file():
            found.extend(in_zip(folder / archive))
        else:
            raise DataError(
                f"Omniglot is not in {folder}, where neither {archive} nor the folder "
                f"{unzipped.name} is. Put {' and '.join(MD5)} from {URL} there, or load with "
                f"download=True."
            )
    return [file for file in found if is_image(file)]


def download(folder: Path, url: str = URL, md5: Mapping[str, str] = MD5) -> None:
    """Fetch whatever of Omniglot is not yet in a folder.

    Raises:
      DataError: if that fails, or if what comes is not what was published.
    """
    for archive, expected in md5.items():
        if (folder / archive).is_file() or (folder / archive.removesuffix(".zip")).is_dir():
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _fetch(f"{url}/{archive}", folder / archive, expected)
        except (OSError, http.client.HTTPException) as error:
            raise DataError(
                f"{url}/{archive} could not be fetched into {folder} ({error}): try again, or put "
                f"{archive} there yourself."
            ) from error


def _fetch(url: str, target: Path, expected: str) -> None:
    """Write what is at `url` to `target` if its MD5 is the expected one."""
    with (
        staged(target) as staging,
        urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response,
        staging.open("wb") as file,
    ):
        found = _copy(response, file)
        if found != expected:
            raise DataError(
                f"{url} is not the file that was published (MD5 {found}; expected {expected}): "
                f"try again, or put {target.name} into {target.parent} yourself."
            )


def _copy(response: BinaryIO, file: BinaryIO) -> str:
    """Copy a download, as far as any honest one would go, and return its MD5."""
    digest, left = hashlib.md5(usedforsecurity=False), MAX_BYTES
    while left > 0 and (chunk := response.read(min(left, 2**16))):
        file.write(chunk)
        digest.update(chunk)
        left -= len(chunk)
    return digest.hexdigest()
