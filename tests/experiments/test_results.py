"""RESULTS.md: its tables are those of the reports, and no report is forgotten."""

import json
import re
from pathlib import Path

import pytest

from configs import paper
from experiments import results

ROOT = Path(__file__).parents[2]


def marked(page):
    return results.MARKED.finditer(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", results.PAGES, ids=lambda page: page.name)
def test_the_page_is_up_to_date(page):
    text = page.read_text(encoding="utf-8")
    assert results.rendered(text) == text, "run python -m experiments.results"


def test_every_report_is_shown():
    marks = [found[2] for page in results.PAGES for found in marked(page)]
    shown = {path for pattern in marks for path in (ROOT / "results").glob(pattern)}
    assert shown >= set((ROOT / "results").glob("*/*.json"))


def test_no_table_of_results_is_typed_by_hand():
    """What stands outside the marks has no number with an interval, a range or a factor."""
    for page in results.PAGES:
        rest = results.MARKED.sub("", page.read_text(encoding="utf-8"))
        tables = [line for line in rest.splitlines() if line.startswith("|")]
        assert [line for line in tables if re.search(r"\d\s*±|\d(\.\d+)?x\b", line)] == []


def test_its_pictures_and_files_exist():
    text = results.PAGES[0].read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    assert len(targets) > 10
    assert [name for name in targets if not (ROOT / name).exists()] == []


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(ValueError, match=r"no report nothing/\*\.json"):
        results.rendered("<!-- table: nothing/*.json -->\n<!-- end -->")


def test_prose_and_what_trained_are_kept():
    text = "before\n<!-- table: navigation/paper-seed*.json -->\nold\n<!-- end -->\nafter"
    made = results.rendered(text)
    assert made.startswith("before\n<!-- table")
    assert made.endswith("<!-- end -->\nafter")
    assert "old" not in made
    assert "training: maml, 100 iterations, about 2.2 minutes by the median rate" in made
    assert "gap to the oracle closed after 1, 2, ... steps by maml: 0.7" in made


def test_gains_are_told_with_their_intervals():
    report = {"details": {"gain": {"maml": {"mean": [3.14159, 12.0], "ci95": [1.234, 2.0]}}}}
    assert results._gains(report) == [
        "- gained by 1, 2, ... steps of maml, each task against itself: 3.14 ± 1.2, 12 ± 2"
    ]
    assert results._gains({}) == []


@pytest.mark.parametrize("kind", results.TABLES)
def test_every_table_of_measurements_has_as_many_cells_as_columns(kind):
    (mark,) = {found[2] for page in results.PAGES for found in marked(page) if found[3] == kind}
    table = results.TABLES[kind](json.loads((ROOT / "results" / mark).read_text("utf-8")))
    assert {len(line) for line in table.cells} == {len(table.header)}


def test_the_papers_gap_is_that_of_its_returns():
    found = {
        "experiment": "meta-RL: cheetah_direction",
        "details": {"oracle_gap_closed": {"maml": [0.5, 0.6, 0.7], "other": [0.0]}},
    }
    assert results.gap(found).cells == [
        ["maml", "0.50 / 0.60 / 0.70", "0.70 / 0.74 / 0.74"],
        ["other", "0.00", ""],
    ]


def test_a_table_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="there is no table 'rases'; there are races"):
        results.rendered("<!-- table: speed.json rases -->\n<!-- end -->")


def test_the_papers_images_stand_beside_ours(tmp_path):
    """Numbers of three seeds' rows with one seed done, of an unfinished row, of none."""
    source = ROOT / "results" / "omniglot" / "5way1shot_dense-seed0.json"
    record = json.loads(source.read_text())
    record["results"][0]["mean"][-1] = 0.5
    record["train"]["maml"]["iterations"] = 30_000
    (tmp_path / "omniglot").mkdir()
    (tmp_path / "omniglot" / "5way1shot_dense-seed1.json").write_text(json.dumps(record))
    page = results.rendered("<!-- table: all images -->\n<!-- end -->", tmp_path)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines()[1:-1]]
    table = {line[0]: dict(zip(lines[0][1:], line[1:], strict=True)) for line in lines}
    assert table["maml, dense"]["Omniglot 5-way 1-shot"] == "50.0 (50%) / 89.7"
    assert table["maml, dense"]["Omniglot 5-way 5-shot"] == "- / 97.5"
    assert table["maml, dense"]["Omniglot 20-way 1-shot"] == ""
    assert table["fomaml"]["miniImagenet 5-way 5-shot"] == "- / 63.1"
    assert len(table) == 2 + len({method for _, _, method in paper.IMAGES})
