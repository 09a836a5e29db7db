"""Reports: the agreed form, and files that are whole or not there."""

import json

import numpy as np
import pytest

from mamljax import files
from mamljax.evaluate import summarise
from mamljax.running import report

VALUES = np.array([[4.0, 2.0, 1.0], [2.0, 1.0, 0.5]])


@pytest.fixture
def written(tmp_path):
    """The report of one method, in `tmp_path`."""
    found = report.Report(tmp_path, "sinusoid", {"seed": 3})
    paper = {"steps": [1, 5], "mean": [0.67, 0.38]}
    found.add("maml", "5-shot", "mse", summarise(VALUES, VALUES), paper=paper)
    return found


def test_the_file_has_the_agreed_form(tmp_path, written):
    written.publish({"maml": {"iterations": 1}}, {"inner_lr": 0.1})
    read = json.loads((tmp_path / "report.json").read_text())
    assert set(read) == {
        *("experiment", "command", "config", "seed", "versions", "device", "wall_seconds"),
        *("train", "results", "details", "finished"),
    }
    assert read["seed"] == 3
    assert {"python", "mamljax", "jax"} <= set(read["versions"])
    assert read["device"]["count"] >= 1
    (row,) = read["results"]
    assert row["steps"] == [0, 1, 2]
    assert row["mean"] == [3.0, 1.5, 0.75]
    assert row["ci95"] == pytest.approx([1.96 * s / np.sqrt(2) for s in (1.0, 0.5, 0.25)])
    assert (row["num_tasks"], row["num_diverged"]) == (2, 0)


def test_a_row_is_on_disk_before_the_next_one_is_tested(tmp_path, written):
    read = json.loads((tmp_path / "report.json").read_text())
    assert [row["method"] for row in read["results"]] == ["maml"]
    assert not read["finished"]
    with pytest.raises(ValueError, match="still testing, or was stopped"):
        report.read([tmp_path])
    written.add("oracle", "5-shot", "mse", summarise(VALUES[:, :1], VALUES[:, :1]))
    written.publish({}, {})
    (read,) = report.read([tmp_path])
    assert [row["method"] for row in read["results"]] == ["maml", "oracle"]


def test_every_tasks_scores_are_kept(tmp_path, written):
    written.add("oracle", "5-shot", "mse", summarise(VALUES[:, :1], VALUES[:, :1]))
    with np.load(tmp_path / "tasks.npz") as kept:
        np.testing.assert_array_equal(kept["maml: 5-shot"], VALUES)
        np.testing.assert_array_equal(kept["oracle: 5-shot"], VALUES[:, :1])


def test_the_page_shows_the_paper_beside_our_number(tmp_path, written, capsys):
    written.publish({}, {})
    page = (tmp_path / "report.md").read_text()
    assert "| maml | 5-shot | 3 ± 1.4 | 1.5 ± 0.69 **0.67** | 0.75 ± 0.35 | 0/2 |" in page
    assert "mse, seed 3, mean ± 95% interval" in page
    assert "seed: 3" in page
    assert "- tested on: CPU (" in page
    assert "1.5 ± 0.69 **0.67**" in capsys.readouterr().out


def test_the_page_tells_nested_details_in_a_line(tmp_path, written):
    tried = {"random": {0.1: 13.456789, 1.0: float("nan")}, "pretrain": {}}
    written.publish({"maml": {"iterations": 60_000, "wall_seconds": 9971.1303}}, {"tried": tried})
    page = (tmp_path / "report.md").read_text()
    assert "- training of maml: iterations 60000, wall_seconds 9971.1\n" in page
    assert "- tried: random (0.1 13.457, 1.0 nan), pretrain ()\n" in page


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
