"""The one TensorFlow Datasets builder: images class by class, a record each, in ArrayRecord files.

Importing this module imports tensorflow_datasets; neither reading nor writing needs TensorFlow.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mamljax.data.sources import ImageClass

SPLIT = "classes"
SHARD_BYTES = 2**26
"""Pixels per shard, about: a shard is held in memory while it is written."""


# Shard by shard, since a GeneratorBasedBuilder gathers all records before it writes one, and with
# more than 1 GB of them needs TensorFlow to do so.
class ImageClasses(tfds.core.ShardBasedBuilder, skip_registration=True):
    """Classes of images ``[*shape]``, in the order given; only preparing them needs `classes`."""

    name = "image_classes"
    VERSION = tfds.core.Version("2.0.0")

    def __init__(self, data_dir: Path, shape: Sequence[int], classes: Sequence[ImageClass] = ()):
        self._shape, self._classes = tuple(shape), classes
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Tensor(
            shape=self._shape, dtype=np.uint8, encoding=tfds.features.Encoding.BYTES
        )
        features = tfds.features.FeaturesDict({"name": tfds.features.Text(), "image": image})
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _shard_iterators_per_split(self, dl_manager: Any) -> Mapping[str, Sequence[Callable]]:
        del dl_manager
        largest = max(item.size for item in self._classes) * math.prod(self._shape)
        step = max(1, SHARD_BYTES // largest)
        starts = range(0, len(self._classes), step)
        return {SPLIT: [partial(_records, self._classes[i : i + step]) for i in starts]}


def _records(classes: Sequence[ImageClass]) -> Iterator[tuple[str, dict[str, Any]]]:
    for item in classes:
        for i, image in enumerate(item.read()):
            yield f"{item.name} {i}", {"name": item.name, "image": image}
