"""Photos, in whatever form they come, as the numbers that a network was trained on."""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jax.core import Tracer

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.data import cifar100, cub, miniimagenet, omniglot, tieredimagenet
from mamljax.data.files import File, at, in_folder
from mamljax.data.images import SUFFIXES, Pixels, decode, is_image

Photo: TypeAlias = "str | os.PathLike | bytes | np.ndarray"
"""A file, the bytes of one, or an array: uint8 ``[H, W]`` or ``[H, W, ch]`` of any size, or floats
from 0 to 1 of the very shape that the network takes."""

OF_SETS = {
    "omniglot": omniglot.PIXELS,
    "miniimagenet": miniimagenet.PIXELS,
    "tieredimagenet": tieredimagenet.PIXELS,
    "cub": cub.PIXELS,
    "cifar_fs": cifar100.PIXELS,
    "fc100": cifar100.PIXELS,
}


def of_source(
    source: str, shape: Sequence[int], *, resize: bool = False, invert: bool | None = None
) -> Pixels:
    """How photos are read for a network that was trained on a set of `mamljax.data`.

    Args:
      source: the set.
      shape: height, width and channels of its images.
      resize: of ``folder``: whether training took images of any size.
      invert: whether ink is 255 and paper 0; None for what the set has.
    """
    if source in OF_SETS:
        return OF_SETS[source]
    height, width, channels = shape
    ink = source == "glyphs" if invert is None else invert  # drawn in white on black
    fixed = source == "folder" and not resize
    return Pixels((height, width) if fixed else None, (height, width, channels), ink)


def prepare(photo: Photo, pixels: Pixels) -> np.ndarray:
    """One photo as floats ``[H, W, ch]`` from 0 to 1, read as training read its images.

    Raises:
      ArgumentError: for a file that is not there, or an array of anything else than a `Photo` is,
        such as floats from 0 to 255.
      DataError: for a file or an array that is no image, or not of the size that training had.
    """
    if isinstance(photo, np.ndarray) or hasattr(photo, "dtype"):
        array = np.asarray(photo)
        if array.dtype != np.uint8:
            return _floats(array, pixels.shape)
        photo = _as_png(array)
    if isinstance(photo, bytes):
        content = photo
        file = File("photo", "the photo", len(content), lambda: content)
    elif isinstance(photo, (str, os.PathLike)):
        path = Path(photo)
        if not path.is_file():
            raise ArgumentError(f"there is no photo {path}.")
        file = at(path)
    else:
        raise ArgumentError(
            "a photo is a path, the bytes of a file, or an array of uint8 [H, W, channels]; got "
            f"{type(photo).__name__}."
        )
    return decode(file, pixels).astype(np.float32) / 255.0


def check_range(inputs: Any) -> None:
    """Refuse images that are not numbers from 0 to 1; traced ones pass.

    Raises:
      ArgumentError: with what came, and how to mend it.
    """
    if isinstance(inputs, Tracer):
        return
    array = np.asarray(inputs)
    mend = "divide by 255, or let `prepare` read the photo (a file, or an array of uint8)."
    if not np.issubdtype(array.dtype, np.floating):
        raise ArgumentError(f"images must be floats from 0 to 1; got {array.dtype}: {mend}")
    if array.size and not (array.min() >= 0 and array.max() <= 1):
        raise ArgumentError(
            f"images must be numbers from 0 to 1; got {array.min():g} to {array.max():g}: {mend}"
        )


def found(paths: Sequence[str | os.PathLike]) -> list[Path]:
    """The photos that paths name: files themselves, of folders all images below them.

    Raises:
      ArgumentError: naming every path that is not there, and folders without images.
    """
    photos, wrong = [], []
    for path in map(Path, paths):
        if path.is_dir():
            inside = [Path(file.where) for file in in_folder(path) if is_image(file)]
            photos += inside
            if not inside:
                wrong.append(f"no images ({', '.join(s[1:] for s in SUFFIXES)}) in {path}")
        elif path.is_file():
            photos.append(path)
        else:
            wrong.append(f"no file {path}")
    if wrong:
        raise ArgumentError(f"there is {'; there is '.join(wrong)}.")
    return photos


def _floats(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    check_range(array)
    if array.shape != shape:
        raise ArgumentError(
            f"a photo of floats must have the shape {shape} that the network takes; got "
            f"{array.shape}. Arrays of uint8, and files, are brought to it as in training."
        )
    return array.astype(np.float32)


def _as_png(array: np.ndarray) -> bytes:
    checks.require("PIL", "reading images", package="pillow")
    from PIL import Image

    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim != 2 and (array.ndim != 3 or array.shape[2] not in (3, 4)):
        raise ArgumentError(
            f"a photo of uint8 has the shape [H, W] or [H, W, 1, 3 or 4]; got {array.shape}."
        )
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()
