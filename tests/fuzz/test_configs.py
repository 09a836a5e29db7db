"""Whatever the numbers of a config are: refused by name before training, or a run that ends."""

import functools
import math

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs import locomotion, miniimagenet, navigation, omniglot, sinusoid
from configs.base import ranges
from experiments.harness.config import check
from experiments.sinusoid import run
from mamljax.checks import ArgumentError

pytestmark = pytest.mark.slow

CONFIGS = {
    "sinusoid": functools.partial(sinusoid.get_config, "table2"),
    "omniglot": functools.partial(omniglot.get_config, "20way1shot"),
    "miniimagenet": functools.partial(miniimagenet.get_config, "5way1shot"),
    "navigation": navigation.get_config,
    "locomotion": functools.partial(locomotion.get_config, "ant_direction"),
}
SMALL = {
    "train.num_iterations": 4,
    "log.every": 2,
    "log.checkpoint_every": 2,
    "evaluate.num_tasks": 4,
    "evaluate.shots": (5,),
    "evaluate.queries": 3,
    "evaluate.num_inner_steps": 2,
    "tune.num_tasks": 4,
    "tune.candidates": (0.01,),
}
JUNK = {
    int: st.one_of(st.integers(-3, 3), st.just(-(10**30))),
    float: st.one_of(
        st.sampled_from([math.nan, math.inf, -math.inf, -1.0, 0.0, 1e-300, 1e300]),
        st.floats(-2.0, 2.0, width=32),
    ),
}


def with_values(config, values):
    for name, value in values.items():
        section, _, last = name.rpartition(".")
        (config[section] if section else config)[last] = value
    return config


def range_of(config, name):
    return dict(ranges.fields(config))[name]


def junk_for(value):
    if isinstance(value, bool) or not isinstance(value, (int, float, tuple)):
        return None
    if isinstance(value, tuple):
        return st.lists(JUNK[type(value[0]) if value else float], max_size=3).map(tuple)
    return JUNK[type(value)]


LEAVES = [
    (experiment, name, junk)
    for experiment, get_config in CONFIGS.items()
    for name, value in flatten_dict(get_config().to_dict(), sep=".").items()
    if (junk := junk_for(value)) is not None
]


SINUSOID = {name: junk for experiment, name, junk in LEAVES if experiment == "sinusoid"}


@pytest.mark.parametrize(
    ("experiment", "name", "junk"), [pytest.param(*x, id=f"{x[0]}-{x[1]}") for x in LEAVES]
)
@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_numbers_out_of_range_are_refused_by_name(experiment, name, junk, data):
    value = data.draw(junk)
    config = with_values(CONFIGS[experiment](), {name: value})
    numbers = value if isinstance(value, tuple) else (value,)
    try:
        check(config)
    except ValueError as error:
        assert str(error).startswith(f"--config.{name}={value!r}: must be ")  # noqa: PT017
        return
    assert all(math.isfinite(x) for x in numbers)
    assert type(range_of(config, name)) is ranges.Range or all(x >= 0 for x in numbers)


@pytest.mark.filterwarnings("ignore")  # NumPy and jax warn of overflows
@pytest.mark.parametrize(
    "name", [name for experiment, name, _ in LEAVES if experiment == "sinusoid"]
)
@settings(
    max_examples=3, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(data=st.data())
def test_what_is_not_refused_trains_or_ends_in_a_line(
    record_property, tmp_path_factory, name, data
):
    values = SMALL | {name: data.draw(SINUSOID[name])}
    config = with_values(sinusoid.get_config("quick"), values)
    record_property("junk config values", 1)
    try:
        check(config)
    except ValueError:
        return
    try:
        found = run(config, tmp_path_factory.mktemp("run"))
    except ArgumentError as refused:
        assert str(refused)  # noqa: PT017
    except FloatingPointError as diverged:
        assert "not finite" in str(diverged)  # noqa: PT017
    else:
        assert np.shape(found["results"][0]["mean"])
