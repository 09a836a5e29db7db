"""What errors on an image set call its options: by flags where these were given as flags."""

import contextlib
import re
from collections.abc import Iterator, Mapping

from mamljax.checks import ArgumentError
from mamljax.data import DataError

CONFIG = {
    "data_dir": "--config.data.dir",
    "cache_dir": "--config.data.cache",
    "download=True": "--config.data.download=True",
    "image_size": "--config.data.image_size",
    "image_size=(height, width)": "--config.data.image_size=HEIGHT,WIDTH",
    "resize=True": "--config.data.resize=True",
    "fractions": "--config.data.split",
    "fractions=(0.8, 0.1, 0.1)": "--config.data.split=0.8,0.1,0.1",
}
COMMAND = {
    "data_dir": "--dir",
    "cache_dir": "--cache",
    "download=True": "--download",
    "image_size": "--size",
    "image_size=(height, width)": "--size HEIGHT WIDTH",
    "resize=True": "--resize",
    "fractions": "--split",
    "fractions=(0.8, 0.1, 0.1)": "--split=0.8,0.1,0.1",
}
"""Options of `mamljax.data.load` by the flags of an experiment, and of ``mamljax data``."""


@contextlib.contextmanager
def in_flags(flags: Mapping[str, str]) -> Iterator[None]:
    """Raise errors of the same kind, in which options go by their flags."""
    try:
        yield
    except (ArgumentError, DataError) as error:
        raise type(error)(said(str(error), flags)) from error


def said(message: str, flags: Mapping[str, str]) -> str:
    """The message with flags for the names of options; what is part of a path stays."""
    names = "|".join(re.escape(name) for name in sorted(flags, key=len, reverse=True))
    return re.sub(rf"(?<![\w/.-])({names})(?![\w/-]|\.\w)", lambda found: flags[found[1]], message)
