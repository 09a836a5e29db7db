"""Kinds of what users bring: state, masks and labels, weights, paths, tasks, simulators.

Each property is tried on a few examples in every run, and at length as a slow test.
"""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mamljax import Batch, Task, losses, models, rl, tasks
from mamljax.checks import ArgumentError
from mamljax.models import weights
from mamljax.partition import all_but, by_path
from mamljax.rl.sampler import experience
from mamljax.types import Weighted

KEY = jax.random.key(0)


def tried(few, many, **strategies):
    """Two tests of one property: on a few examples, and on many, which is slow."""

    def make(examined):
        common = {"deadline": None, "derandomize": True, "database": None}
        options = common | {"suppress_health_check": list(HealthCheck)}
        tests = [given(**strategies)(examined) for _ in range(2)]
        numbers = (few, many)
        quick, slow = (
            settings(max_examples=n, **options)(t) for n, t in zip(numbers, tests, strict=True)
        )
        return quick, pytest.mark.slow(slow)

    return make


# ---------------------------------------------------------------------------------------------
# Modules with state.

LAYERS = ("dense", "norm", "dropout", "constant", "writes")


class Writing(nn.Module):
    """A layer that writes to a collection of its own."""

    @nn.compact
    def __call__(self, x):
        seen = self.variable("seen", "mean", jnp.zeros, ())
        if not self.is_initializing():
            seen.value = jnp.mean(x)
        return x


class Stack(nn.Module):
    """Layers by name, on two features."""

    layers: tuple[str, ...]

    @nn.compact
    def __call__(self, x, train: bool = False):
        for name in self.layers:
            if name == "dense":
                x = nn.Dense(2)(x)
            elif name == "norm":
                x = nn.BatchNorm(use_running_average=not train)(x)
            elif name == "dropout":
                x = nn.Dropout(0.5, deterministic=not train)(x)
            elif name == "constant":
                drawn = self.variable("fixed", "shift", lambda: jax.random.normal(KEY, (2,)))
                x = x + drawn.value[None]
            else:
                x = Writing()(x)
        return x


def module_with_state(layers, norm, with_key):
    layers = ("dense", *dict.fromkeys(layers))
    model = models.from_linen(Stack(layers), norm=norm)
    inputs = jnp.linspace(-1, 1, 6).reshape(3, 2)
    if norm == "batch" and "norm" not in layers:
        norm = "either"
    try:
        params = model.init(KEY, inputs)
        outputs = model.apply(params, inputs, key=KEY if with_key else None)
    except ArgumentError as refused:
        assert "writes" in layers or (norm == "running" and "norm" not in layers)
        assert re.search("write|running", str(refused))  # noqa: PT017
        return
    assert "writes" not in layers
    assert outputs.shape == (3, 2)
    assert np.isfinite(outputs).all()
    again = model.apply(params, inputs, key=KEY if with_key else None)
    np.testing.assert_array_equal(outputs, again)  # no call changes what the next one sees
    if not (with_key and "dropout" in layers):  # nothing else draws
        other = model.apply(params, inputs, key=jax.random.key(1) if with_key else None)
        np.testing.assert_array_equal(outputs, other)


test_modules_with_state, test_modules_with_state_at_length = tried(
    4,
    60,
    layers=st.lists(st.sampled_from(LAYERS), max_size=4),
    norm=st.sampled_from(["batch", "running"]),
    with_key=st.booleans(),
)(module_with_state)


# ---------------------------------------------------------------------------------------------
# Labels, masks and weights of a loss.


def labels_and_masks(data, classes, number):
    logits = np.array(
        data.draw(st.lists(st.floats(-5, 5, width=32), min_size=number * classes,
                           max_size=number * classes)), np.float32,
    ).reshape(number, classes)  # fmt: skip
    labels = np.array(data.draw(st.lists(st.integers(-1, classes), min_size=number,
                                         max_size=number)))  # fmt: skip
    counts = np.array(data.draw(st.lists(st.sampled_from([0.0, 1.0, 2.5]), min_size=number,
                                         max_size=number)), np.float32)  # fmt: skip
    ruled_out = data.draw(st.integers(-1, classes - 1))
    if ruled_out >= 0:
        logits[:, ruled_out] = -np.inf
    found = losses.cross_entropy(jnp.asarray(logits), Weighted(jnp.asarray(labels), counts))
    total, wrong = 0.0, False
    for row, label, count in zip(logits.astype(np.float64), labels, counts, strict=True):
        if count == 0:
            continue  # whatever is there
        if not 0 <= label < classes:
            wrong = True
            continue
        with np.errstate(divide="ignore"):
            total -= count * (row[label] - np.log(np.sum(np.exp(row))))
    if wrong:
        assert math.isnan(found)
        return
    expected = total / counts.sum() if counts.sum() else 0.0
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


test_labels_and_masks, test_labels_and_masks_at_length = tried(
    6,
    400,
    data=st.data(),
    classes=st.integers(2, 4),
    number=st.integers(1, 4),
)(labels_and_masks)


# ---------------------------------------------------------------------------------------------
# Weights of any tree.

DTYPES = (jnp.float32, jnp.float16, jnp.bfloat16, jnp.float8_e4m3fn, jnp.int32, jnp.uint8, bool)
NAMES = st.sampled_from(["a", "b", "kernel", "0", "x.y", "name with spaces"])


@st.composite
def leaf(draw):
    shape = draw(st.sampled_from([(), (1,), (2, 3), (0, 2)]))
    number = draw(st.integers(0, 3))
    return jnp.full(shape, number).astype(draw(st.sampled_from(DTYPES)))


TREES = st.recursive(
    st.one_of(leaf(), st.just(KEY), st.none()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(NAMES, inner, max_size=3),
        st.tuples(inner, inner),
        st.tuples(inner, inner).map(lambda pair: Batch(*pair)),
    ),
    max_leaves=5,
)


def weights_of_any_tree(tmp_path_factory, tree):
    path = tmp_path_factory.mktemp("weights") / "w.npz"
    try:
        weights.save(path, tree)
    except ArgumentError as refused:
        assert not path.exists()
        assert str(refused)  # noqa: PT017
        return
    again = weights.load(path, tree)
    assert jax.tree.structure(again) == jax.tree.structure(tree)
    for new, old in zip(jax.tree.leaves(again), jax.tree.leaves(tree), strict=True):
        assert new.dtype == old.dtype
        same = jax.random.key_data if jnp.issubdtype(old.dtype, jax.dtypes.prng_key) else np.asarray
        np.testing.assert_array_equal(same(new), same(old))


test_weights_of_any_tree, test_weights_of_any_tree_at_length = tried(8, 200, tree=TREES)(
    weights_of_any_tree
)


# ---------------------------------------------------------------------------------------------
# Partitions.

PATTERNS = st.sampled_from(["a", "b", "kernel", "head", "^a$", "a/", "[", "x|b", "", "$^"])


def partitions(tree, pattern):
    tree = {"root": tree}
    paths = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(tree)
    ]
    for choose, wanted in ((by_path, True), (all_but, False)):
        try:
            partition = choose(pattern)
            adapting, shared = partition.split(tree)
        except ArgumentError as refused:
            assert repr(pattern) in str(refused)  # noqa: PT017
            matched = [path for path in paths if pattern != "[" and re.search(pattern, path)]
            assert pattern == "[" or not matched or (not wanted and matched == paths)
            continue
        expected = [path for path in paths if bool(re.search(pattern, path)) == wanted]
        assert len(jax.tree.leaves(adapting)) == len(expected) > 0
        assert len(jax.tree.leaves(shared)) == len(paths) - len(expected)
        assert jax.tree.structure(partition.merge(adapting, shared)) == jax.tree.structure(tree)


PLAIN = st.recursive(
    st.just(1.0), lambda inner: st.dictionaries(NAMES, inner, min_size=1, max_size=3), max_leaves=4
)
test_partitions, test_partitions_at_length = tried(20, 300, tree=PLAIN, pattern=PATTERNS)(
    partitions
)


# ---------------------------------------------------------------------------------------------
# Ragged tasks.

SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)


def ragged_tasks(shapes, as_list):
    def sampler(meta_params, key):
        arrays = [jnp.zeros(shape) + jax.random.uniform(key) for shape in shapes]
        if as_list:
            arrays[1] = list(arrays[1]) if arrays[1].ndim else [arrays[1]]
        return Task(Batch(*arrays[:2]), Batch(*arrays[2:]))

    pairs = shapes[:2], shapes[2:]
    fits = all(all(pair) and pair[0][:1] == pair[1][:1] for pair in pairs) and not as_list
    try:
        found = jax.eval_shape(lambda key: tasks.sample_tasks(sampler, None, key, 2), KEY)
    except ArgumentError as refused:
        assert not fits
        assert re.search("the (support|query) set", str(refused))  # noqa: PT017
        return
    assert fits
    assert [x.shape for x in jax.tree.leaves(found)] == [(2, *shape) for shape in shapes]


test_ragged_tasks, test_ragged_tasks_at_length = tried(
    15, 300, shapes=st.tuples(SHAPES, SHAPES, SHAPES, SHAPES), as_list=st.booleans()
)(ragged_tasks)


# ---------------------------------------------------------------------------------------------
# Simulators and policies.

VALUES = {
    "observation": [jnp.ones(2), jnp.ones(2, int), np.ones(2), jnp.ones((2, 1)), jnp.ones(3), 1.0,
                    {"a": jnp.ones(2)}, [1.0, 1.0], "x", None],
    "reward": [0.0, 1, jnp.zeros(()), np.float32(1), jnp.zeros(1), None, "x", True],
    "done": [False, jnp.array(True), 0.0, 1, jnp.zeros(1, bool), None, "x"],
    "physics": [(), jnp.zeros(()), 0, {"a": 1.0}, jnp.zeros((0,))],
}  # fmt: skip
GOOD = {"observation": 3, "reward": 4, "done": 4, "physics": 5}
"""How many of the values, from the first, are fit for a state. A boolean reward is a number."""
POLICY = models.gaussian_policy(2, hidden=())
PARAMS = POLICY.init(KEY, jnp.zeros((1, 2)))
STATES = st.fixed_dictionaries({name: st.integers(0, len(x) - 1) for name, x in VALUES.items()})


def simulators(first, later):
    def state(choice):
        return rl.EnvState(**{name: VALUES[name][index] for name, index in choice.items()})

    env = rl.Env(lambda key: (), lambda *_: state(first), lambda *_: state(later), 2, 2)

    def roll(key):
        return rl.rollout(env, POLICY.apply, PARAMS, (), key, episodes=3, horizon=4)

    good = all(
        choice[name] < GOOD[name] or (name == "reward" and choice[name] == 7)
        for choice in (first, later)
        for name in VALUES
    )
    # What a simulator carries may be of any kind, but stays of it.
    carried = [VALUES["physics"][choice["physics"]] for choice in (first, later)]
    kinds = [jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), x) for x in carried]
    good = good and kinds[0] == kinds[1]
    try:
        found = jax.eval_shape(roll, KEY)
    except ArgumentError as refused:
        assert not good, refused  # noqa: PT017
        assert re.search(r"env\.(reset|step)", str(refused))  # noqa: PT017
        return
    assert good
    assert found.observations.shape == (3, 4, 2)
    assert all(jnp.issubdtype(x.dtype, jnp.floating) for x in found[:4])


test_simulators, test_simulators_at_length = tried(15, 300, first=STATES, later=STATES)(simulators)


HORIZON = 6
BAD = st.lists(st.sampled_from([0.0, 0.0, 0.0, np.nan, np.inf, -np.inf]),
               min_size=HORIZON + 1, max_size=HORIZON + 1)  # fmt: skip


@jax.jit
def scripted(observed, earned):
    """Episodes whose observations and rewards are off by what is given, step by step."""

    def at(time):
        return rl.EnvState(time, jnp.ones(2) + observed[time], 1.0 + earned[time], False)

    env = rl.Env(lambda key: (), lambda *_: at(0), lambda task, s, action: at(s.physics + 1), 2, 2)
    found = rl.rollout(env, POLICY.apply, PARAMS, (), KEY, episodes=2, horizon=HORIZON)
    batch = experience(found)
    policy = POLICY.apply(PARAMS, batch.inputs)
    told = (rl.losses.mean_return, rl.losses.broken_episodes, rl.losses.reinforce)
    return found, [f(policy, batch.targets) for f in told]


def numbers_that_are_not_finite(observed, earned):
    found, (earned_mean, broken, loss) = scripted(*map(np.float32, (observed, earned)))
    begins_broken = not math.isfinite(observed[0])
    steps = 0
    while not begins_broken and steps < HORIZON:
        if not (math.isfinite(observed[steps + 1]) and math.isfinite(earned[steps + 1])):
            break
        steps += 1
    np.testing.assert_array_equal(found.valid.sum(1), [steps] * 2)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))
    assert broken == (2 if steps < HORIZON else 0)
    # All episodes are alike: broken ones leave no return at all.
    assert earned_mean == steps if steps == HORIZON else np.isnan(earned_mean)
    assert np.isfinite(loss) == (steps > 0)


test_numbers_that_are_not_finite, test_numbers_that_are_not_finite_at_length = tried(
    15, 300, observed=BAD, earned=BAD
)(numbers_that_are_not_finite)
