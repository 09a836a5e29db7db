"""Reports: the agreed form, and files that are whole or not there."""

import json

import numpy as np
import pytest

from mamljax import files, report
from mamljax.evaluate import summarise


def a_report():
    values = np.array([[4.0, 2.0, 1.0], [2.0, 1.0, 0.5]])
    paper = {"steps": [1, 5], "mean": [0.67, 0.38]}
    row = report.result("maml", "5-shot", "mse", summarise(values, values), paper)
    return {
        **report.provenance("sinusoid", {"seed": 3}),
        "wall_seconds": 1.0,
        "train": {"iterations": 1, "iterations_per_second": 1.0, "compile_seconds": 1.0},
        "results": [row],
    }


def test_the_file_has_the_agreed_form(tmp_path):
    report.publish(tmp_path, a_report())
    read = json.loads((tmp_path / "report.json").read_text())
    assert set(read) == {
        *("experiment", "command", "config", "seed", "versions", "device", "wall_seconds"),
        *("train", "results"),
    }
    assert read["seed"] == 3
    assert {"python", "mamljax", "jax"} <= set(read["versions"])
    assert read["device"]["count"] >= 1
    (row,) = read["results"]
    assert row["steps"] == [0, 1, 2]
    assert row["mean"] == [3.0, 1.5, 0.75]
    assert row["ci95"] == pytest.approx([1.96 * s / np.sqrt(2) for s in (1.0, 0.5, 0.25)])
    assert (row["num_tasks"], row["num_diverged"]) == (2, 0)


def test_the_page_shows_the_paper_beside_our_number(tmp_path):
    report.publish(tmp_path, a_report())
    page = (tmp_path / "report.md").read_text()
    assert "| maml | 5-shot | mse | 3 ± 1.4 | 1.5 ± 0.69 (0.67) | 0.75 ± 0.35 | 0/2 |" in page
    assert "seed: 3" in page


def test_nan_and_infinity_become_null(tmp_path):
    files.write_json(tmp_path / "a.json", {"x": [float("nan"), (1.0, float("-inf"))]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [None, [1.0, None]]}


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    target = tmp_path / "a.txt"
    files.write_text(target, "old")
    with pytest.raises(UnicodeEncodeError):
        files.write_text(target, "new \ud800")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
