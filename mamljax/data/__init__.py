"""Image sets by name: from files on disk to arrays of 8-bit images, prepared once and cached."""

from mamljax.data.cache import ImageSet
from mamljax.data.files import DataError
from mamljax.data.folders import NoClasses
from mamljax.data.loading import load
from mamljax.data.splits import SCHEMES, split_names

__all__ = ["SCHEMES", "DataError", "ImageSet", "NoClasses", "load", "split_names"]
