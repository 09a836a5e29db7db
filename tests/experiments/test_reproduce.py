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


class Job:
    """Stands for training: it takes some looks, leaves a report of its full length, can fail."""

    looks = 1
    fails: tuple[tuple[str, int], ...] = ()
    order: list

    def __init__(self, row, seed, places, nice, memory):
        self.row, self.seed, self.memory, self.stopped = row, seed, memory, False
        self._workdir, self._left = places.workdir(row, seed), self.looks
        self.name = f"{row.name}, seed {seed}"
        self.order.append((row.name, seed))

    def finished(self):
        self._left -= 1
        if self.stopped:
            return False
        if self._left > 0:
            return None
        if (self.row.name, self.seed) in self.fails:
            raise RuntimeError("error: a loss is not finite")
        self._workdir.mkdir(parents=True)
        told = {"maml": {"iterations": standing._goal(self.row)}}
        record = {"experiment": self.row.name, "seed": self.seed, "train": told, "results": []}
        (self._workdir / "report.json").write_text(json.dumps(record))
        (self._workdir / "model.npz").write_bytes(b"weights")
        return True

    def stop(self):
        self.stopped = True


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """Seeds in the order in which they were begun, "pages" where one was done."""
    order: list = []
    monkeypatch.setattr(Job, "order", order, raising=False)
    monkeypatch.setattr(work, "Job", Job)
    monkeypatch.setattr(results, "main", lambda: order.append("pages"))
    monkeypatch.setattr(reproduce, "POLL_SECONDS", 0)
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


def test_rows_are_trained_side_by_side_but_for_one_that_tests_another(
    trained, monkeypatch, tmp_path
):
    places = Places(tmp_path / "results", tmp_path / "runs", tmp_path / "data")
    (tmp_path / "data" / "omniglot").mkdir(parents=True)
    monkeypatch.setattr(Job, "looks", 3)
    siamese, other, third = (
        f"omniglot/{name}"
        for name in ("5way1shot_siamese", "5way5shot_siamese", "5way1shot_statistician")
    )
    rows = reproduce.chosen(f"{siamese},{other},{third}")
    reproduce.train(rows, places, hours=1.0, nice=0, at_once=2)
    assert trained == [(siamese, 0), (third, 0), "pages", "pages", (other, 0), "pages"]


@pytest.mark.parametrize(("at_once", "memory"), [(1, "all"), (2, "needed")])
def test_rows_side_by_side_share_the_memory_of_a_gpu(
    trained, monkeypatch, tmp_path, at_once, memory
):
    places = Places(tmp_path / "results", tmp_path / "runs", tmp_path / "data")
    seen = []
    begin = Job.__init__

    def noted(job, *given):
        begin(job, *given)
        seen.append(job.memory)

    monkeypatch.setattr(Job, "__init__", noted)
    reproduce.train(reproduce.chosen("sinusoid/p"), places, hours=1.0, nice=0, at_once=at_once)
    assert seen == [memory] * 3


def test_what_is_trained_is_stopped_and_packed_when_the_time_is_up(trained, monkeypatch, tmp_path):
    places = Places(tmp_path / "results", tmp_path / "runs", tmp_path / "data")
    monkeypatch.setattr(Job, "looks", 10**9)
    packed = []
    monkeypatch.setattr(work, "pack", lambda row, seed, places: packed.append((row.name, seed)))
    reproduce.train(reproduce.chosen("sinusoid/f"), places, hours=0.2 / 3600, nice=0, at_once=2)
    assert trained == packed == [("sinusoid/fomaml", 0), ("sinusoid/fomaml", 1)]


def test_an_error_in_one_row_lets_the_others_go_on(trained, monkeypatch, tmp_path, capsys):
    places = Places(tmp_path / "results", tmp_path / "runs", tmp_path / "data")
    monkeypatch.setattr(Job, "fails", (("sinusoid/fomaml", 1),))
    with pytest.raises(RuntimeError, match=r"see above: sinusoid/fomaml, seed 1$"):
        reproduce.train(reproduce.chosen("sinusoid/fomaml"), places, hours=1.0, nice=0)
    assert trained == [("sinusoid/fomaml", 0), "pages", ("sinusoid/fomaml", 1),
                       ("sinusoid/fomaml", 2), "pages"]  # fmt: skip
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


@pytest.mark.parametrize("given", ["0", "-1", "1.5", "two"])
def test_a_number_of_rows_side_by_side_is_at_least_one(given, capsys):
    with pytest.raises(SystemExit):
        reproduce.main([f"--at_once={given}", "--status"])
    assert f"a number of at least 1 is expected; got '{given}'" in capsys.readouterr().err


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
