"""Merging seeds: means, ranges, and what diverged stays visible."""

import csv

import numpy as np
import pytest

from experiments import summary
from mamljax import files
from mamljax.checks import ArgumentError
from mamljax.evaluate import summarise
from mamljax.running import plots
from mamljax.running import report as reports
from mamljax.running.paired import paired
from mamljax.running.table import markdown_lines, print_table


def report(seed, *means, diverged=0, experiment="sinusoid"):
    row = {
        "method": "maml",
        "setting": "5-shot",
        "metric": "mse",
        "steps": [0, 1],
        "mean": list(means),
        "ci95": [0.3, 0.4],
        "num_tasks": 600,
        "num_diverged": diverged,
        "paper": {"steps": [1], "mean": [0.67]},
    }
    return {"experiment": experiment, "seed": seed, "results": [row]}


def swept(seed, inner_lr, *means):
    """A run of a sweep: the test's step size follows that of training, as in the configs."""
    sections = {
        "train": {"inner_lr": inner_lr, "steps": (1, 2)},
        "evaluate": {"inner_lr": inner_lr},
    }
    return report(seed, *means) | {"config": {"seed": seed, **sections}}


SWEEP = [swept(s, lr, 3.0, lr + s) for lr in (0.1, 0.2) for s in (0, 1)]


def test_what_differs_between_runs_becomes_columns_and_seeds_are_pooled():
    found = reports.table(SWEEP)
    assert found.header[:4] == ["inner_lr", "seeds", "method", "setting"]
    assert [line[:4] for line in found.cells] == [
        ["0.1", "0 1", "maml", "5-shot"],
        ["0.2", "0 1", "maml", "5-shot"],
    ]
    assert "0.6 ± 0.28 (0.1 to 1.1) **0.67**" in found.cells[0]
    alone = reports.table(SWEEP[:2])
    assert alone.header[:2] == ["method", "setting"]  # nothing differs but the seed
    assert "mean over seeds [0, 1]" in alone.note


def test_names_that_would_be_taken_for_others_are_whole():
    first, second = report(0, 1.0, 1.0), report(0, 1.0, 1.0)
    first["config"] = {"train": {"method": "maml", "lr": 1}, "tune": {"lr": 3}}
    second["config"] = {"train": {"method": "fomaml", "lr": 2}, "tune": {"lr": 4}, "new": None}
    assert reports.table([first, second]).header[:4] == [
        "train.method",
        "train.lr",
        "tune.lr",
        "seeds",
    ]


def test_a_sweep_as_csv(tmp_path, capsys):
    for index, record in enumerate(SWEEP):
        (tmp_path / str(index)).mkdir()
        files.write_json(tmp_path / str(index) / "report.json", record)
    summary.main([*(str(tmp_path / str(index)) for index in range(4)), "--csv"])
    lines = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert len(lines) == 4 * 2  # runs and steps
    last = lines[-1]
    assert last["run"] == str(tmp_path / "3")
    numbers = {
        name: float(last[name]) for name in ("seed", "train.inner_lr", "step", "mean", "paper")
    }
    assert numbers == {"seed": 1, "train.inner_lr": 0.2, "step": 1, "mean": 1.2, "paper": 0.67}
    assert "evaluate.inner_lr" not in last  # the same as the other everywhere
    assert lines[0]["paper"] == ""


@pytest.mark.parametrize("width", [60, 80, 200])
def test_tables_fit_the_terminal(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    print_table(reports.table(SWEEP), title="sweep")
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= width
    assert "inner_lr" in said  # whole, where there is room for it
    assert "0.67" in said


def table(records):
    return "\n".join(markdown_lines(reports.table(records)))


def test_a_row_has_mean_range_paper_and_diverged_tasks():
    text = table([report(0, 3.0, 0.5), report(1, 4.0, 0.7, diverged=2)])
    assert "| 3.5 ± 0.21 (3 to 4) | 0.6 ± 0.28 (0.5 to 0.7) **0.67** | 2/1200 |" in text


def test_a_mean_lost_to_divergence_is_not_averaged_away():
    text = table([report(0, 3.0, 0.5), report(1, 4.0, None)])
    assert "| nan ± 0.28 (nan to nan) **0.67** |" in text


@pytest.mark.parametrize("other", [report(0, 1.0, 1.0), report(1, 1.0, 1.0, experiment="omniglot")])
def test_what_does_not_belong_together_is_refused(other):
    with pytest.raises(ValueError, match="one report per seed"):
        table([report(0, 3.0, 0.5), other])


def test_a_method_that_takes_no_steps_leaves_the_others_columns_empty():
    oracle = {"method": "oracle", "steps": [0], "mean": [-2.0], "ci95": [0.1], "paper": None}
    first = report(0, -40.0, -11.0)
    first["results"].append(first["results"][0] | oracle)
    text = table([first])
    assert "| oracle | 5-shot | -2 ± 0.1 |  | 0/600 |" in text


def test_reports_that_differ_in_the_seed_alone_go_together():
    def of(seed, steps, experiment="sinusoid"):
        return report(seed, 1.0, 2.0, experiment=experiment) | {
            "config": {"seed": seed, "train": {"steps": steps}}
        }

    found = [of(0, 1), of(0, 5), of(1, 1), of(1, 1, "omniglot")]
    assert reports.groups(found) == [[found[0], found[2]], [found[1]], [found[3]]]


def test_a_value_that_an_earlier_version_did_not_have_is_no_difference_where_it_is_off():
    def of(seed, **more):
        return report(seed, 1.0, 2.0) | {"config": {"seed": seed, "train": {"steps": 1, **more}}}

    off = [of(0), of(1, clip=0.0), of(2, clip=0.0, weights={"start": ""})]
    assert reports.groups(off) == [off]
    assert reports.differences(off) == {}
    found = [of(0), of(1, clip=0.5)]
    assert reports.groups(found) == [found[:1], found[1:]]
    assert reports.differences(found) == {"train.clip": [None, 0.5]}


def test_curves_are_means_over_seeds_beside_the_papers():
    found = [report(seed, 3.0 + seed, 0.5) for seed in (0, 1)]
    curve = plots.curves(found)["5-shot"]["maml"]
    np.testing.assert_allclose(curve.mean, [3.5, 0.5])
    np.testing.assert_allclose(curve.ci95, np.array([0.3, 0.4]) / np.sqrt(2))
    assert curve.published == {1: 0.67}


@pytest.mark.parametrize("text", ["{", "[]", '{"parts": {}}'])
def test_what_is_no_report_is_refused(tmp_path, text):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(ValueError, match=r"report\.json (is not the report|holds no results)"):
        reports.read([str(tmp_path)])


def run_of(workdir, scores, method="maml"):
    """A work directory with the report of one method, from scores by task ``[T, S + 1]``."""
    workdir.mkdir()
    config = {"seed": 0, "evaluate": {"num_tasks": len(scores)}, "train": {"lr": str(workdir)}}
    found = reports.Report(workdir, "sinusoid", config)
    found.add(method, "5-shot", "mse", summarise(scores, scores))
    found.publish({method: {"iterations": 1}}, {})
    return str(workdir)


def test_paired_differences_have_the_interval_of_the_differences(tmp_path, capsys):
    rng = np.random.default_rng(0)
    shared = 10 * rng.normal(size=(50, 3))  # tasks differ far more than runs do
    gain = np.array([0.0, 1.0, 2.0]) + 0.1 * rng.normal(size=(50, 3))
    first, second = run_of(tmp_path / "a", shared + gain), run_of(tmp_path / "b", shared)
    capsys.readouterr()
    summary.main([first, second, "--paired"])
    half = 1.96 * gain.std(axis=0) / np.sqrt(50)
    cells = " ".join(f"{m:+.3g} ± {h:.2g}" for m, h in zip(gain.mean(0), half, strict=True))
    assert f"maml 5-shot {cells}" in " ".join(capsys.readouterr().out.split())


def test_two_methods_are_compared_where_none_is_common(tmp_path, capsys):
    first = run_of(tmp_path / "a", np.ones((4, 2)))
    second = run_of(tmp_path / "b", np.zeros((4, 2)), method="fomaml")
    capsys.readouterr()
    summary.main([first, second, "--paired"])
    assert "maml - fomaml 5-shot +1 ± 0 +1 ± 0" in " ".join(capsys.readouterr().out.split())


def test_only_the_same_tasks_are_paired(tmp_path, capsys):
    runs = [run_of(tmp_path / "a", np.ones((4, 2))), run_of(tmp_path / "b", np.ones((5, 2)))]
    with pytest.raises(SystemExit):
        summary.main([*runs, "--paired"])
    assert "not tested on the same tasks" in capsys.readouterr().err
    (tmp_path / "a" / "tasks.npz").unlink()
    with pytest.raises(ArgumentError, match=r"a has no tasks\.npz"):
        paired(tmp_path / "a", tmp_path / "a")
    with pytest.raises(SystemExit):
        summary.main([runs[0], "--paired"])
    assert "compares two runs; got 1" in capsys.readouterr().err


def test_reports_of_earlier_versions_are_read(tmp_path):
    old = report(0, 1.0, 2.0) | {"train": {"iterations": 7}, "config": {"seed": 0}}
    files.write_json(tmp_path / "old.json", old)
    (found,) = reports.read([tmp_path / "old.json"])
    assert found["train"] == {"maml": {"iterations": 7}}
    both = {"maml": {"iterations": 7}, "oracle": {"iterations": 8}}
    files.write_json(tmp_path / "old.json", old | {"details": {"train": both}})
    assert reports.read([tmp_path / "old.json"])[0]["train"] == both
