"""Decoding: bytes of an image file to an array."""

import io
from typing import Any, NamedTuple

import numpy as np

from mamljax import checks
from mamljax.data.files import DataError, File

SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp")
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")
MODES = {1: "L", 3: "RGB"}
# Others have more than 8 bits per channel, and Pillow would clip them, or are made for print, where
# colours depend on a profile.
EIGHT_BIT = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "YCbCr"}
WRONG_SIZE = "pixels; expected"
"""What every error on an image's size says."""
MAX_PIXELS = 2**26
"""Pillow warns from 89 million on; a bomb is refused before."""


class Pixels(NamedTuple):
    """The pixels of a set's images, as stored and as used.

    stored: height and width that files must have; None for any.
    shape: height, width and channels of the array; files of another size are resized (Lanczos).
    invert: make ink 255 and paper 0.
    hint: what an error on the size says besides.
    """

    stored: tuple[int, int] | None
    shape: tuple[int, int, int]
    invert: bool = False
    hint: str = ""


def is_image(file: File) -> bool:
    """Return whether the name says that a file is an image."""
    return file.path.lower().endswith(SUFFIXES)


def decode(file: File, pixels: Pixels) -> np.ndarray:
    """The image as uint8 ``[height, width, channels]``, upright, and on white where transparent.

    Raises:
      DataError: if the file is broken, of another size than expected, not 8-bit, not in colours of
        the screen, or has more than one picture.
    """
    # Not before it is needed: Pillow is no requirement of the algorithms.
    checks.require("PIL", "reading images", package="pillow")
    from PIL import Image, ImageOps, UnidentifiedImageError

    height, width, channels = pixels.shape
    try:
        with Image.open(io.BytesIO(file.read()), formats=FORMATS) as image:
            _check(file, image.size, image.mode, getattr(image, "n_frames", 1))
            # To 8 bits before all else: a 1-bit image would be resized without grey.
            image = _on_white(ImageOps.exif_transpose(image)).convert(MODES[channels])
        _check_size(file, image.size, pixels)
    except DataError:
        raise
    except UnidentifiedImageError as error:
        said = f"its content is none of {', '.join(FORMATS)}"  # Pillow would name a buffer
        raise DataError(f"{file.where} is not a readable image ({said}): replace it.") from error
    except Exception as error:  # a broken file can make the decoder raise anything
        raise DataError(f"{file.where} is not a readable image ({error}): replace it.") from error
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    array = np.asarray(image, np.uint8).reshape(pixels.shape)
    return 255 - array if pixels.invert else array


def _on_white(image: Any) -> Any:
    """The image laid on white paper if it is transparent anywhere."""
    from PIL import Image

    if not image.has_transparency_data:
        return image
    seen = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")


def _check_size(file: File, size: tuple[int, int], pixels: Pixels) -> None:
    (width, height), stored = size, pixels.stored
    if stored is not None and (height, width) != stored:
        expected = f"{stored[0]} x {stored[1]}{pixels.hint}"
        raise DataError(f"{file.where} is {height} x {width} {WRONG_SIZE} {expected}.")


def _check(file: File, size: tuple[int, int], mode: str, frames: int) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise DataError(f"{file.where} has {width * height:,} pixels: too many to be an example.")
    if mode not in EIGHT_BIT:
        raise DataError(
            f"{file.where} has mode {mode!r}; expected 8 bits per channel, grey or RGB: convert it."
        )
    if frames > 1:
        raise DataError(f"{file.where} holds {frames} pictures; expected one: split it.")
