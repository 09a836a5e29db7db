"""Progress without a terminal: sparse lines with rate, loss and time left; a bar in a notebook."""

import functools

import numpy as np
import pytest
from rich.console import Console

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


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of IPython's own
def test_in_a_notebook_one_bar_is_updated_in_place(monkeypatch):
    display = pytest.importorskip("IPython.display")
    shown = []

    class Handle:
        def update(self, what):
            shown.append(what.data)

    def show(what, display_id):
        assert display_id
        shown.append(what.data)
        return Handle()

    monkeypatch.setattr(display, "display", show)
    monkeypatch.setattr(progress, "Console", functools.partial(Console, force_jupyter=True))
    with progress.training_progress("a <b>", 300) as hook:
        hook(call(100))
        hook(call(300))
    assert [data.split(">")[0] for data in shown] == [
        f'<progress value="{done}" max="300"' for done in (0, 100, 300)
    ]
    assert all("a &lt;b&gt;" in data for data in shown)
    assert "loss 0.5" in shown[-1]
