"""100,000 images on disk, under a limit of memory in which they do not fit."""

import numpy as np
import pytest

from experiments.benchmark import streaming
from experiments.benchmark.streaming import KINDS, Setting


def test_synthetic_images_are_the_same_on_disk_and_in_memory(tmp_path):
    small = Setting(classes=3, per_class=4, side=5)
    on_disk = streaming.prepare(tmp_path, small)
    in_memory = streaming.prepare(tmp_path, small, on_disk=False)
    assert in_memory.images.shape == on_disk.images.shape == (3, 4, 5, 5, 3)
    where = np.array([2, 0, 1]), np.array([3, 0, 2])
    np.testing.assert_array_equal(on_disk.images[where], in_memory.images[where])
    assert len(np.unique(in_memory.images)) > 100


@pytest.mark.slow
def test_images_of_two_gigabytes_train_in_one_as_they_would_in_three(tmp_path):
    np.ones(150_000_000)  # 1.2 GB: what has started a process does not count as its memory
    setting = Setting(calls=1, steps_per_call=2)
    assert setting.classes * setting.per_class == 100_000
    found = {name: measure() for name, measure in streaming.measured(tmp_path, setting).items()}
    assert found["in memory, 1 GB"] == [{"fits": "no"}]
    (limited,), (free,) = found["on disk, 1 GB"], found["in memory"]
    assert limited["fits"] == free["fits"] == "yes"
    assert limited["parameters"] == free["parameters"]
    assert limited["megabytes_at_most"] < 1e9 / 2**20 < free["megabytes_at_most"]
    assert found.keys() == KINDS.keys()
