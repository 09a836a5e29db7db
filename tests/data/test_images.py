"""Decoding single images, honest ones and others."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mamljax.data import images
from mamljax.data.files import DataError, File
from mamljax.data.images import Pixels, decode, is_image


def file_of(data, name="a/1.png"):
    return File(name, f"/set/{name}", len(data), lambda: data)


def saved(image, kind="PNG"):
    file = io.BytesIO()
    image.save(file, kind)
    return file_of(file.getvalue())


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_names_tell_images():
    names = ["a/1.png", "1.JPG", "b.c/1.jpeg", "png", "1.png.txt", "train.csv"]
    assert [is_image(file_of(b"", name)) for name in names] == [True] * 3 + [False] * 3


@pytest.mark.parametrize(
    ("mode", "channels"), [("L", 1), ("LA", 1), ("P", 1), ("RGB", 3), ("L", 3)]
)
def test_shape_and_levels(image_bytes, mode, channels):
    found = decode(file_of(image_bytes((5, 7), 200, mode)), Pixels((5, 7), (5, 7, channels)))
    assert (found.shape, found.dtype) == ((5, 7, channels), np.uint8)
    expected = [200, 100, 55] if mode == "RGB" else [200] * channels
    np.testing.assert_array_equal(found, np.broadcast_to(np.uint8(expected), found.shape))


def test_one_bit_images_become_grey_before_they_shrink():
    ink = np.zeros((105, 105), bool)
    ink[:, 50:53] = True  # narrower than one pixel of the result
    found = decode(saved(Image.fromarray(~ink)), Pixels((105, 105), (28, 28, 1), invert=True))
    assert found[:, :10].max() == 0
    assert 0 < found[14, 13, 0] < 255
    # The amount of ink stays, which takes shades of grey.
    assert abs(found.mean() / 255 - ink.mean()) < 0.005


def test_jpeg_too(image_bytes):
    found = decode(file_of(image_bytes((84, 84), 120, kind="JPEG")), Pixels((84, 84), (84, 84, 3)))
    assert np.abs(found.astype(int) - [120, 60, 135]).max() <= 3


def test_resizing_is_on_request(image_bytes):
    file = file_of(image_bytes((10, 6), 77, "L"))
    assert decode(file, Pixels(None, (4, 8, 1))).tolist() == np.full((4, 8, 1), 77).tolist()
    with pytest.raises(DataError, match=r"/set/a/1\.png is 10 x 6 pixels; expected 4 x 8"):
        decode(file, Pixels((4, 8), (4, 8, 1)))


@pytest.mark.parametrize(
    "break_it",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:-30],
        lambda data: b"",
        lambda data: b"no image",
        lambda data: b"GIF89a" + data,
        lambda data: data[:20] + bytes(10) + data[30:],
    ],
)
def test_broken_images_are_named(image_bytes, break_it):
    data = break_it(image_bytes((50, 50), 3))
    with pytest.raises(DataError, match=r"/set/a/1\.png is not a readable image .*: replace it"):
        decode(file_of(data), Pixels(None, (50, 50, 3)))


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "WEBP", "PNG", "GIF"])
def test_other_formats(kind):
    levels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5  # few enough for GIF's palette
    file = io.BytesIO()
    Image.fromarray(levels).save(file, kind, **{"lossless": True} if kind == "WEBP" else {})
    found = decode(file_of(file.getvalue()), Pixels((4, 4), (4, 4, 3)))
    np.testing.assert_array_equal(found, levels)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize("channels", [1, 3])
def test_transparency_is_laid_on_white(mode, channels):
    pixels = np.zeros((2, 2, 4), np.uint8)  # black all over, seen in the left column alone
    pixels[:, 0, 3] = 255
    image = Image.fromarray(pixels)
    if mode == "P":
        image = Image.fromarray(np.array([[0, 1]] * 2, np.uint8), "P")
        image.putpalette([0, 0, 0, 0, 0, 0])
        image.info["transparency"] = 1
    found = decode(saved(image if mode == "P" else image.convert(mode)), Pixels(None, (2, 2, 1)))
    np.testing.assert_array_equal(found[..., 0], [[0, 255]] * 2)
    half = Image.new("RGBA", (1, 1), (0, 0, 0, 128))
    assert decode(saved(half), Pixels(None, (1, 1, channels))).tolist() == [[[127] * channels]]


def test_cameras_may_lie_on_their_side():
    levels = np.zeros((4, 6), np.uint8)
    levels[0] = 250  # the top edge, which the camera stored as its right one
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(np.rot90(levels)).save(file, "PNG", exif=exif)
    found = decode(file_of(file.getvalue()), Pixels((4, 6), (4, 6, 1)))
    np.testing.assert_array_equal(found[..., 0], levels)


def test_several_pictures_and_colours_for_print_are_refused():
    first, second = Image.new("RGB", (4, 4)), Image.new("RGB", (4, 4), "red")
    file = io.BytesIO()
    first.save(file, "TIFF", save_all=True, append_images=[second])
    with pytest.raises(DataError, match="holds 2 pictures; expected one"):
        decode(file_of(file.getvalue()), Pixels(None, (4, 4, 3)))
    film = io.BytesIO()
    first.save(film, "GIF", save_all=True, append_images=[second])
    with pytest.raises(DataError, match="holds 2 pictures; expected one"):
        decode(file_of(film.getvalue()), Pixels(None, (4, 4, 3)))
    with pytest.raises(
        DataError, match="has mode 'CMYK'; expected 8 bits per channel, grey or RGB"
    ):
        decode(saved(Image.new("CMYK", (4, 4)), "JPEG"), Pixels(None, (4, 4, 3)))


def test_sixteen_bits_are_refused_rather_than_clipped():
    deep = saved(Image.fromarray(np.full((4, 4), 40000, np.uint16)))
    with pytest.raises(DataError, match="has mode 'I;16'; expected 8 bits"):
        decode(deep, Pixels((4, 4), (4, 4, 1)))


@pytest.mark.parametrize("side", [2**14, 2**16])
def test_decompression_bombs_are_refused(side):
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))
    with pytest.raises(DataError, match=r"too many to be|not a readable image"):
        decode(file_of(bomb), Pixels(None, (28, 28, 1)))


def test_moderate_bombs_are_refused_without_a_word_from_pillow(image_bytes, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 99)
    with pytest.raises(DataError, match="has 100 pixels: too many"):
        decode(file_of(image_bytes((10, 10))), Pixels(None, (5, 5, 3)))
