"""The command ``mamljax``, a front to the experiments."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def call(*words, cwd=ROOT):
    command = [sys.executable, "-m", "mamljax", *map(str, words)]
    own = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    return subprocess.run(command, cwd=cwd, env=own, capture_output=True, text=True)


def test_without_a_command_it_says_what_there_is():
    said = call().stdout
    for command in ("train", "evaluate", "report", "data", "benchmark"):
        assert f"mamljax {command} " in said


def test_versions_are_told():
    said = call("--version").stdout
    assert said.startswith(
        f"mamljax {metadata.version('mamljax')}, jax {metadata.version('jax')}, "
    )


def test_help_needs_no_checkout(tmp_path):
    done = call("train", "sinusoid:quick", "-h", cwd=tmp_path)
    assert "--config.train.num_iterations=10000" in done.stdout, done.stderr
    assert "Variants" in done.stdout
    assert call("data", "--help", cwd=tmp_path).stdout.startswith("usage: mamljax data ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "no command 'trian'; there are train, .*Did you mean train?"),
        (["train", "omniglt"], "no experiment 'omniglt'.*Did you mean omniglot?"),
        (["train", "sinusoid:quik"], "Did you mean 'quick'?"),
        (["evaluate", "omniglot"], "needs a file of weights"),
        (["evaluate", "omniglot", "none.npz"], "there is no file none.npz"),
        (["data", "omniglot", "--dir=nowhere"], "nowhere"),
        (["report", "nowhere"], "nowhere is not the report of a run"),
        (["benchmark", "sinusiod"], "sinusiod"),
    ],
    ids=str,
)
def test_what_is_wrong_is_refused_in_a_line(words, message):
    done = call(*words)
    assert done.returncode in (1, 2)
    first, *hints = message.split(".*")
    assert first in done.stderr
    assert all(hint in done.stderr for hint in hints)
    assert "Traceback" not in done.stderr


def test_experiments_are_listed_and_no_other_module():
    said = call("train")
    assert said.returncode == 2
    lines = said.stdout.splitlines()
    names = [line.split()[0] for line in lines if line[:4] == " " * 4 != line[4:8]]
    assert names == [
        "cifar_fs", "cub", "locomotion", "miniimagenet", "navigation", "omniglot", "sinusoid",
        "tieredimagenet",
    ]  # fmt: skip
    assert call("train", "--help").returncode == 0


def test_from_training_to_the_merged_report(tmp_path, small):
    for seed in (0, 1):
        done = call(
            "train", "sinusoid", f"--workdir={tmp_path / f'seed{seed}'}", *small,
            f"--config.seed={seed}",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "seed1" / "report.json").read_text())
    assert report["command"].startswith("mamljax train sinusoid --workdir=")
    runs = sorted(tmp_path.glob("seed*"))
    done = call("report", *runs, f"--output={tmp_path / 'summary'}")
    assert done.returncode == 0, done.stderr
    assert "mean over seeds [0, 1]" in " ".join(done.stdout.split())
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "mean over seeds [0, 1]" in (tmp_path / "summary" / "summary.md").read_text()
    assert (tmp_path / "summary" / "sinusoid_0.png").stat().st_size > 10_000


def test_an_image_set_is_prepared_and_described(tmp_path):
    sheet = tmp_path / "sheet.png"
    done = call("data", "glyphs", f"--cache={tmp_path / 'cache'}", f"--sheet={sheet}")
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout
    assert "28 x 28 x 1" in done.stdout
    assert list((tmp_path / "cache").iterdir())
    assert sheet.stat().st_size > 10_000
