"""A contact sheet: some images of some classes of every split, as they were read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mamljax.data import ImageSet

ROWS, COLUMNS = 12, 8
"""Classes of a split, and images of a class, that are shown at most."""
TILE, GAP, TEXT = 72, 4, 18
"""Pixels: the longer side of an image, what is between two, the height of a line of text."""


def draw(path: Path, splits: Mapping[str, ImageSet]) -> None:
    """Draw a column of classes for each split, a row of images for each class, into a PNG.

    Classes, and images of a class, are taken at equal distances from all that there are.
    """
    from PIL import Image, ImageDraw, ImageFont

    width = COLUMNS * (TILE + GAP) + 2 * GAP
    row_height = TILE + TEXT + GAP
    rows = max(min(len(images.names), ROWS) for images in splits.values())
    sheet = Image.new("RGB", (width * len(splits), 2 * TEXT + rows * row_height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for column, (split, images) in enumerate(splits.items()):
        left, number = column * width + GAP, len(images.names)
        shown = f"{number:,} classes" + (f", {ROWS} of them" if number > ROWS else "")
        pen.text((left, GAP), f"{split}: {shown}", "black", font)
        for row, c in enumerate(_spread(number, ROWS)):
            top = 2 * TEXT + row * row_height
            count = int(images.counts[c])
            pen.text(
                (left, top), _fitting(f"{images.names[c]} ({count})", font, width), "gray", font
            )
            for place, i in enumerate(_spread(count, COLUMNS)):
                tile = _tile(np.asarray(images.images[c, i]))
                sheet.paste(tile, (left + place * (TILE + GAP), top + TEXT))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def _spread(number: int, most: int) -> list[int]:
    """Up to `most` integers below `number`, at equal distances."""
    return [i * number // min(number, most) for i in range(min(number, most))]


def _tile(image: np.ndarray) -> Any:
    from PIL import Image

    height, width, channels = image.shape
    scale = TILE / max(height, width)
    picture = Image.fromarray(image[..., 0] if channels == 1 else image)
    # Enlarged pixel by pixel: small images shall look as small as they are.
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    return picture.resize((max(round(width * scale), 1), max(round(height * scale), 1)), how)


def _fitting(text: str, font: Any, width: int) -> str:
    """The text, or as much of its end as fits."""
    while font.getlength(text) > width - 3 * GAP:
        text = f"...{text[4:]}"
    return text
