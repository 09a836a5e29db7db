"""Metrics: one line per step whatever was killed in between."""

import csv
import json
import random
import struct

import numpy as np
import pytest

from mamljax import files
from mamljax.evaluate import summarise
from mamljax.running import metrics
from mamljax.running.metrics import MetricLogger, evaluation_hook
from mamljax.train import Call
from mamljax.types import Metrics, TrainState


def call(step, loss):
    history = Metrics(np.full(10, loss), np.zeros((10, 4)), np.full(10, 2.0))
    return Call(step, TrainState(np.int32(step), {}, ()), history, 100, 4, 0.5, 1.0)


def test_a_line_holds_the_chunk_means_and_rates(tmp_path):
    with MetricLogger(tmp_path, "maml") as logger:
        logger(call(10, 0.25))
    assert metrics.read(tmp_path / metrics.FILE) == [
        {
            "run": "maml",
            "step": 10,
            "loss": 0.25,
            "grad_norm": 2.0,
            "iterations_per_second": 20.0,
            "tasks_per_second": 80.0,
        }
    ]


def test_resuming_drops_what_lies_beyond_and_keeps_other_runs(tmp_path):
    with MetricLogger(tmp_path, "maml") as logger:
        for step in (10, 20, 30):
            logger(call(step, step))
    with MetricLogger(tmp_path, "oracle") as logger:
        logger(call(30, 1.0))
    with (tmp_path / metrics.FILE).open("a") as file:
        file.write('{"run": "maml", "step": 40, "lo')  # a kill in mid-line
    with MetricLogger(tmp_path, "maml", resume_step=20) as logger:
        logger(call(30, 99.0))
    found = [(r["run"], r["step"], r["loss"]) for r in metrics.read(tmp_path / metrics.FILE)]
    assert found == [
        ("maml", 10, 10.0),
        ("maml", 20, 20.0),
        ("oracle", 30, 1.0),
        ("maml", 30, 99.0),
    ]


def test_numbers_that_json_lacks_become_null(tmp_path):
    with MetricLogger(tmp_path, "maml") as logger:
        logger.write(1, loss=float("nan"), best=float("inf"))
    line = (tmp_path / metrics.FILE).read_text()
    record = json.loads(line)
    assert isinstance(record.pop(files.CHECKSUM), int)
    assert record == {"run": "maml", "step": 1, "loss": None, "best": None}


def test_no_flipped_bit_passes_for_a_result(tmp_path, record_property):
    with MetricLogger(tmp_path, "maml") as logger:
        for step in range(10, 60, 10):
            logger(call(step, step / 7))
    path = tmp_path / metrics.FILE
    content, written = path.read_bytes(), metrics.read(path)
    rng = random.Random(0)
    for _ in range(100):
        flipped = bytearray(content)
        flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        record_property("flipped bits", 1)
        found = [{key: record.get(key) for key in written[0]} for record in metrics.read(path)]
        assert len(found) >= len(written) - 2  # a flipped line break joins two lines
        assert all(record in written for record in found)


def test_evaluation_is_logged_beside_training_when_due(tmp_path):
    tested = []

    def test(meta_params):
        tested.append(meta_params)
        scores = np.array([[3.0, 1.0], [5.0, 2.0]])
        return summarise(scores, scores)

    with MetricLogger(tmp_path, "maml") as logger:
        hook = evaluation_hook(test, every=20, logger=logger)
        for step in (10, 20, 30, 100):
            hook(call(step, 0.0))
    found = metrics.read(tmp_path / metrics.FILE)
    assert [(r["step"], r["test_step_0"], r["test_step_1"]) for r in found] == [
        (20, 4.0, 1.5),
        (100, 4.0, 1.5),
    ]
    assert tested == [{}, {}]


def test_a_table_is_left_with_a_line_for_each_run_and_step(tmp_path):
    with MetricLogger(tmp_path, "maml") as logger:
        logger(call(10, 0.25))
        logger.write(10, validation_step_0=0.5)
    with MetricLogger(tmp_path, "oracle") as logger:
        logger.write(10, loss=float("nan"))
    with (tmp_path / "metrics.csv").open() as file:
        first, second = csv.DictReader(file)
    assert (first["run"], first["step"], first["loss"]) == ("maml", "10", "0.25")
    assert first["validation_step_0"] == "0.5"  # logged at the same step
    assert (second["run"], second["loss"], second["validation_step_0"]) == ("oracle", "", "")


def test_the_error_that_ends_a_run_is_not_hidden_by_those_of_closing(tmp_path, monkeypatch):
    logger = MetricLogger(tmp_path, "maml")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_text", full)
    with pytest.raises(ZeroDivisionError), logger:
        raise ZeroDivisionError
    with pytest.raises(OSError, match="No space"), MetricLogger.__enter__(logger):
        pass


def test_tensorboard_events_are_written(tmp_path):
    with MetricLogger(tmp_path, "maml") as logger:
        logger.write(3, loss=0.75)
    (events,) = (tmp_path / "tensorboard" / "maml").iterdir()
    content = events.read_bytes()
    assert b"loss" in content
    assert struct.pack("<f", 0.75) in content  # the protobuf holds simple_value as a float32
