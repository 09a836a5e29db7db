"""Work on rows: a deadline, packing, publishing, and weights that are tested again."""

import json
import textwrap
import time
import zipfile

import pytest

from configs.paper import ROWS, Row
from experiments.few_shot import experiment
from experiments.reproduction import standing, work
from experiments.reproduction.places import Places
from mamljax import files

ROW = Row("omniglot/tiny", "omniglot:5way1shot", "table 1", 0.1)


@pytest.fixture
def places(tmp_path):
    return Places(tmp_path / "results", tmp_path / "runs", tmp_path / "data")


@pytest.fixture
def program(monkeypatch):
    """Let a few lines of Python stand for the experiment."""

    def set_up(code):
        given = lambda row, seed, places: ["-c", textwrap.dedent(code)]  # noqa: E731
        monkeypatch.setattr(work, "words", given)

    return set_up


def saved(places, *, step):
    """A work directory with a checkpoint after so many iterations."""
    folder = places.workdir(ROW, 0) / "checkpoints" / "maml" / f"{step:08d}"
    folder.mkdir(parents=True)
    record = {"step": step, "totals": {}}
    files.write_json(folder / "checkpoint.json", files.sealed(record))
    (places.workdir(ROW, 0) / "metrics.jsonl").write_text("{}\n")
    (places.workdir(ROW, 0) / "report.md").write_text("left out")


def ended(job):
    """What a job returns in the end."""
    deadline = time.monotonic() + 60
    while (found := job.finished()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


WAITS = """
    import signal, sys, time

    def stop(*_):
        print("stopped")
        sys.exit(130)

    signal.signal(signal.SIGTERM, stop)
    print("begun", flush=True)
    time.sleep(60)
"""


def test_a_run_ends_by_itself_or_when_it_is_asked_to(places, program):
    log = places.workdir(ROW, 0) / work.LOG
    program("print('trained')")
    assert ended(work.Job(ROW, 0, places, 0))
    assert log.read_text() == "trained\n"
    program(WAITS)
    job = work.Job(ROW, 0, places, 0)
    while "begun" not in log.read_text():
        time.sleep(0.05)
    assert job.finished() is None
    job.stop()
    job.stop()  # once is enough
    assert ended(job) is False
    assert log.read_text() == "trained\nbegun\nstopped\n"


def test_a_run_that_does_not_end_when_it_is_asked_to_is_killed(places, program, monkeypatch):
    program("""
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("begun", flush=True)
        time.sleep(60)
    """)
    monkeypatch.setattr(work, "GRACE_SECONDS", 0)
    job = work.Job(ROW, 0, places, 0)
    while "begun" not in (places.workdir(ROW, 0) / work.LOG).read_text():
        time.sleep(0.05)
    job.stop()
    assert ended(job) is False


@pytest.mark.parametrize(("nice", "found"), [(0, 7), (9, 9)])
def test_training_is_at_least_as_nice_as_what_starts_it(places, program, monkeypatch, nice, found):
    program("""
        import os, time
        for _ in range(100):  # until it is told
            print(os.getpriority(os.PRIO_PROCESS, 0), flush=True)
            time.sleep(0.01)
    """)
    monkeypatch.setattr(work.os, "getpriority", lambda which, who: 7)
    assert ended(work.Job(ROW, 0, places, nice))
    told = (places.workdir(ROW, 0) / work.LOG).read_text(encoding="utf-8").split()
    assert told[-1] == str(found)


@pytest.mark.parametrize(("memory", "told"), [("all", "None"), ("needed", "false")])
def test_runs_that_share_a_gpu_take_its_memory_as_they_need_it(
    places, program, monkeypatch, memory, told
):
    program("import os; print(os.environ.get('XLA_PYTHON_CLIENT_PREALLOCATE'))")
    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE", raising=False)
    assert ended(work.Job(ROW, 0, places, 0, memory))
    assert (places.workdir(ROW, 0) / work.LOG).read_text() == f"{told}\n"


def test_an_error_is_told_with_its_last_line(places, program):
    program("raise SystemExit('error: the disk is full')")
    with pytest.raises(RuntimeError, match=r"see .*log\.txt: error: the disk is full"):
        ended(work.Job(ROW, 0, places, 0))


def test_training_that_somebody_stops_is_not_an_error(places, program):
    program("raise SystemExit(130)")
    with pytest.raises(KeyboardInterrupt):
        ended(work.Job(ROW, 0, places, 0))


def test_what_two_cores_do_in_an_hour_is_packed_and_laid_out_again(places, tmp_path):
    slower = ROW._replace(hours=2.0)
    saved(places, step=29_999)
    assert work.pack(slower, 0, places) is None
    saved(places, step=30_000)
    assert work.pack(ROW, 0, places) is None
    packed = work.pack(slower, 0, places)
    assert packed == places.unfinished(ROW, 0)
    with zipfile.ZipFile(packed) as found:
        assert {name.split("/")[0] for name in found.namelist()} == {"checkpoints", "metrics.jsonl"}
    elsewhere = places._replace(runs=tmp_path / "another machine")
    assert standing.standing(ROW, elsewhere).iterations == {0: 30_000}
    work.unpack(ROW, 0, elsewhere)
    assert standing.hours_trained(slower, elsewhere.workdir(ROW, 0)) == 1
    # What is there already is newer.
    (elsewhere.workdir(ROW, 0) / "metrics.jsonl").write_text("mine")
    work.unpack(ROW, 0, elsewhere)
    assert (elsewhere.workdir(ROW, 0) / "metrics.jsonl").read_text() == "mine"


PACKED = [
    pytest.param(row, seed, id=f"{row.name}-seed{seed}")
    for row in ROWS
    for seed in row.seeds
    if Places().unfinished(row, seed).is_file()
]


@pytest.mark.parametrize(("row", "seed"), PACKED)
def test_what_is_packed_goes_on_with_the_config_of_today(row, seed, tmp_path):
    assert row.config.partition(":")[0] in ("omniglot", "miniimagenet"), "compare this one, too"
    places = Places(runs=tmp_path)
    work.unpack(row, seed, places)
    config = standing.config_of(row)
    config.seed = seed
    wanted = json.loads(json.dumps(experiment.depends_on(config)))
    records = list(places.workdir(row, seed).glob("checkpoints/*/*/checkpoint.json"))
    assert records
    for path in records:
        assert files.unsealed(path.read_text(encoding="utf-8"))["config"] == wanted


def test_a_finished_run_is_published_and_no_longer_unfinished(places):
    saved(places, step=40_000)
    assert work.pack(ROW._replace(hours=2.0), 0, places)
    workdir = places.workdir(ROW, 0)
    (workdir / "figures").mkdir()
    for name in ("figures/training.png", "figures/other.png", "figures/maml.html", "model.npz"):
        (workdir / name).write_bytes(name.encode())
    (workdir / "report.json").write_text(json.dumps({"results": []}))
    work.publish(ROW, 0, places)
    folder = places.results / "omniglot"
    assert {path.name for path in folder.iterdir()} == {
        "tiny.json", "tiny.npz", "tiny_training.png", "tiny_maml.html"
    }  # fmt: skip
    assert not places.unfinished(ROW, 0).exists()


def test_a_row_that_tests_the_network_of_another_publishes_no_copy_of_it(places):
    row = ROW._replace(name="omniglot/other", network=ROW.name)
    workdir = places.workdir(row, 0)
    workdir.mkdir(parents=True)
    (workdir / "model.npz").write_bytes(b"weights")
    (workdir / "report.json").write_text(json.dumps({"results": []}))
    work.publish(row, 0, places)
    assert [path.name for path in (places.results / "omniglot").iterdir()] == ["other.json"]
    assert places.weights(row) == places.weights(ROW)


@pytest.mark.parametrize(("again", "holds"), [(0.9212, True), (0.95, False)])
def test_published_weights_are_tested_again(places, program, again, holds, monkeypatch):
    def record(mean):
        row = {"method": "maml", "setting": "", "mean": [0.2, mean], "ci95": [0.1, 0.01]}
        return {"experiment": "", "results": [row], "train": {}}

    files_of = places.weights(ROW)
    files_of.parent.mkdir(parents=True)
    assert work.verify(ROW, places, print) is None
    files_of.write_bytes(b"weights")
    assert work.verify(ROW, places, print) is None  # no report to hold them against
    places.report(ROW, 0).write_text(json.dumps(record(0.921)))
    code = "import sys, pathlib; sys.argv[1].endswith('.npz') or sys.exit('error: no weights')\n"
    code += f"pathlib.Path(WORKDIR, 'report.json').write_text({json.dumps(record(again))!r})"

    def words(row, seed, places, workdir, *, test):
        assert test
        return ["-c", code.replace("WORKDIR", repr(str(workdir))), str(places.weights(row))]

    monkeypatch.setattr(work, "words", words)
    found = work.verify(ROW, places, print)
    assert (found.published, found.half, found.again) == (0.921, 0.01, again)
    assert found.holds is holds


def test_a_return_holds_within_a_tenth_of_its_interval():
    assert work.Verified(ROW, 310.0, 20.0, 308.1).holds
    assert not work.Verified(ROW, 310.0, 20.0, 307.9).holds
