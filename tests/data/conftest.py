"""Small image files to make sets of."""

import io

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def image_bytes():
    """An image file; its grey or red level tells it from others."""

    def encode(size=(8, 8), level=0, mode="RGB", kind="PNG"):
        height, width = size
        pixels = np.full((height, width), level, np.uint8)
        if mode == "RGB":
            pixels = np.stack([pixels, pixels // 2, 255 - pixels], axis=-1)
        image = Image.fromarray(pixels)
        file = io.BytesIO()
        (image.convert(mode) if mode in ("1", "LA", "P") else image).save(file, kind)
        return file.getvalue()

    return encode


@pytest.fixture
def write():
    """Write bytes to a path whose folders need not be there yet."""

    def put(path, data=b""):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    return put
