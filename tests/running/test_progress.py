"""Progress without a terminal: sparse lines with rate, loss and time left."""

import numpy as np

from mamljax.running import progress
from mamljax.train import Call
from mamljax.types import Metrics, TrainState


def call(step):
    history = Metrics(np.full(100, 0.5), np.zeros((100, 4)), np.zeros(100))
    return Call(step, TrainState(np.int32(step), {}, ()), history, 300, 4, 0.05, 1.0)


def test_lines_name_the_run_the_rates_and_the_time_left(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with progress.training_progress("maml", 300) as hook:
        assert hook(call(100)) is None  # True would stop the run
    text = capsys.readouterr().err
    assert text.startswith("maml: 100/300  2,000 it/s  8,000 tasks/s  loss 0.5")
    assert text.rstrip().endswith("s left")


def test_lines_are_sparse_but_the_last_one_always_comes(capsys):
    with progress.training_progress("maml", 300) as hook:
        for step in (100, 200, 300):
            hook(call(step))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("maml: 300/300")
