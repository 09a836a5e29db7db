"""The sinusoid experiment from the command line: report, figures, kills, variants."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mamljax import files

ROOT = Path(__file__).parents[2]
TINY = (
    "--config.train.num_iterations=3000",
    "--config.train.inner_lr=0.01",  # learns more in few iterations than the default
    "--config.evaluate.inner_lr=0.01",
    "--config.log.every=100",
    "--config.log.checkpoint_every=200",
    "--config.evaluate.num_tasks=30",
    "--config.evaluate.shots=(5, 10)",
    "--config.tune.num_tasks=20",
    "--config.tune.candidates=(0.001, 0.01)",
)


def command(workdir, *options, variant=""):
    config = f"--config=configs/sinusoid.py{variant}"
    return [sys.executable, "-m", "experiments.sinusoid", config, f"--workdir={workdir}", *options]


def finish(workdir, *options, variant=""):
    done = subprocess.run(
        command(workdir, *options, variant=variant), cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads((workdir / "report.json").read_text())


def kill_after(workdir, run):
    """Start, and kill -9 once `run` has written its first checkpoint."""
    process = subprocess.Popen(command(workdir, *TINY), cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not any((workdir / "checkpoints" / run).glob("0*")):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (workdir / "report.json").exists()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    return workdir, *finish(workdir, *TINY)


def test_the_report_has_the_agreed_form_and_every_method(undisturbed):
    workdir, printed, report = undisturbed
    assert {(row["method"], row["setting"]) for row in report["results"]} == {
        (method, setting)
        for method in ("maml", "pretrain", "oracle")
        for setting in ("5-shot", "10-shot")
    }
    for row in report["results"]:
        assert row["steps"] == list(range(11))
        for key in ("mean", "ci95", "std", "median"):
            assert len(row[key]) == 11
        assert row["num_tasks"] == 30
        assert (row["paper"] is None) == (row["method"] == "oracle" or row["setting"] == "10-shot")
    assert report["train"]["maml"]["iterations"] == 3000
    assert report["train"]["maml"]["iterations_per_second"] > 0
    assert report["config"]["evaluate"]["shots"] == [5, 10]
    assert "python -m experiments.sinusoid --config=configs/sinusoid.py" in report["command"]
    assert "maml" in printed
    assert (workdir / "report.md").read_text().count("| 5-shot |") == 3
    for name in ("figure2", "figure3", "figure6", "figure7"):
        assert (workdir / "figures" / f"{name}.png").stat().st_size > 20_000
    assert list((workdir / "tensorboard" / "maml").iterdir())
    lines = [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [x["step"] for x in lines if x["run"] == "maml"] == list(range(100, 3001, 100))


def test_learning_happens_and_the_oracle_is_best(undisturbed):
    rows = {(r["method"], r["setting"]): r["mean"] for r in undisturbed[2]["results"]}
    assert rows["maml", "10-shot"][10] < 0.7 * rows["maml", "10-shot"][0]
    assert (
        rows["oracle", "10-shot"][0] < rows["maml", "10-shot"][10] < rows["pretrain", "10-shot"][10]
    )


def test_killed_runs_finish_with_the_results_of_an_undisturbed_one(undisturbed, tmp_path):
    kill_after(tmp_path, "maml")
    kill_after(tmp_path, "pretrain")
    _, report = finish(tmp_path, *TINY)
    assert report["results"] == undisturbed[2]["results"]
    assert report["details"] == undisturbed[2]["details"]
    for setting, losses in report["details"]["loss_by_inner_lr"]["pretrain"].items():
        best = report["details"]["inner_lr"]["pretrain"][setting]
        assert losses[str(best)] == min(losses.values())
    ours, theirs = (
        [(x["run"], x["step"], x["loss"]) for x in map(json.loads, path.read_text().splitlines())]
        for path in (tmp_path / "metrics.jsonl", undisturbed[0] / "metrics.jsonl")
    )
    assert ours == theirs


def test_weights_are_tested_without_training(undisturbed, tmp_path):
    workdir, _, report = undisturbed
    weights = workdir / "model.npz"
    _, again = finish(tmp_path, *TINY, f"--config.weights.test={weights}")
    assert again["results"] == report["results"]
    assert again["details"] == report["details"]
    imported = {"imported": str(weights), "sha256": files.digest(weights)}
    assert again["train"] == {n: told | imported for n, told in report["train"].items()}
    assert not (tmp_path / "checkpoints").exists()


def test_resuming_with_another_config_is_refused_in_one_line(undisturbed):
    changed = command(undisturbed[0], *TINY, "--config.train.inner_lr=0.02")
    done = subprocess.run(changed, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "train.inner_lr: saved 0.01, now 0.02" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_table2_adds_the_averaging_baselines(tmp_path):
    options = (
        *TINY,
        "--config.train.num_iterations=100",
        "--config.averaging.num_regressors=6",
        "--config.averaging.sweep_regressors=3",
        "--config.averaging.num_steps=300",
        "--config.averaging.strengths=(0.0001, 0.001)",
    )
    _, report = finish(tmp_path, *options, variant=":table2")
    methods = {"multitask", "multitask_l2", "multitask_mean"}
    assert methods < {row["method"] for row in report["results"]}
    assert report["details"]["averaging"].keys() == methods
    for chosen in report["details"]["averaging"].values():
        assert chosen["max_error"] >= chosen["mean_error"] > 0
    assert set(report["details"]["averaging"]["multitask_l2"]["sweep"]) == {"0.0001", "0.001"}
    weights = f"--config.weights.test={tmp_path / 'model.npz'}"
    _, again = finish(tmp_path / "again", *options, weights, variant=":table2")
    assert again["results"] == report["results"]
    assert again["details"] == report["details"]
    assert again["train"]["multitask"].keys() == {"imported", "sha256"}


@pytest.mark.slow
def test_fomaml_trains_another_network(undisturbed, tmp_path):
    _, report = finish(tmp_path, *TINY, variant=":fomaml")
    rows = {(r["method"], r["setting"]): r["mean"] for r in report["results"]}
    baseline = {(r["method"], r["setting"]): r["mean"] for r in undisturbed[2]["results"]}
    assert rows["fomaml", "10-shot"] != baseline["maml", "10-shot"]
    assert rows["fomaml", "10-shot"][10] < 0.8 * rows["fomaml", "10-shot"][0]
    assert rows["pretrain", "10-shot"] == baseline["pretrain", "10-shot"]  # the same run
