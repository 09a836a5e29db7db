"""Merging seeds: means, ranges, and what diverged stays visible."""

import numpy as np
import pytest

from experiments import summary


def report(seed, *means, diverged=0, experiment="sinusoid"):
    row = {
        "method": "maml",
        "setting": "5-shot",
        "steps": [0, 1],
        "mean": list(means),
        "ci95": [0.3, 0.4],
        "num_tasks": 600,
        "num_diverged": diverged,
        "paper": {"steps": [1], "mean": [0.67]},
    }
    return {"experiment": experiment, "seed": seed, "results": [row]}


def test_a_row_has_mean_range_paper_and_diverged_tasks():
    text = summary.table([report(0, 3.0, 0.5), report(1, 4.0, 0.7, diverged=2)])
    assert "| 3.5 ± 0.21 (3 to 4) | 0.6 ± 0.28 (0.5 to 0.7) **0.67** | 2/1200 |" in text


def test_a_mean_lost_to_divergence_is_not_averaged_away():
    text = summary.table([report(0, 3.0, 0.5), report(1, 4.0, None)])
    assert "| nan ± 0.28 (nan to nan) **0.67** |" in text


@pytest.mark.parametrize("other", [report(0, 1.0, 1.0), report(1, 1.0, 1.0, experiment="omniglot")])
def test_what_does_not_belong_together_is_refused(other):
    with pytest.raises(ValueError, match="one report per seed"):
        summary.table([report(0, 3.0, 0.5), other])


def test_a_method_that_takes_no_steps_leaves_the_others_columns_empty():
    oracle = {"method": "oracle", "steps": [0], "mean": [-2.0], "ci95": [0.1], "paper": None}
    first = report(0, -40.0, -11.0)
    first["results"].append(first["results"][0] | oracle)
    text = summary.table([first])
    assert "| oracle | 5-shot | -2 ± 0.1 |  | 0/600 |" in text


def test_reports_that_differ_in_the_seed_alone_go_together():
    def of(seed, steps, experiment="sinusoid"):
        return report(seed, 1.0, 2.0, experiment=experiment) | {
            "config": {"seed": seed, "train": {"steps": steps}}
        }

    reports = [of(0, 1), of(0, 5), of(1, 1), of(1, 1, "omniglot")]
    assert summary.groups(reports) == [[reports[0], reports[2]], [reports[1]], [reports[3]]]


def test_curves_are_means_over_seeds_beside_the_papers():
    found = [report(seed, 3.0 + seed, 0.5) for seed in (0, 1)]
    curve = summary.curves(found)["5-shot"]["maml"]
    np.testing.assert_allclose(curve.mean, [3.5, 0.5])
    np.testing.assert_allclose(curve.ci95, np.array([0.3, 0.4]) / np.sqrt(2))
    assert curve.published == {1: 0.67}


@pytest.mark.parametrize("text", ["{", "[]", '{"parts": {}}'])
def test_what_is_no_report_is_refused(tmp_path, text):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(ValueError, match=r"report\.json (is not the report|holds no results)"):
        summary.read([str(tmp_path)])
