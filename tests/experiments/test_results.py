"""RESULTS.md: its tables are those of the reports, and no report is forgotten."""

import re
from pathlib import Path

import pytest

from experiments import results

ROOT = Path(__file__).parents[2]


def test_the_page_is_up_to_date():
    text = results.PAGE.read_text(encoding="utf-8")
    assert results.rendered(text) == text, "run python -m experiments.results"


def test_every_report_is_on_it():
    text = results.PAGE.read_text(encoding="utf-8")
    shown = {
        path for found in results.TABLE.finditer(text) for path in (ROOT / "results").glob(found[2])
    }
    assert shown == set((ROOT / "results").glob("*/*.json"))


def test_its_pictures_and_files_exist():
    text = results.PAGE.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    assert len(targets) > 10
    assert [name for name in targets if not (ROOT / name).exists()] == []


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(ValueError, match=r"no report nothing/\*\.json"):
        results.rendered("<!-- table: nothing/*.json -->\n<!-- end -->")


def test_prose_and_what_trained_are_kept():
    text = "before\n<!-- table: navigation/seed*.json -->\nold\n<!-- end -->\nafter"
    made = results.rendered(text)
    assert made.startswith("before\n<!-- table")
    assert made.endswith("<!-- end -->\nafter")
    assert "old" not in made
    assert "training: maml, 100 iterations in 2.2 minutes" in made
    assert "gap to the oracle closed after 1, 2, ... steps by maml: 0.7" in made


def test_gains_are_told_with_their_intervals():
    report = {"details": {"gain": {"maml": {"mean": [3.14159, 12.0], "ci95": [1.234, 2.0]}}}}
    assert results._gains(report) == [
        "- gained by 1, 2, ... steps of maml, each task against itself: 3.14 ± 1.2, 12 ± 2"
    ]
    assert results._gains({}) == []
