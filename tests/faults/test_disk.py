"""A full disk, a directory that cannot be written, two runs in one, flipped bits in the cache."""

import json
import random
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mamljax import data

ROOT = Path(__file__).parents[2]
SMALL = (
    "--config.train.num_iterations=200",
    "--config.log.every=10",
    "--config.log.checkpoint_every=50",
    "--config.evaluate.num_tasks=20",
    "--config.evaluate.shots=(5,)",
    "--config.evaluate.num_inner_steps=2",
    "--config.tune.num_tasks=20",
)


# Set by the process itself: to set it from here means a fork, which jax's threads do not survive.
LIMITED = """
import os, resource, sys
size = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def start(workdir, *options, largest_file=None):
    limit = [] if largest_file is None else ["-c", LIMITED, str(largest_file)]
    command = [sys.executable, *limit, "-m", "experiments.sinusoid", f"--workdir={workdir}"]
    command += [*SMALL, *options]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def end(process):
    _, said = process.communicate(timeout=300)
    return process.returncode, said


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [1, 8, 30])  # a checkpoint, or a figure, is too large
def test_a_full_disk_leaves_what_was_saved_and_says_so(tmp_path, kilobytes):
    undisturbed = tmp_path / "undisturbed"
    assert end(start(undisturbed))[0] == 0
    workdir = tmp_path / "run"
    assert end(start(workdir, "--config.train.num_iterations=100"))[0] == 0
    code, said = end(start(workdir, largest_file=kilobytes * 1000))
    assert code == 1
    (told,) = (line for line in said.splitlines() if line.startswith("error: the disk is full"))
    assert "goes on from the last checkpoint" in told
    assert "Traceback" not in said
    assert end(start(workdir))[0] == 0
    ours, theirs = (json.loads((w / "report.json").read_text()) for w in (workdir, undisturbed))
    assert ours["results"] == theirs["results"]


def test_a_directory_that_cannot_be_written_is_refused():
    code, said = end(start("/proc/mamljax"))  # not even by the superuser
    assert code == 1
    assert "error: --workdir=/proc/mamljax cannot be written to" in said
    assert "Traceback" not in said


def test_a_second_run_in_the_same_directory_is_refused(tmp_path):
    first = start(tmp_path, "--config.train.num_iterations=1000000")
    while not list(tmp_path.glob("checkpoints/maml/0*")):
        assert first.poll() is None
        time.sleep(0.1)
    code, said = end(start(tmp_path))
    assert code == 1
    assert f"process {first.pid} is at work in --workdir={tmp_path}" in said
    first.kill()
    first.communicate()
    refused = end(start(tmp_path, "--config.train.num_inner_steps=2"))  # the lock is free again
    assert "another configuration" in refused[1]


@pytest.mark.slow
def test_bits_flipped_in_prepared_images_are_detected_or_harmless(tmp_path, record_property):
    rng = random.Random(0)
    for name in "ab":
        place = tmp_path / "images" / "train" / name
        place.mkdir(parents=True)
        for number in range(3):
            pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(place / f"{number}.png")
    options = {"data_dir": tmp_path / "images", "image_size": (8, 8), "cache_dir": tmp_path / "c"}
    expected = data.load("folder", "train", **options)
    detected = 0
    for _ in range(100):
        files = sorted(p for p in (tmp_path / "c").rglob("*") if p.is_file() and p.stat().st_size)
        victim = rng.choice(files)
        flipped = bytearray(victim.read_bytes())
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        victim.write_bytes(flipped)
        record_property("flipped bits", 1)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = data.load("folder", "train", **options)
        detected += len(told)
        np.testing.assert_array_equal(found.images, expected.images)
        assert found.names == expected.names
        np.testing.assert_array_equal(found.counts, expected.counts)
    assert detected > 20
