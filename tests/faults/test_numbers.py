"""NaN in data, model, loss and gradient; samplers that fail; too little memory; odd clocks."""

import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from configs import navigation, omniglot
from experiments.harness import endings, training
from mamljax import losses, maml, models, tasks
from mamljax.running.checkpoint import Checkpoints
from mamljax.train import NonFiniteError

AT = 25
"""The meta-iteration from which on things go wrong: in the third call of ten."""


def train(workdir, *, learner=None, sampler=None, tx=None):
    what = training.Training(
        "maml",
        learner or maml(models.mlp((4, 1)), losses.mean_squared_error, inner_lr=0.01),
        sampler or tasks.sinusoid(5, 5),
        tx or optax.adam(1e-3),
        num_iterations=40,
        meta_batch=2,
        depends_on={},
    )
    log = ConfigDict({"every": 10, "checkpoint_every": 10})
    return training.train(what, jax.random.key(0), log, workdir)


def late(step, value):
    """The value, times NaN from iteration `AT` on; a counter in the parameters tells the time."""
    return value * jnp.where(step >= AT, jnp.nan, 1.0)


class Counting:
    """A model and an optimizer whose parameters hold the number of iterations that are done."""

    def __init__(self, **poisons):
        model = models.mlp((4, 1))

        def init(key, example):
            return {"net": model.init(key, example), "done": jnp.zeros(())}

        def apply(params, x, **options):
            x = late(params["done"], x) if "data" in poisons else x
            y = model.apply(params["net"], x, **options)
            return late(params["done"], y) if "model" in poisons else y

        def adam_and_count():
            def label(params):
                return {"net": "net", "done": "done"}

            count = optax.stateless(lambda updates, _: jax.tree.map(jnp.ones_like, updates))
            return optax.multi_transform({"net": optax.adam(1e-3), "done": count}, label)

        self.model = models.from_function(apply, init)
        self.tx = adam_and_count()


def test_clean_runs_end(tmp_path):
    counting = Counting()
    learner = maml(counting.model, losses.mean_squared_error, inner_lr=0.01)
    assert train(tmp_path, learner=learner, tx=counting.tx).train["iterations"] == 40


@pytest.mark.parametrize("where", ["data", "model", "loss", "gradient"])
def test_nan_is_named_by_its_iteration_and_the_checkpoint_before_it_is_good(tmp_path, where):
    counting = Counting(**{where: True})
    learner = maml(counting.model, losses.mean_squared_error, inner_lr=0.01)
    if where == "loss":
        objective = learner.objective

        def poisoned_objective(params, task, key):
            return late(params["done"], objective(params, task, key))

        from mamljax import backprop

        learner = learner._replace(meta_gradient=backprop(poisoned_objective))
    if where == "gradient":
        meta_gradient = learner.meta_gradient

        def poisoned(params, batch, key):
            gradient, metrics = meta_gradient(params, batch, key)
            return jax.tree.map(lambda g: late(params["done"], g), gradient), metrics

        learner = learner._replace(meta_gradient=poisoned)
    # A gradient that is poisoned behind the measurement of its norm shows in the next loss.
    seen = AT + 2 if where == "gradient" else AT + 1
    with pytest.raises(NonFiniteError, match=f"meta-iteration {seen}:"):
        train(tmp_path, learner=learner, tx=counting.tx)
    checkpoints = Checkpoints(tmp_path / "checkpoints" / "maml")
    assert checkpoints.steps()[-1] == 20
    clean = Counting()
    resumed = train(
        tmp_path, learner=maml(clean.model, losses.mean_squared_error, inner_lr=0.01), tx=clean.tx
    )
    assert resumed.train["iterations"] == 40
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(resumed.meta_params))


def test_a_sampler_that_fails_says_so_in_its_own_words(tmp_path):
    train(tmp_path)

    def broken(meta_params, key):
        raise LookupError("no such shard")

    with pytest.raises(LookupError, match="no such shard"):
        train(tmp_path / "other", sampler=broken)
    assert not (tmp_path / "other" / "checkpoints").exists()


def test_a_sampler_that_fails_on_the_way_leaves_the_last_checkpoint(tmp_path):
    sampler, calls = tasks.sinusoid(5, 5), itertools.count()

    def read(x):
        if next(calls) >= 2 * AT:
            raise LookupError("the file server is gone")
        return x

    def from_disk(meta_params, key):
        task = sampler(meta_params, key)
        x = task.query.targets
        read_back = jax.pure_callback(
            read, jax.ShapeDtypeStruct(x.shape, x.dtype), x, vmap_method="sequential"
        )
        return task._replace(query=task.query._replace(targets=read_back))

    with pytest.raises(Exception, match="the file server is gone"):
        train(tmp_path, sampler=from_disk)
    assert Checkpoints(tmp_path / "checkpoints" / "maml").steps()[-1] == 20
    assert train(tmp_path).train["iterations"] == 40


def test_too_little_memory_names_what_needs_less(tmp_path):
    huge = tasks.sinusoid(5, 2**40)
    with pytest.raises(Exception, match="RESOURCE_EXHAUSTED") as failed:
        train(tmp_path, sampler=huge)
    said = endings.explained(failed.value, omniglot.get_config())
    for knob in ("train.task_chunk=1", "train.remat=True", "evaluate.task_chunk=1"):
        assert f"--config.{knob}" in said
    assert "rollout_chunk" not in said
    assert "rollout_chunk=1" in endings.explained(failed.value, navigation.get_config())
    assert endings.explained(RuntimeError("else"), omniglot.get_config()) is None


def test_a_clock_that_goes_backwards_changes_nothing(tmp_path, monkeypatch):
    expected = train(tmp_path / "forwards")
    backwards = itertools.count(2e9, -1000)
    monkeypatch.setattr(time, "time", lambda: float(next(backwards)))
    found = train(tmp_path / "backwards")
    jax.tree.map(np.testing.assert_array_equal, found.meta_params, expected.meta_params)
    assert found.train["iterations_per_second"] > 0
    resumed = train(tmp_path / "backwards")
    jax.tree.map(np.testing.assert_array_equal, resumed.meta_params, expected.meta_params)
