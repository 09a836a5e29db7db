"""Standing of rows: iterations wherever they lie, and what counts as reproduced."""

import json

import numpy as np
import pytest

from configs.paper import ROWS, Row
from experiments.reproduction import standing
from experiments.reproduction.places import ROOT, Places, words
from mamljax import files

ROW = Row(
    "omniglot/5way1shot_dense", "omniglot:5way1shot_dense", "table 1", 0.2, (0, 1), "omniglot"
)


@pytest.fixture
def places(tmp_path):
    return Places(tmp_path / "results", tmp_path / "runs", tmp_path / "data")


def record(seed, mean, *, half=0.01, iterations=60_000, metric="accuracy"):
    row = {
        "method": "maml, dense", "setting": "5-way 1-shot, 1 query per class", "metric": metric,
        "steps": [0, 1, 2, 3], "mean": [0.2, mean, mean, mean], "ci95": [half] * 4,
        "num_tasks": 600, "num_diverged": 0,
        "paper": {"steps": [3], "mean": [0.897], "ci95": [0.011]},
    }  # fmt: skip
    train = {"maml": {"iterations": iterations}}
    return {"experiment": "few-shot omniglot", "seed": seed, "train": train, "results": [row]}


def publish(places, seed, found):
    path = places.report(ROW, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))


def test_nothing_has_begun(places):
    found = standing.standing(ROW, places)
    assert found.iterations == {0: 0, 1: 0}
    assert (found.goal, found.findings, found.trained) == (60_000, [], False)
    assert standing.trainings([found]).cells == [[ROW.name, "table 1", "not begun"]]
    assert standing.numbers([found]).cells == []


def test_iterations_are_found_in_reports_and_checkpoints(places):
    publish(places, 0, record(0, 0.9))
    checkpoints = places.workdir(ROW, 1) / "checkpoints" / "maml"
    for step in ("00011000", "00012000"):
        (checkpoints / step).mkdir(parents=True)
    found = standing.standing(ROW, places)
    assert found.iterations == {0: 60_000, 1: 12_000}
    assert not found.trained
    assert standing.trainings([found]).cells[0][-1] == "60%, 2 seeds"


def test_a_row_is_trained_when_all_its_seeds_are(places):
    for seed in ROW.seeds:
        publish(places, seed, record(seed, 0.9))
    assert standing.standing(ROW, places).trained
    publish(places, 1, record(1, 0.9, iterations=59_999))
    assert not standing.standing(ROW, places).trained


def test_a_row_that_no_longer_gets_better_is_done_before_its_length(places):
    flat = record(1, 0.9, iterations=31_000)
    publish(places, 0, record(0, 0.9))
    publish(places, 1, flat)
    assert not standing.standing(ROW, places).trained
    flat["train"]["maml"]["flat_for"] = 10_000
    publish(places, 1, flat)
    found = standing.standing(ROW, places)
    assert found.trained
    told = standing.trainings([found]).cells[0][-1]
    assert told == "31,000 to 60,000, flat, 2 seeds"


def test_a_row_of_several_methods_tells_the_first_once_all_are_done(places):
    found = record(0, 0.9, iterations=34_000)
    found["train"]["maml"]["flat_for"] = 10_000
    found["train"]["pretrain"] = {"iterations": 11_000}
    publish(places, 0, found)
    assert standing.published(ROW, 0, places) == 11_000
    found["train"]["pretrain"]["flat_for"] = 10_000
    publish(places, 0, found)
    assert standing.published(ROW, 0, places) == 34_000


def test_a_row_that_tests_the_network_of_another_is_done_with_the_published_one(places):
    row = ROW._replace(name="omniglot/other", seeds=(0,), network="omniglot/5way1shot_dense")
    told = record(0, 0.9, iterations=31_000)
    told["train"]["maml"] |= {"flat_for": 10_000, "sha256": "of earlier weights"}
    places.weights(row).parent.mkdir(parents=True)
    places.weights(row).write_bytes(b"weights")
    files.write_json(places.report(row, 0), told)
    assert not standing.standing(row, places).trained
    told["train"]["maml"]["sha256"] = files.digest(places.weights(row))
    files.write_json(places.report(row, 0), told)
    found = standing.standing(row, places)
    assert found.trained
    state = standing.trainings([found]).cells[0][-1]
    assert state == "31,000, flat, of omniglot/5way1shot_dense"
    given = words(row, 0, places)
    assert any(x.startswith("--config.weights.test=") and x.endswith("_dense.npz") for x in given)
    assert not any("patience" in x for x in given)


@pytest.mark.parametrize(
    ("means", "half", "metric", "shortfall", "verdict"),
    [
        ([0.92, 0.92], 0.01, "accuracy", 0.0, "better"),
        ([0.90, 0.91], 0.01, "accuracy", 0.0, "within the intervals"),
        # Both intervals count: the paper's 0.011, and that of the mean over two seeds.
        ([0.88, 0.88], 0.01, "accuracy", 0.0, "within the intervals"),
        ([0.87, 0.87], 0.01, "accuracy", 0.027 - 0.011 - 0.01 / np.sqrt(2), "short by 0.0089"),
        ([0.87, 0.87], 0.01, "mse", 0.0, "better"),
        ([0.87, None], 0.01, "accuracy", np.inf, "short"),
    ],
)
def test_a_number_is_held_against_both_intervals(means, half, metric, shortfall, verdict):
    records = [record(s, mean, half=half, metric=metric) for s, mean in enumerate(means)]
    (found,) = standing.findings(records)
    assert found.step == 3
    assert found.shortfall == pytest.approx(shortfall)
    told = standing.Standing(ROW, {0: 60_000}, 60_000, [found], True)
    assert standing.numbers([told]).cells[0][-1] == verdict
    held = "1 of their 1" if shortfall == 0 else "0 of their 1"
    assert f"1 of 1 runs are trained to their length; {held} published" in standing.summary([told])


def test_every_row_has_a_config_and_a_place_of_its_own(places, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert len({row.name for row in ROWS}) == len(ROWS) >= 30
    names = [row.name for row in ROWS]
    for row in ROWS:
        assert not row.network or row.network in names[: names.index(row.name)]
        assert standing.standing(row, places).goal >= 100
        given = words(row, 0, places)
        assert given[2].startswith("--config=configs/")
        assert (ROOT / given[2].removeprefix("--config=").partition(":")[0]).is_file()
        assert ("--config.data.dir" in given[-1]) == bool(row.data)
