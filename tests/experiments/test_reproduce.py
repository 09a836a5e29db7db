"""The command that works through the paper's rows."""

import json
import signal
import subprocess
import sys
import time

import pytest

from configs.paper import ROWS
from experiments import reproduce, results
from experiments.reproduction import standing, work
from experiments.reproduction.places import Places


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """Seeds in the order in which they were trained; each leaves a report of its full length."""
    order = []

    def train(row, seed, places, deadline, nice):
        order.append((row.name, seed))
        workdir = places.workdir(row, seed)
        workdir.mkdir(parents=True)
        told = {"maml": {"iterations": standing._goal(row)}}
        record = {"experiment": row.name, "seed": seed, "train": told, "results": []}
        (workdir / "report.json").write_text(json.dumps(record))
        return True

    monkeypatch.setattr(work, "train", train)
    monkeypatch.setattr(results, "main", lambda: order.append("pages"))
    return order


def test_rows_are_trained_in_order_once_and_published(trained, tmp_path, capsys):
    places = Places(tmp_path / "results", tmp_path / "runs", tmp_path / "data")
    rows = reproduce.chosen("sinusoid/f,omniglot/5way1shot_d")
    reproduce.train(rows, places, hours=1.0, nice=0)
    assert trained == [("sinusoid/fomaml", 0), "pages", ("sinusoid/fomaml", 1), "pages",
                       ("sinusoid/fomaml", 2), "pages"]  # fmt: skip
    assert "omniglot/5way1shot_dense: passed over, there is no folder" in capsys.readouterr().err
    (tmp_path / "data" / "omniglot").mkdir(parents=True)
    reproduce.train(rows, places, hours=1.0, nice=0)
    assert trained[6:] == [x for s in range(3) for x in (("omniglot/5way1shot_dense", s), "pages")]


def test_a_row_waits_for_the_network_that_it_tests(trained, tmp_path, capsys):
    places = Places(tmp_path / "results", tmp_path / "runs", tmp_path / "data")
    (tmp_path / "data" / "omniglot").mkdir(parents=True)
    rows = reproduce.chosen("omniglot/5way5shot_siamese")
    reproduce.train(rows, places, hours=1.0, nice=0)
    assert trained == []
    told = capsys.readouterr().err
    assert "5way5shot_siamese: passed over, it tests omniglot/5way1shot_siamese" in told
    weights = places.weights(rows[0])
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    reproduce.train(rows, places, hours=1.0, nice=0)
    assert trained == [("omniglot/5way5shot_siamese", 0), "pages"]


def test_an_error_in_one_row_lets_the_others_go_on(trained, monkeypatch, tmp_path, capsys):
    places = Places(tmp_path / "results", tmp_path / "runs", tmp_path / "data")
    good = work.train

    def train(row, seed, *rest):
        if seed == 1:
            raise RuntimeError("error: a loss is not finite")
        return good(row, seed, *rest)

    monkeypatch.setattr(work, "train", train)
    with pytest.raises(RuntimeError, match=r"see above: sinusoid/fomaml, seed 1$"):
        reproduce.train(reproduce.chosen("sinusoid/fomaml"), places, hours=1.0, nice=0)
    assert [step for step in trained if step != "pages"] == [
        ("sinusoid/fomaml", 0), ("sinusoid/fomaml", 2)
    ]  # fmt: skip
    assert "sinusoid/fomaml, seed 1: error: a loss is not finite" in capsys.readouterr().err


def test_nothing_begins_after_the_deadline(trained, tmp_path, capsys):
    places = Places(tmp_path / "results", tmp_path / "runs", tmp_path / "data")
    reproduce.train(ROWS, places, hours=-1.0, nice=0)
    assert trained == []
    assert capsys.readouterr().err == ""  # nor is anything passed over


def test_rows_are_chosen_by_how_they_begin():
    assert {row.name.split("/")[0] for row in reproduce.chosen("miniimagenet")} == {"miniimagenet"}
    assert reproduce.chosen("") == list(ROWS)
    with pytest.raises(ValueError, match=r"--only=omniglut: no row begins so; there are sinusoid/"):
        reproduce.chosen("omniglut")


def test_status_tells_of_every_row(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    reproduce.main(["--status"])
    printed = capsys.readouterr().out
    for row in ROWS:
        assert row.name in printed
    assert "omniglot: " in printed


def test_verification_fails_where_a_number_does_not_hold(monkeypatch, capsys):
    row = ROWS[0]
    monkeypatch.setattr(work, "verify", lambda *_: work.Verified(row, 0.9, 0.0, 0.9))
    with pytest.raises(SystemExit) as ended:
        reproduce.main(["--verify", "--only=sinusoid/maml"])
    assert ended.value.code == 0
    monkeypatch.setattr(work, "verify", lambda *_: work.Verified(row, 0.9, 0.0, 0.8))
    with pytest.raises(SystemExit) as ended:
        reproduce.main(["--verify", "--only=sinusoid/maml"])
    assert ended.value.code == 1
    assert "NO" in capsys.readouterr().out
    monkeypatch.setattr(work, "verify", lambda *_: None)
    with pytest.raises(SystemExit, match="no weights are published"):
        reproduce.main(["--verify", "--only=sinusoid/maml"])


STOPPED = """
import signal
import sys
from experiments import reproduce
from experiments.reproduction import standing, work

trained = '''
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("saved")))
print("begun", flush=True)
time.sleep(60)
'''
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what runs in the background
standing.is_done = lambda *_: False
work.words = lambda *_: ["-c", trained]
reproduce.main(["--only=sinusoid/fomaml", "--runs=" + sys.argv[1]])
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_to_training(tmp_path, number):
    (tmp_path / "stopped.py").write_text(STOPPED)
    command = [sys.executable, str(tmp_path / "stopped.py"), str(tmp_path / "runs")]
    environment = work._environment()
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    logs, deadline = [], time.monotonic() + 60
    while not any("begun" in log.read_text() for log in logs):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
        logs = list((tmp_path / "runs").rglob("log.txt"))
    process.send_signal(number)
    _, told = process.communicate(timeout=30)
    assert logs[0].read_text() == "begun\nsaved\n"
    assert "Stopped. The same command goes on" in told
    assert process.returncode == 1
