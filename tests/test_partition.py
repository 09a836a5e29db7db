"""Which parameters adapt, and which only meta-learn."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mamljax import algorithms, losses, models
from mamljax.partition import all_but, all_parameters, by_path
from mamljax.types import WithState

KEY = jax.random.key(0)


class Head(NamedTuple):
    kernel: float
    bias: float


TREE = {"body": [{"kernel": 1.0}, {"kernel": 2.0}], "head": Head(kernel=3.0, bias=4.0)}


@pytest.mark.parametrize(
    ("select", "adapting"),
    [
        ("head", [3.0, 4.0]),
        ("kernel", [1.0, 2.0, 3.0]),
        ("^body/1/", [2.0]),
        ("bias$|body/0", [1.0, 4.0]),
        (lambda path: path == "head/bias", [4.0]),
        ("", [1.0, 2.0, 3.0, 4.0]),
    ],
)
def test_by_path_splits_every_leaf_to_one_side(select, adapting):
    partition = by_path(select)
    chosen, shared = partition.split(TREE)
    assert jax.tree.leaves(chosen) == adapting
    assert sorted(jax.tree.leaves(shared) + adapting) == [1.0, 2.0, 3.0, 4.0]
    assert partition.merge(chosen, shared) == TREE


def test_all_parameters_adapt_by_default():
    partition = all_parameters()
    chosen, shared = partition.split(TREE)
    assert chosen == TREE
    assert jax.tree.leaves(shared) == []
    assert partition.merge(chosen, shared) == TREE


@pytest.mark.parametrize(
    ("pattern", "adapting"),
    [
        ("head", [1.0, 2.0]),
        ("^body/1/|bias$", [1.0, 3.0]),
    ],
)
def test_all_but_is_the_other_side_of_by_path(pattern, adapting):
    partition = all_but(pattern)
    chosen, shared = partition.split(TREE)
    assert jax.tree.leaves(chosen) == adapting
    assert sorted(jax.tree.leaves(shared) + adapting) == [1.0, 2.0, 3.0, 4.0]
    assert partition.merge(chosen, shared) == TREE
    assert by_path(pattern).split(TREE) == (shared, chosen)


def test_merge_takes_the_adapted_values():
    partition = by_path("head")
    chosen, shared = partition.split(TREE)
    merged = partition.merge(jax.tree.map(lambda x: -x, chosen), shared)
    assert merged == {**TREE, "head": Head(-3.0, -4.0)}


def test_inner_steps_change_only_what_is_selected(learner_of, tasks_of, params_of):
    learner, tasks = learner_of(partition=by_path("Dense_1"), num_steps=2), tasks_of(2)
    params = params_of(learner, tasks)
    adapt = jax.vmap(learner.adapt, in_axes=(None, 0, None))
    adapted = jax.jit(adapt)(params, tasks.support, KEY).params
    for name in ("kernel", "bias"):
        shared, own = adapted["Dense_0"][name], adapted["Dense_1"][name]
        np.testing.assert_array_equal(shared, jnp.stack([params["Dense_0"][name]] * 2))
        assert np.all(np.any(own != params["Dense_1"][name][None], axis=1))
    # The shared parameters are still meta-learned.
    gradient, _ = jax.jit(learner.meta_gradient)(params, tasks, KEY)
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(gradient["Dense_0"]))


def test_selecting_nothing_lists_the_paths():
    with pytest.raises(ValueError, match=r"select='Head' selects none .*'body/0/kernel'.*'head/bi"):
        by_path("Head").split(TREE)


def test_excluding_everything_lists_the_paths():
    with pytest.raises(ValueError, match=r"found in all .*'body/0/kernel'.*nothing would adapt"):
        all_but("").split(TREE)


@pytest.mark.parametrize(
    "partition",
    [all_but("bakbone"), all_but("^norm|Norm"), all_but("kernel/")],
    ids=["misspelt", "no norm", "beyond a leaf"],
)
def test_excluding_nothing_lists_the_paths(partition):
    with pytest.raises(ValueError, match=r"found in none .*'body/0/kernel'.*all_parameters\(\)"):
        partition.split(TREE)


def test_boil_without_such_a_head_lists_the_paths(tasks_of):
    learner = algorithms.boil(models.mlp((3, 1)), losses.mean_squared_error, "head")
    params = learner.init(KEY, tasks_of(1).support.inputs[0])
    with pytest.raises(ValueError, match=r"boil: head='head' is found in none .*'Dense_0/bias'"):
        learner.objective(params, jax.tree.map(lambda x: x[0], tasks_of(1)), KEY)


def test_state_never_adapts_and_paths_begin_below_it():
    tree = {"net": WithState(TREE, {"constants": {"kernel": 5.0}}), "kernel": 6.0}
    for partition, adapting in [
        (all_parameters(), [6.0, 1.0, 2.0, 3.0, 4.0]),
        (by_path("kernel"), [6.0, 1.0, 2.0, 3.0]),
        (by_path("^net/head/"), [3.0, 4.0]),
        (all_but("^net/body/"), [6.0, 3.0, 4.0]),
    ]:
        chosen, shared = partition.split(tree)
        assert jax.tree.leaves(chosen) == adapting
        assert 5.0 in jax.tree.leaves(shared)
        assert partition.merge(chosen, shared) == tree
    with pytest.raises(ValueError, match="selects none"):
        by_path("constants").split(tree)


def test_malformed_expression_is_refused_at_once():
    with pytest.raises(ValueError, match=r"'norm\(' is not a regular expression"):
        all_but("norm(")
    with pytest.raises(ValueError, match=r"select='Dense_\(' is not a regular expression"):
        by_path("Dense_(")
    with pytest.raises(TypeError, match="select must be a function path -> bool, or a regular exp"):
        by_path(None)
    with pytest.raises(TypeError, match="pattern must be a regular expression, as a string; got b"):
        all_but(b"norm")
