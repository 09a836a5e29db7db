"""Figures of results/ are drawn anew from the numbers beside them."""

import shutil
from pathlib import Path

from experiments import redraw

RESULTS = Path(__file__).parents[2] / "results"


def test_figures_are_drawn_from_their_numbers_and_others_are_left(tmp_path):
    for name in ("sinusoid/maml-seed0.json", "navigation/paper-seed0.json", "speed_omniglot.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(RESULTS / name, tmp_path / name)
    drawn = ("sinusoid/maml_figure6", "navigation/paper_returns", "speed_omniglot")
    left = ("sinusoid/maml_figure2", "navigation/paper_training", "sinusoid/fomaml_figure6")
    for name in (*drawn, *left):
        (tmp_path / f"{name}.png").write_bytes(b"old")
    redraw.main(tmp_path)
    assert all((tmp_path / f"{name}.png").stat().st_size > 10_000 for name in drawn)
    assert all((tmp_path / f"{name}.png").read_bytes() == b"old" for name in left)


def test_every_figure_of_the_results_can_be_drawn_or_needs_a_run():
    needs_a_run = ("training", "paths", "figure2", "figure3", "figure7")
    for figure in RESULTS.rglob("*.png"):
        kept = figure.stem.rpartition("_")[2] in needs_a_run
        assert (redraw._drawing(figure) is None) == kept, figure
