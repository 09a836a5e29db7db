"""Two real processes on this machine train together, through the command line."""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mamljax.models import weights

ROOT = Path(__file__).parents[3]
ITERATIONS = 200


SINUSOIDS = {
    "train.meta_batch": 24,
    "train.num_iterations": ITERATIONS,
    "log.every": 10,
    "log.checkpoint_every": 10,
    "evaluate.num_tasks": 20,
    "evaluate.shots": "(5,)",
    "evaluate.num_inner_steps": 1,
    "tune.candidates": "(0.01,)",
}
"""A checkpoint every few iterations; all else is kept small."""


def start(workdir, *arguments, experiment="sinusoid", settings=SINUSOIDS):
    """A process that trains."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", f"experiments.{experiment}"),
            f"--config=configs/{experiment}.py:quick",
            f"--workdir={workdir}",
            *(f"--config.{name}={x}" for name, x in settings.items()),
            *arguments,
        ],
        cwd=ROOT,
        env=os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_together(workdir, *arguments, own=((), ()), **options):
    """Two processes, with the same arguments and some of their own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = [f"--coordinator=127.0.0.1:{port}", "--num_processes=2", *arguments]
    return [start(workdir, *together, f"--process_id={i}", *own[i], **options) for i in range(2)]


def finished(process, returncode=0):
    out, err = process.communicate(timeout=300)
    assert process.returncode == returncode, err
    return out, err


def wait_for(condition, process):
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


def lines_of(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The report of one process that nobody disturbs."""
    workdir = tmp_path_factory.mktemp("one")
    finished(start(workdir))
    return json.loads((workdir / "report.json").read_text())


def assert_as_alone(workdir, alone):
    found = json.loads((workdir / "report.json").read_text())
    assert [row["method"] for row in found["results"]] == ["maml", "pretrain", "oracle"]
    for row, expected in zip(found["results"], alone["results"], strict=True):
        np.testing.assert_allclose(row["mean"], expected["mean"], rtol=1e-6)
    # Written once: each step has one line.
    logged = [(line["run"], line["step"]) for line in lines_of(workdir)]
    assert len(logged) == len(set(logged)) == 3 * ITERATIONS / 10
    return found


@pytest.mark.slow
def test_one_process_goes_on_where_two_were_killed(tmp_path, alone):
    # The second process is killed: the first says so and ends.
    first, second = start_together(tmp_path)
    saved = tmp_path / "checkpoints" / "maml"
    wait_for(lambda: any(saved.glob("0*")), first)
    second.send_signal(signal.SIGKILL)
    _, err = finished(first, returncode=1)
    assert "error: this process lost another one" in err
    assert "Start all of them again" in err
    assert "Traceback" not in err
    second.communicate()
    assert not (tmp_path / "report.json").exists()
    last = lines_of(tmp_path)[-1]
    assert last["run"] == "maml"
    assert last["step"] < ITERATIONS

    # One process, so another number of devices, goes on there.
    _, err = finished(start(tmp_path))
    assert "passed over" not in err
    assert_as_alone(tmp_path, alone)


def test_two_processes_do_what_one_does_and_one_of_them_speaks(tmp_path, alone):
    (out, err), (no_out, no_err) = map(finished, start_together(tmp_path))
    assert "Report and figures" in out
    assert f"maml: {ITERATIONS}/{ITERATIONS}" in err
    assert "maml" not in no_out + no_err

    found = assert_as_alone(tmp_path, alone)
    assert found["device"]["count"] == 2
    assert len(list((tmp_path / "tensorboard" / "maml").iterdir())) == 1


@pytest.mark.slow
def test_two_processes_read_from_disk_the_images_of_their_own_tasks(tmp_path):
    rng = np.random.default_rng(0)
    for split, label, index in itertools.product(("train", "test"), range(5), range(4)):
        path = tmp_path / "images" / split / f"class{label}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 12), np.uint8)).save(path)
    settings = {
        "data.source": "folder",
        "data.dir": tmp_path / "images",
        "data.cache": tmp_path / "cache",
        "data.image_size": "(12,12)",
        "data.grayscale": True,
        "model.filters": 4,
        "train.num_iterations": 10,
        "evaluate.num_tasks": 4,
        "cpu_devices": 1,
    }
    images = {"experiment": "omniglot", "settings": settings}
    finished(start(tmp_path / "alone", **images))
    both = start_together(tmp_path / "both", "--config.data.on_disk=True", **images)
    for process in both:
        finished(process)
    expected, found = (weights.read(tmp_path / run / "model.npz") for run in ("alone", "both"))
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, atol=1e-6, err_msg=name)


def test_processes_must_have_the_same_config_and_a_meta_batch_that_they_divide(tmp_path):
    processes = start_together(tmp_path, "--config.train.meta_batch=25")
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert all(process.returncode for process in processes)
    # Who comes late may be told by jax that the other one has ended, before it can say so itself.
    assert "error: a meta-batch of 25 tasks does not divide over 2 devices" in "".join(errors)

    seeds = [[f"--config.seed={i}"] for i in range(2)]
    first, second = start_together(tmp_path, own=seeds)
    _, err = finished(second, returncode=2)
    assert "another --config than process 0" in err
    first.communicate(timeout=300)
    assert first.returncode  # it lost the other one


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num_processes=2"], "need --coordinator=HOST:PORT"),
        (["--coordinator=a:1", "--num_processes=2"], "needs --num_processes and a smaller"),
        (["--coordinator=a:1", "--num_processes=2", "--process_id=2"], "got 2 and 2"),
        (["--coordinator=auto"], "found no cluster here"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(tmp_path, arguments, message):
    _, err = finished(start(tmp_path / "run", *arguments), returncode=2)
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()
