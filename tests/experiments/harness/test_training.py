"""Training with everything around it: totals that outlive a process, and older checkpoints."""

import jax
import jax.numpy as jnp
import optax
import pytest
from ml_collections import ConfigDict

from experiments.harness import endings, training
from mamljax import losses, maml, meta_step, models, tasks
from mamljax.checks import ArgumentError
from mamljax.running import files

LOG = ConfigDict({"every": 5, "checkpoint_every": 10})


def run(workdir, num_iterations, totals=("found",)):
    """Train something whose every iteration finds as much as its number, from 1."""
    learner = maml(models.mlp((4, 1)), losses.mean_squared_error, inner_lr=0.01)
    tx = optax.adam(1e-3)
    step = meta_step(learner.meta_gradient, tx)

    def counting(state, tasks, key):
        state, metrics = step(state, tasks, key)
        return state, metrics._replace(info={"found": state.step.astype(jnp.float32)})

    what = training.Training(
        "maml", learner, tasks.sinusoid(5, 5), tx, num_iterations, 2, {}, step_fn=counting,
        totals=totals, shown=("found",),
    )  # fmt: skip
    return training.train(what, jax.random.key(0), LOG, workdir).train


@pytest.fixture
def stopped(monkeypatch):
    """Asks to stop at a meta-iteration, once."""
    at = []
    hook_of = endings.stop_hook

    def stop_hook(asked, checkpoints, totals):
        return lambda call: hook_of(
            lambda: asked() or (bool(at) and call.step >= at[0]), checkpoints, totals
        )(call)

    monkeypatch.setattr(endings, "stop_hook", stop_hook)
    return at


def test_totals_go_on_after_a_stop(tmp_path, stopped, capsys):
    stopped.append(15)  # between two checkpoints
    with pytest.raises(endings.Interrupted, match="stopped after 15 of 30 iterations"):
        run(tmp_path, 30)
    stopped.clear()
    told = run(tmp_path, 30)
    assert (told["iterations"], told["found"]) == (30, sum(range(1, 31)))
    assert told["wall_seconds"] > 30 / told["iterations_per_second"] > 0
    assert "found 30" not in capsys.readouterr().err.splitlines()[0]
    # Nothing is counted twice where nothing is left to do.
    assert run(tmp_path, 30) | {"compile_seconds": 0} == told | {"compile_seconds": 0}


def test_a_checkpoint_of_an_earlier_version_has_no_totals(tmp_path):
    run(tmp_path, 10)
    record = tmp_path / "checkpoints" / "maml" / "00000010" / "checkpoint.json"
    told = files.unsealed(record.read_text())
    del told["totals"]
    files.write_json(record, files.sealed(told))
    told = run(tmp_path, 20)
    assert (told["iterations"], told["found"]) == (20, sum(range(11, 21)))
    assert told["wall_seconds"] is None  # of a part of the run alone
    assert told["iterations_per_second"] > 0


def test_fewer_iterations_than_were_trained_are_refused_and_more_go_on(tmp_path):
    run(tmp_path, 20)
    left = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ArgumentError, match=r"trained for 20 iterations.* asks for 10.*--workdir"):
        run(tmp_path, 10)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == left
    told = run(tmp_path, 30)
    assert (told["iterations"], told["found"]) == (30, sum(range(1, 31)))
