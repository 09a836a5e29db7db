"""SIGKILL at random moments: what was begun is finished by the same command, bit for bit."""

import functools
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mamljax import data

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# A checkpoint every five iterations: most of the time goes into writing them.
TRAINING = (
    "--config.train.num_iterations=400",
    "--config.log.every=5",
    "--config.log.checkpoint_every=5",
    "--config.evaluate.num_tasks=20",
    "--config.evaluate.shots=(5,)",
    "--config.evaluate.num_inner_steps=2",
    "--config.tune.num_tasks=20",
)


def train(workdir):
    command = [sys.executable, "-m", "experiments.sinusoid", f"--workdir={workdir}", *TRAINING]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process):
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said.decode()


def kill_at(process, seconds, ready):
    """Kill some seconds after it is ready; returns whether it had not ended by then."""
    while not ready():
        if process.poll() is not None:
            return False
        time.sleep(0.01)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def losses(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [(record["run"], record["step"], record["loss"]) for record in map(json.loads, lines)]


def test_training_killed_thirty_times(tmp_path, record_property):
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    finish(train(undisturbed))
    rng, kills = random.Random(0), 0
    for _ in range(60):
        before = (disturbed / "metrics.jsonl").stat().st_mtime_ns if kills else 0

        def begun(before=before):
            path = disturbed / "metrics.jsonl"
            return path.exists() and path.stat().st_mtime_ns > before

        kills += kill_at(train(disturbed), rng.uniform(0, 0.6), begun)
        if kills == 30:
            break
    record_property("kills", kills)
    assert kills == 30
    finish(train(disturbed))
    ours, theirs = (json.loads((w / "report.json").read_text()) for w in (disturbed, undisturbed))
    assert ours["results"] == theirs["results"]
    assert losses(disturbed) == losses(undisturbed)
    left = [path.name for path in (disturbed / "checkpoints").rglob(".*")]
    assert left == []


SAVING = """
import jax.numpy as jnp, sys
from mamljax.running.checkpoint import Checkpoints
from mamljax.types import TrainState
checkpoints = Checkpoints(sys.argv[1])
done = checkpoints.restore(TrainState(jnp.int32(0), {"w": jnp.zeros(50_000)}, ()))
step = 0 if done is None else int(done.step)
print("ready", flush=True)
while True:
    step += 1
    checkpoints.save(TrainState(jnp.int32(step), {"w": jnp.full(50_000, float(step))}, ()), -step)
"""


def test_writing_checkpoints_killed_twenty_times(tmp_path, record_property):
    from mamljax.running.checkpoint import Checkpoints
    from mamljax.types import TrainState

    rng, newest = random.Random(1), 0
    like = TrainState(np.int32(0), {"w": np.zeros(50_000, np.float32)}, ())

    def saved_after(step):
        return any(int(path.name) > step for path in tmp_path.glob("0*"))

    for _ in range(20):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVING, tmp_path], cwd=ROOT, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert kill_at(process, rng.uniform(0, 0.3), functools.partial(saved_after, newest))
        record_property("kills", 1)
        found = Checkpoints(tmp_path).restore(like)  # a warning, of damage, would fail here
        assert found is not None
        assert int(found.step) > newest
        newest = int(found.step)
        np.testing.assert_array_equal(found.meta_params["w"], newest)


@pytest.fixture
def folder(tmp_path):
    """Images enough to take a while."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for index in range(60):
            place = tmp_path / "images" / split / f"class{index}"
            place.mkdir(parents=True)
            for number in range(20):
                pixels = rng.integers(0, 256, (28, 28, 3), np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")
    return tmp_path / "images"


def test_preparing_images_killed_twenty_times(folder, tmp_path, record_property):
    options = {"data_dir": folder, "image_size": (28, 28)}
    expected = data.load("folder", "train", cache_dir=tmp_path / "undisturbed", **options)
    cache, rng, kills = tmp_path / "disturbed", random.Random(2), 0
    command = [sys.executable, "-m", "experiments.prepare", "folder", f"--dir={folder}"]
    command += [f"--cache={cache}", "--size", "28", "28"]
    for _ in range(60):
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        done = kill_at(process, rng.uniform(0, 0.5), lambda: bool(list(cache.glob(".*.preparing"))))
        kills += done
        if not done:  # it had ended: begin anew
            for path in cache.glob("*/*.json"):
                path.unlink()
        if kills == 20:
            break
    record_property("kills", kills)
    assert kills == 20
    found = data.load("folder", "train", cache_dir=cache, **options)
    np.testing.assert_array_equal(found.images, expected.images)
    assert found.names == expected.names
    assert list(cache.glob(".*.preparing")) == []
