"""How signal is told from noise."""

import math

import jax
import numpy as np
import pytest

from configs import navigation as navigation_config
from experiments.benchmark import gradients
from mamljax import rl

SIZE = gradients.Size(tasks=2, draws=3, batches=2)


def test_agreement_is_the_mean_cosine_of_pairs():
    vectors = np.array([[1.0, 0.0], [2.0, 2.0], [0.0, 3.0]])
    assert math.isclose(gradients.agreement(vectors), (2 * math.sqrt(0.5) + 0) / 3)


def test_gains_are_told_apart():
    slopes = np.array([[1.0, 0.0], [0.5, 2.0]])
    steps = np.array([[2.0, 0.0], [0.0, 1.0]])
    assert gradients.gains(slopes, steps) == ((2 + 2) / 2, (1 + 0) / 2)


@pytest.fixture
def small():
    """A config of navigation, its environment, and parameters to begin with."""
    config = navigation_config.get_config()
    config.model.hidden, config.env.horizon = (6,), 8
    config.train.meta_batch, config.train.episodes = 2, 6
    config.train.curvature_support = config.train.curvature_query = 0
    env = rl.navigation()
    method = gradients.methods.build(config, env, "maml")
    return config, env, gradients.methods.initial(method, jax.random.key(0))


def test_inner_steps_by_discount_and_lambda(small):
    rows = gradients.inner_steps(*small, SIZE)
    settings = {(row["discount"], row["lambda"]) for row in rows}
    assert len(rows) == len(settings) == len(gradients.DISCOUNTS) * len(gradients.LAMBDAS)
    assert all(-0.5 <= row["cosine"] <= 1 for row in rows)  # of three, at least -1/2
    assert len({row["return_after"] for row in rows}) == len(rows)
    assert all(row["return_after_the_mean"] < 0 for row in rows)  # distances to a goal


def test_outer_steps_gain_on_their_own_batch(small):
    config, env, params = small
    rows = gradients.outer_steps(config, env, params, 0.9, SIZE)
    assert [(row["iterations"], row["damping"]) for row in rows] == [*gradients.SEARCHES]
    assert config.train.gae_lambda == 1.0  # the config given is left as it is
    gained = [row["gain"] for row in rows]
    # Of all steps to the edge of the region the natural gradient gains most.
    assert 0 < gained[0] < gained[1] <= gained[2] * 1.001
    assert all(row["gain_on_others"] < row["gain"] for row in rows)
