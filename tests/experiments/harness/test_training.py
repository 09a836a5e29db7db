"""Training with everything around it: totals that outlive a process, and older checkpoints."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from experiments.harness import endings, training
from mamljax import files, losses, maml, meta_step, models, tasks
from mamljax.checks import ArgumentError
from mamljax.evaluate import Scores
from mamljax.running import provenance

LOG = ConfigDict({"every": 5, "checkpoint_every": 10})


def run(workdir, num_iterations, totals=("found",), **options):
    """Train something whose every iteration finds as much as its number, from 1."""
    learner = maml(models.mlp((4, 1)), losses.mean_squared_error, inner_lr=0.01)
    tx = optax.adam(1e-3)
    step = meta_step(learner.meta_gradient, tx)

    def counting(state, tasks, key):
        state, metrics = step(state, tasks, key)
        return state, metrics._replace(info={"found": state.step.astype(jnp.float32)})

    what = training.Training(
        "maml", learner, tasks.sinusoid(5, 5), tx, num_iterations, 2, {}, step_fn=counting,
        totals=totals, shown=("found",), **options,
    )  # fmt: skip
    return training.train(what, jax.random.key(0), LOG, workdir).train


def here():
    return f"{provenance.described(provenance.device())} with jax {jax.__version__}"


def falling_after(best, seen=None):
    """A validation whose score, at checkpoint after checkpoint, rises to the `best`, then falls."""
    seen = [] if seen is None else seen

    def validate(params):
        seen.append(params)
        score = float(min(len(seen), 2 * best - len(seen)))
        one = np.full(1, score)
        return Scores(one, 0 * one, 0 * one, one, 1, 0, one[None])

    return validate


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
    assert told["devices"] == {here(): 30}
    assert "found 30" not in capsys.readouterr().err.splitlines()[0]
    # Nothing is counted twice where nothing is left to do.
    assert run(tmp_path, 30) | {"compile_seconds": 0} == told | {"compile_seconds": 0}


def test_where_it_was_trained_is_counted_by_device_and_version(tmp_path, monkeypatch):
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(training, "described", lambda device: "GPU (H100)")
        elsewhere.setattr(jax, "__version__", "0.9")
        assert run(tmp_path, 10)["devices"] == {"GPU (H100) with jax 0.9": 10}
    assert run(tmp_path, 30)["devices"] == {"GPU (H100) with jax 0.9": 10, here(): 20}


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


def test_training_ends_where_validation_no_longer_rises(tmp_path, stopped):
    told = run(tmp_path / "a", 100, patience=30, validate=falling_after(2))
    assert (told["iterations"], told["tested_checkpoint"], told["flat_for"]) == (50, 20, 30)
    # It is over: nothing is trained, or validated, once more.
    again = run(tmp_path / "a", 100, patience=30, validate=None)
    assert (again["iterations"], again["flat_for"], again["found"]) == (50, 30, told["found"])
    # Who has more patience goes on.
    more = run(tmp_path / "a", 70, patience=40, validate=falling_after(-9))
    assert (more["iterations"], more["tested_checkpoint"], more["flat_for"]) == (60, 20, 40)
    whole = run(tmp_path / "a", 70, validate=falling_after(-9))
    assert (whole["iterations"], whole["flat_for"]) == (70, None)


def test_a_stop_between_does_not_change_where_it_ends(tmp_path, stopped):
    seen = []
    stopped.append(35)  # with a checkpoint that has no score
    with pytest.raises(endings.Interrupted):
        run(tmp_path, 100, patience=30, validate=falling_after(2, seen))
    stopped.clear()
    told = run(tmp_path, 100, patience=30, validate=falling_after(2, seen))
    assert (told["iterations"], told["tested_checkpoint"], told["flat_for"]) == (50, 20, 30)
