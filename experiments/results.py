"""Bring the tables of RESULTS.md up to date with the reports in results/.

    python -m experiments.results

What stands between ``<!-- table: PATTERN -->`` and ``<!-- end -->`` is replaced by the table of the
reports that the pattern matches, below results/, and by where they come from. Prose stays.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import summary
from mamljax import files

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "RESULTS.md"
TABLE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def rendered(text: str, folder: Path = ROOT / "results") -> str:
    """The page with its tables made anew.

    Raises:
      ValueError: for a pattern that no report matches.
    """

    def replaced(found: re.Match[str]) -> str:
        paths = sorted(folder.glob(found[2]))
        if not paths:
            raise ValueError(f"{folder} has no report {found[2]}.")
        reports = summary.read([str(path) for path in paths])
        lines = [summary.table(reports), "", *origin(reports)]
        return found[1] + "\n".join(lines) + "\n" + found[3]

    return TABLE.sub(replaced, text)


def origin(reports: Sequence[dict[str, Any]]) -> list[str]:
    """Where numbers come from: training, device, versions, command."""
    first = reports[0]
    device, versions = first["device"], first["versions"]
    devices = f"{device['count']} device{'' if device['count'] == 1 else 's'}"
    lines = [
        f"- {first['results'][0]['num_tasks']} test tasks for each seed",
        *(f"- training: {line}" for line in _training(first)),
        *_gains(first),
        *_gaps(first),
        f"- {device['platform'].upper()} ({device['kind']}, {device['cpu_cores']} cores, "
        f"{devices}), Python {versions['python']}, jax {versions['jax']}, "
        f"mamljax {versions['mamljax']}",
        f"- `{first['command']}`",
    ]
    return lines


def _training(report: dict[str, Any]) -> list[str]:
    """Iterations and time of every method that was trained."""
    train = report.get("details", {}).get("train") or report["train"]
    methods = {report["results"][0]["method"]: train} if "iterations" in train else train
    lines = []
    for name, run in methods.items():
        if not run.get("iterations"):
            continue
        text = f"{name}, {run['iterations']:,} iterations"
        if rate := run.get("iterations_per_second"):
            text += f" in {_duration(run['iterations'] / rate)}"
        if (tested := run.get("tested_checkpoint")) not in (None, run["iterations"]):
            text += f", the checkpoint of {tested:,} tested"
        lines.append(text)
    return lines


def _gains(report: dict[str, Any]) -> list[str]:
    """In reinforcement learning: what each step gained, over tasks compared with themselves."""
    gains = report.get("details", {}).get("gain", {})
    return [
        f"- gained by 1, 2, ... steps of {name}, each task against itself: "
        + ", ".join(
            f"{mean:.3g} ± {ci95:.2g}"
            for mean, ci95 in zip(gain["mean"], gain["ci95"], strict=True)
        )
        for name, gain in gains.items()
    ]


def _gaps(report: dict[str, Any]) -> list[str]:
    """In reinforcement learning: which part of the gap to the oracle each step closes."""
    gaps = report.get("details", {}).get("oracle_gap_closed", {})
    return [
        f"- gap to the oracle closed after 1, 2, ... steps by {name}: "
        + ", ".join(f"{part:.2f}" for part in parts)
        for name, parts in gaps.items()
    ]


def _duration(seconds: float) -> str:
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds:.0f} seconds"


def main() -> None:
    """Rewrite RESULTS.md."""
    files.write_text(PAGE, rendered(PAGE.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
