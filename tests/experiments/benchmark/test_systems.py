"""What every system of table 1 costs to train."""

import functools

from configs import omniglot, paper
from experiments.benchmark import steps, systems
from experiments.benchmark.measure import Options


def test_every_image_row_that_trains_a_network_is_measured():
    measured = systems.measured(Options(seconds=3.0))
    assert set(measured) == {row.name for row in paper.ROWS if row.data and not row.network}
    every = {name: part.args[0].log.every for name, part in measured.items()}
    assert every["omniglot/5way1shot_lstm"] < every["omniglot/5way1shot"]
    assert min(every.values()) >= 1


def test_hours_are_those_of_all_iterations():
    config = omniglot.get_config("5way1shot_dense")
    config.train.meta_batch, config.log.every = 2, 2
    images = functools.partial(steps.noise, (28, 28, 1))
    row = systems.training(config, images, 2)
    assert row["iterations"] == 60_000
    assert row["hours"] > 0
    assert abs(row["hours"] - 60_000 * row["milliseconds"] / 3.6e6) < 1e-12
