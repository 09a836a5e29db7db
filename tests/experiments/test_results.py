"""RESULTS.md: its tables are those of the reports, and no report is forgotten."""

import json
import re
from pathlib import Path

import pytest

from configs import paper
from experiments import results
from experiments.reproduction.places import Places
from experiments.tables import measurements, runs

ROOT = Path(__file__).parents[2]


def marked(page):
    return results.MARKED.finditer(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", results.PAGES, ids=lambda page: page.name)
def test_the_page_is_up_to_date(page):
    text = page.read_text(encoding="utf-8")
    assert results.rendered(text) == text, "run python -m experiments.results"


def test_every_report_is_shown():
    marks = [found for page in results.PAGES for found in marked(page)]
    shown = {path for found in marks for path in (ROOT / "results").glob(found[2])}
    experiments = {found[2] for found in marks if found[3] == "reports"}
    places = Places()
    for row in paper.ROWS:
        if row.name.partition("/")[0] in experiments:
            shown |= {places.report(row, seed) for seed in row.seeds}
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


def test_several_files_for_a_table_of_one_are_refused():
    with pytest.raises(ValueError, match=r"'races' shows one file.*got paper-seed0.json, "):
        results.rendered("<!-- table: navigation/paper-seed*.json races -->\n<!-- end -->")


def test_prose_and_what_trained_are_kept():
    text = "before\n<!-- table: navigation/paper-seed*.json -->\nold\n<!-- end -->\nafter"
    made = results.rendered(text)
    assert made.startswith("before\n<!-- table")
    assert made.endswith("<!-- end -->\nafter")
    assert "old" not in made
    assert re.search(r"- training: maml, 100 iterations in [\d.]+ minutes\n", made)
    assert "gap to the oracle closed after 1, 2, ... steps by maml: 0.7" in made
    assert re.search(r"closed .* by maml: 0\..* \(seed 0\); 0.* \(seed 1\); 0.* \(seed 2\)\n", made)


def test_gains_are_told_with_their_intervals():
    report = {"details": {"gain": {"maml": {"mean": [3.14159, 12.0], "ci95": [1.234, 2.0]}}}}
    assert runs._gains([report]) == [
        "- gained by 1, 2, ... steps of maml, each task against itself: 3.14 ± 1.2, 12 ± 2"
    ]
    assert runs._gains([{}]) == []


@pytest.mark.parametrize("kind", measurements.TABLES)
def test_every_table_of_measurements_has_as_many_cells_as_columns(kind):
    marks = {found[2] for page in results.PAGES for found in marked(page) if found[3] == kind}
    assert marks
    for mark in marks:
        found = sorted((ROOT / "results").glob(mark))
        table = measurements.TABLES[kind](*(json.loads(path.read_text("utf-8")) for path in found))
        assert {len(line) for line in table.cells} == {len(table.header)}, mark


def test_the_papers_gap_is_that_of_its_returns():
    found = {
        "experiment": "meta-RL: cheetah_direction",
        "details": {"oracle_gap_closed": {"maml": [0.5, 0.6, 0.7], "other": [0.0]}},
    }
    assert measurements.gap(found).cells == [
        ["maml", "0.50 / 0.60 / 0.70", "0.70 / 0.74 / 0.74"],
        ["other", "0.00", ""],
    ]

    now = {"mean": [0.5], "ci95": [[0.42, 0.61]]}
    found["details"]["oracle_gap_closed"] = {"other": now}
    assert measurements.gap(found).cells == [["other", "0.50 (0.42 to 0.61)", ""]]
    both = measurements.gap(found | {"seed": 0}, found | {"seed": 1})
    assert both.header[1:] == ["seed 0", "seed 1", "paper"]
    assert both.cells == [["other", *["0.50 (0.42 to 0.61)"] * 2, ""]]


def test_a_table_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="there is no table 'rases'; there are races"):
        results.rendered("<!-- table: speed.json rases -->\n<!-- end -->")


def publish(folder, seed, iterations, mean=0.9, flat_for=None):
    """Put a report of the dense network in a folder of results."""
    source = ROOT / "results" / "omniglot" / "5way1shot_dense-seed0.json"
    record = json.loads(source.read_text())
    record["seed"] = seed
    record["results"][0]["mean"][-1] = mean
    record["train"]["maml"] |= {"iterations": iterations, "flat_for": flat_for}
    (folder / "omniglot").mkdir(exist_ok=True)
    target = folder / "omniglot" / f"5way1shot_dense-seed{seed}.json"
    target.write_text(json.dumps(record))


def test_the_papers_images_stand_beside_ours(tmp_path):
    """Numbers of three seeds' rows with one seed done, of an unfinished row, of none."""
    publish(tmp_path, 1, iterations=30_000, mean=0.5)
    page = results.rendered("<!-- table: all images -->\n<!-- end -->", tmp_path)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines()[1:-1]]
    table = {line[0]: dict(zip(lines[0][1:], line[1:], strict=True)) for line in lines}
    assert table["maml, dense"]["Omniglot 5-way 1-shot"] == "50.0 (50%) / 89.7"
    assert table["maml, dense"]["Omniglot 5-way 5-shot"] == "- / 97.5"
    assert table["maml, dense"]["Omniglot 20-way 1-shot"] == ""
    assert table["fomaml"]["miniImagenet 5-way 5-shot"] == "- / 63.1"
    assert len(table) == 2 + len({method for _, _, method in paper.IMAGES})
    # One that was long enough, as validation no longer rose, has no share behind it.
    publish(tmp_path, 1, iterations=30_000, mean=0.5, flat_for=10_000)
    page = results.rendered("<!-- table: all images -->\n<!-- end -->", tmp_path)
    assert "| 50.0 / 89.7 |" in page


def test_numbers_that_are_not_of_images_stand_beside_the_papers():
    page = results.rendered("<!-- table: all others -->\n<!-- end -->")
    (header, _, *lines) = [line.split("|")[1:-1] for line in page.splitlines()[1:-1]]
    assert [cell.strip() for cell in header] == ["maml", "ours", "paper"]
    assert [line[0].split(",")[0].strip() for line in lines] == ["sinusoids", "2D navigation"]
    for line in lines:
        assert line[0].strip().endswith(", 3 seeds")
        assert len({cell.count("/") for cell in line}) == 1


def test_every_row_that_has_a_report_is_told_of(tmp_path):
    publish(tmp_path, 0, iterations=60_000)
    publish(tmp_path, 2, iterations=31_000, flat_for=10_000)
    (tmp_path / "omniglot" / "5way1shot_dense_training.png").touch()
    page = results.rendered("<!-- table: omniglot reports -->\n<!-- end -->", tmp_path)
    assert page.count("### omniglot/") == page.count("![Training of omniglot/") == 1
    assert "mean over seeds [0, 2]" in page
    assert "- training, seed 0: maml, 60,000 iterations" in page
    assert (
        "seed 2: maml, 31,000 iterations, the checkpoint of 55,000 tested; it ended where " in page
    )
    elsewhere = results.rendered("<!-- table: sinusoid reports -->\n<!-- end -->", tmp_path)
    assert "###" not in elsewhere
