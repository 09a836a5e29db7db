"""The rates of simulation, side by side."""

import jax
import numpy as np
import pytest

from experiments.benchmark import simulation
from experiments.benchmark.measure import Options
from mamljax import rl
from mamljax.rl.lanes import on_lanes


@pytest.mark.slow
def test_rows_of_a_robot():
    rows = simulation.rates("ant_direction", Options(0.01, 1), episodes=2, horizon=2)
    assert [row["form"] for row in rows] == [
        "Brax's clock", "the paper's clock", "the paper's clock, on lanes",
    ]  # fmt: skip
    assert min(row["env_steps_per_second"] for row in rows) > 0
    assert rows[-1]["on_lanes_is_times_faster"] == 1


def test_all_forms_simulate_the_same():
    env = rl.navigation()
    found = [
        simulation.simulate(env, step, 3, 4, jax.random.key(0))
        for step in (env.step, on_lanes(env.step))
    ]
    assert found[0].shape == (4, 3)
    np.testing.assert_allclose(*found, rtol=1e-5)
