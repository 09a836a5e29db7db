"""The comparison of methods, on a small scale."""

import json

import jax
import numpy as np
import pytest

from configs import methods as methods_config
from experiments.benchmark import methods
from mamljax.partition import all_but


@pytest.fixture
def small():
    config = methods_config.get_config("sinusoid")
    config.iterations, config.tune_iterations, config.every = 60, 20, 20
    config.num_steps, config.meta_batch, config.evaluate_tasks, config.tune_tasks = 2, 4, 50, 20
    config.seeds, config.candidates = (0,), (0.01,)
    return config


def test_every_method_of_the_config_has_a_learner():
    for problem in methods.PROBLEMS:
        found = methods_config.get_config(problem).methods.split(",")
        without = methods_config.CLASSIFIERS if problem == "sinusoid" else ()
        assert found == [name for name in methods.LEARNERS if name not in without]


def test_a_run_that_was_stopped_goes_on(small, tmp_path, monkeypatch, capsys):
    small.methods = "maml_plus_plus,reptile"
    output = tmp_path / "results" / "methods.json"
    seed = methods._seed

    def stopped(config, problem, method, *rest):
        if method == "reptile":
            raise KeyboardInterrupt
        return seed(config, problem, method, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(methods, "_seed", stopped)
        with pytest.raises(KeyboardInterrupt):
            methods.compare_all(small, output)
    before = json.loads(output.read_text())["sinusoid"]["results"]
    found = methods.compare_all(small, output)["sinusoid"]["results"]
    assert found[:1] == before
    assert [row["method"] for row in found] == small.methods.split(",")
    assert output.with_suffix(".png").exists()
    assert "maml_plus_plus" in capsys.readouterr().out
    # Another method joins those that are there.
    small.methods += ",fomaml"
    with monkeypatch.context() as patch:
        patch.setattr(methods, "_seed", lambda *arguments: {"seed": 0, "failed": arguments[2]})
        joined = methods.compare_all(small, output)["sinusoid"]["results"]
    assert joined[:2] == found
    assert joined[2]["seeds"][0]["failed"] == "fomaml"
    # Another config begins anew.
    small.methods, small.iterations = "reptile", 40
    monkeypatch.setattr(methods, "compare", lambda *_, **options: iter(found[1:]))
    assert methods.compare_all(small, output)["sinusoid"]["results"] == found[1:]


def test_methods_for_classes_begin_at_prototypes():
    config = methods_config.get_config("glyphs")
    config.filters = 4
    problem = methods.PROBLEMS["glyphs"](config)
    learner = methods.LEARNERS["proto_maml"](problem, {"inner_lr": 0.1, "num_steps": 1})
    task = problem.test(None, jax.random.key(0))
    params = learner.init(jax.random.key(1), task.query.inputs)
    adapted = learner.adapt(params, task.support, None).params
    assert adapted["head"]["kernel"].shape[1] == config.ways
    adapting, shared = all_but("norm").split(params)
    moved, same = all_but("norm").split(adapted["body"])
    jax.tree.map(np.testing.assert_array_equal, same, shared)
    assert not all(jax.tree.leaves(jax.tree.map(np.array_equal, moved, adapting)))


def test_rows_hold_quality_and_cost(small):
    small.seeds, small.candidates = (0, 1), (0.01, 1e30)
    (row,) = methods.compare(small, ["maml"])
    assert row["inner_lr"] == 0.01  # not the one that diverges
    assert row["tried"] == {"0.01": pytest.approx(row["tried"]["0.01"]), "1e+30": np.inf}
    assert [seed["seed"] for seed in row["seeds"]] == [0, 1]
    finals = [seed["mean"][-1] for seed in row["seeds"]]
    assert row["mean"] == pytest.approx(np.mean(finals))
    assert [row["lowest"], row["highest"]] == sorted(finals)
    half = [seed["ci95"][-1] for seed in row["seeds"]]
    assert row["ci95"] == pytest.approx(np.hypot(*half) / 2)
    assert len(row["seeds"][0]["mean"]) == 3  # before adaptation and after two steps
    assert row["milliseconds_per_step"] > 0
    assert row["temporary_megabytes"] > 0


def test_seeds_that_fail_are_told(small, tmp_path, capsys):
    small.methods, small.candidates = "maml", (1e30,)
    (row,) = methods.compare_all(small, tmp_path / "methods.json")["sinusoid"]["results"]
    assert row["num_failed"] == 1
    assert "not finite" in row["seeds"][0]["failed"]
    assert "1 of 1 seeds failed" in capsys.readouterr().out
