"""Ctrl-C ends training with a checkpoint, and the same call goes on from there."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from experiments.harness import endings, training
from mamljax import losses, maml, models, tasks

ROOT = Path(__file__).parents[3]


def train(workdir, log=None):
    what = training.Training(
        "maml",
        maml(models.mlp((4, 1)), losses.mean_squared_error, inner_lr=0.01),
        tasks.sinusoid(5, 5),
        optax.adam(1e-3),
        num_iterations=60,
        meta_batch=2,
        depends_on={},
    )
    log = log or ConfigDict({"every": 10, "checkpoint_every": 20})
    return training.train(what, jax.random.key(0), log, workdir)


@pytest.fixture
def signalled(monkeypatch):
    """Sends signals to this process after calls, by iteration."""
    at = {}
    progress = training.training_progress

    @contextlib.contextmanager
    def with_signals(*arguments):
        with progress(*arguments) as show:

            def hook(call):
                for number in at.pop(call.step, ()):
                    os.kill(os.getpid(), number)
                return show(call)

            yield hook

    monkeypatch.setattr(training, "training_progress", with_signals)
    return at


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [30, 40])  # between two checkpoints, and at one
def test_one_signal_saves_and_the_same_call_goes_on(tmp_path, signalled, number, step):
    undisturbed = train(tmp_path / "undisturbed")
    signalled[step] = [number]
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(endings.Interrupted, match=f"after {step} of 60 iterations.*goes on"):
        train(tmp_path / "run")
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    saved = sorted(path.name for path in (tmp_path / "run" / "checkpoints" / "maml").iterdir())
    assert saved[-1] == f"{step:08d}"
    resumed = train(tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, resumed.meta_params, undisturbed.meta_params)
    assert resumed.train["iterations"] == 60


def test_the_score_of_a_due_checkpoint_is_kept(tmp_path, signalled):
    signalled[40] = [signal.SIGINT]
    with pytest.raises(endings.Interrupted):
        train(tmp_path)
    record = (tmp_path / "checkpoints" / "maml" / "00000040" / "checkpoint.json").read_text()
    assert '"score": null' not in record


def test_two_signals_end_at_once(tmp_path, signalled):
    signalled[30] = [signal.SIGINT, signal.SIGINT]
    with pytest.raises(KeyboardInterrupt) as stopped:
        train(tmp_path)
    assert not isinstance(stopped.value, endings.Interrupted)
    assert [path.name for path in (tmp_path / "checkpoints" / "maml").iterdir()] == ["00000020"]


def test_the_command_says_how_to_go_on(tmp_path):
    command = [sys.executable, "-m", "experiments.sinusoid", f"--workdir={tmp_path}"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "metrics.jsonl").exists():
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == endings.EXIT_STATUS == 130
    assert "Stopping after this call" in said
    assert "The same command goes on from there." in said
    assert "Traceback" not in said
