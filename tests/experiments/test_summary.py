"""Merging seeds: means, ranges, and what diverged stays visible."""

import pytest

from experiments import summary


def report(seed, *means, diverged=0, experiment="sinusoid"):
    row = {
        "method": "maml",
        "setting": "5-shot",
        "steps": [0, 1],
        "mean": list(means),
        "num_tasks": 600,
        "num_diverged": diverged,
        "paper": {"steps": [1], "mean": [0.67]},
    }
    return {"experiment": experiment, "seed": seed, "results": [row]}


def test_a_row_has_mean_range_paper_and_diverged_tasks():
    text = summary.table([report(0, 3.0, 0.5), report(1, 4.0, 0.7, diverged=2)])
    assert "| maml | 5-shot | 3.5 (3 to 4) | 0.6 (0.5 to 0.7) **0.67** | 2/1200 |" in text


def test_a_mean_lost_to_divergence_is_not_averaged_away():
    text = summary.table([report(0, 3.0, 0.5), report(1, 4.0, None)])
    assert "| nan (nan to nan) **0.67** |" in text


@pytest.mark.parametrize("other", [report(0, 1.0, 1.0), report(1, 1.0, 1.0, experiment="omniglot")])
def test_what_does_not_belong_together_is_refused(other):
    with pytest.raises(ValueError, match="one report per seed"):
        summary.table([report(0, 3.0, 0.5), other])


def test_a_method_that_takes_no_steps_leaves_the_others_columns_empty():
    oracle = {"method": "oracle", "steps": [0], "mean": [-2.0], "paper": None}
    first = report(0, -40.0, -11.0)
    first["results"].append(first["results"][0] | oracle)
    text = summary.table([first])
    assert "| oracle | 5-shot | -2 |  | 0/600 |" in text
