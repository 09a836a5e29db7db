"""What adaptation gained, with intervals."""

import numpy as np
import pytest

from experiments.meta_rl import gains
from mamljax.evaluate import summarise


def scores_of(**values):
    return {name: summarise(np.array(x), np.zeros_like(x)) for name, x in values.items()}


def test_the_gap_is_measured_from_each_methods_own_start():
    scores = scores_of(maml=[[-40.0, -11.5, -2.0]], oracle=[[-2.0]])
    only = {"mean": [0.75, 1.0], "ci95": [[0.75, 0.75], [1.0, 1.0]]}
    assert gains.gap_closed(scores) == {"maml": only}
    assert gains.gap_closed({"maml": scores["maml"]}) == {}
    broken = scores_of(maml=[[-40.0, np.nan]], oracle=[[-2.0]])
    assert gains.gap_closed(broken) == {}


def test_the_interval_of_the_gap_covers_the_truth_as_often_as_it_says():
    """Of tasks whose returns are drawn, it holds the ratio of the true means in 95 of 100 cases."""
    rng, covered = np.random.default_rng(1), []
    for _ in range(200):
        start = rng.normal(-40, 5, 40)
        step, best = start + rng.normal(15, 8, 40), start + rng.normal(30, 8, 40)
        scores = scores_of(maml=np.stack([start, step], axis=1), oracle=best[:, None])
        ((low, high),) = gains.gap_closed(scores)["maml"]["ci95"]
        covered.append(low <= 0.5 <= high)
    assert 0.89 <= np.mean(covered) <= 0.99


def test_a_gain_is_that_of_each_task_over_itself():
    values = np.array([[-40.0, -38.0, -39.0], [5.0, 7.0, 10.0]])
    scores = {"maml": summarise(values, -values), "oracle": summarise(values[:, :1], values[:, :1])}
    found = gains.by_step(scores)
    assert list(found) == ["maml"]
    assert found["maml"]["mean"] == [2.0, 3.0]
    assert found["maml"]["ci95"] == pytest.approx([0.0, 1.96 * 2.0 / np.sqrt(2)])
    broken = np.array([[0.0, np.nan]])
    assert gains.by_step({"maml": summarise(broken, broken)}) == {}
