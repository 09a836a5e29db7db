"""Draw the figures of results/ anew from the numbers that lie beside them.

    python -m experiments.redraw

Those of reports, of speed and of the methods are drawn. Fits, paths and training curves need the
parameters or the metrics of a run: they are drawn when it is tested.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.benchmark import growth, methods_figures, race, speed
from experiments.few_shot import figures as few_shot
from experiments.meta_rl import figures as meta_rl
from experiments.regression import figures as regression
from mamljax.running import report

ROOT = Path(__file__).parents[1]


def main(folder: Path = ROOT / "results") -> None:
    """Draw what can be drawn, in place of the figures that are there."""
    for figure in sorted(folder.rglob("*.png")):
        if draw := _drawing(figure):
            draw()
            print(figure.relative_to(folder))


def _drawing(figure: Path) -> Callable[[], object] | None:
    """What draws a figure; None if its numbers are not there."""
    name, folder = figure.stem, figure.parent
    if name == "methods":
        found = _read(folder / "methods.json").values()
        rows = [row for problem in found for row in problem["results"]]
        return lambda: methods_figures.draw(figure, rows)
    if name == "growth":
        return lambda: growth.draw(figure, _read(folder / "growth.json")["parts"])
    if name == "speed":
        races = [speed.race(part, _read(folder / f"speed_{part}.json")) for part in speed.RACES]
        return lambda: speed.draw(figure, races)
    if name.startswith("speed_"):
        found = _read(figure.with_suffix(".json"))
        return lambda: race.draw(figure, found)
    row, _, what = name.rpartition("_")
    if what == "figure6" or name == "figure6":
        record = _report(folder, row or "maml")
        return record and (lambda: _errors(figure, record))
    drawn = {"accuracy": few_shot.accuracies, "returns": meta_rl.returns}
    record = _report(folder, row) if what in drawn else None
    return record and (lambda: drawn[what](figure, record))


def _errors(figure: Path, record: report.Record) -> None:
    with tempfile.TemporaryDirectory() as folder:
        regression.errors(Path(folder), record)
        figure.write_bytes((Path(folder) / "figure6.png").read_bytes())


def _report(folder: Path, row: str) -> Any:
    """The report of a row, of several seeds that of the first."""
    for file in (folder / f"{row}.json", folder / f"{row}-seed0.json"):
        if file.is_file():
            return report.read([file])[0]
    return None


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
