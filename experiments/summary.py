"""Merge the reports of several seeds into one table.

python -m experiments.summary results/sinusoid/maml-seed*.json
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mamljax.report import markdown_table, published, shown_steps


def table(reports: Sequence[dict[str, Any]]) -> str:
    """A Markdown table: per method and setting the mean over seeds, and their smallest and largest.

    Raises:
      ValueError: if the reports are of different experiments, or two have the same seed.
    """
    experiments = {report["experiment"] for report in reports}
    seeds = [report["seed"] for report in reports]
    if len(experiments) > 1 or len(set(seeds)) < len(seeds):
        raise ValueError(
            f"one report per seed of one experiment is expected; got experiments "
            f"{sorted(experiments)} and seeds {seeds}."
        )
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for report in reports:
        for row in report["results"]:
            rows.setdefault((row["method"], row["setting"]), []).append(row)
    steps, names = shown_steps([row for same in rows.values() for row in same])
    lines = [
        [
            *(method, setting),
            *(_cell(same, step) for step in steps),
            f"{sum(r['num_diverged'] for r in same)}/{sum(r['num_tasks'] for r in same)}",
        ]
        for (method, setting), same in rows.items()
    ]
    note = f"Mean over seeds {sorted(seeds)} (smallest to largest seed); **the paper's**."
    return "\n".join([*markdown_table(["method", "setting", *names, "diverged"], lines), "", note])


def _cell(rows: Sequence[dict[str, Any]], step: int) -> str:
    if step not in rows[0]["steps"]:  # such as the oracle, which takes none
        return ""
    # A mean that is infinite or NaN because tasks diverged is null in the report.
    values = [np.nan if row["mean"][step] is None else row["mean"][step] for row in rows]
    text = f"{np.mean(values):.3g}"
    if len(values) > 1:
        text += f" ({np.min(values):.3g} to {np.max(values):.3g})"
    paper = published(rows[0], step)
    return text if paper is None else f"{text} **{paper:.3g}**"


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    print(table([json.loads(Path(name).read_text(encoding="utf-8")) for name in sys.argv[1:]]))
