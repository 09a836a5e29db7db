"""Tables of runs: their report, and where its numbers come from."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mamljax.running import report
from mamljax.running.provenance import described
from mamljax.running.report import Record
from mamljax.running.table import markdown_lines


def reported(paths: Sequence[Path]) -> list[str]:
    """Return the table of reports that differ in the seed alone, and where they come from."""
    records = report.read(paths)
    return [*markdown_lines(report.table(records)), "", *origin(records)]


def origin(records: Sequence[Record]) -> list[str]:
    """Return where numbers come from: training, device, versions, command."""
    first = records[0]
    device, versions = described(first["device"]), first["versions"]
    return [
        f"- {first['results'][0]['num_tasks']} test tasks for each seed",
        *(f"- training{line}" for line in _trainings(records)),
        *_gains(records),
        *_gaps(records),
        f"- tested on {device}, Python {versions['python']}, jax {versions['jax']}, "
        f"mamljax {versions['mamljax']}",
        f"- `{first['command']}`",
    ]


def _trainings(records: Sequence[Record]) -> list[str]:
    """Training of the first seed, or of each where they are not equally long."""
    lengths = [{name: run.get("iterations") for name, run in x["train"].items()} for x in records]
    if all(length == lengths[0] for length in lengths):
        return [f": {line}" for line in _training(records[0])]
    return [f", seed {x['seed']}: {line}" for x in records for line in _training(x)]


def _training(record: Record) -> list[str]:
    """Iterations and time of every method that was trained."""
    lines = []
    for name, run in record["train"].items():
        if not run.get("iterations"):
            continue
        text = f"{name}, {run['iterations']:,} iterations"
        if seconds := run.get("wall_seconds"):
            text += f" in {_duration(seconds)}"
        elif rate := run.get("iterations_per_second"):
            text += f", about {_duration(run['iterations'] / rate)} by the median rate"
        if devices := run.get("devices"):
            text += f" on {_on(devices)}"
        if (tested := run.get("tested_checkpoint")) not in (None, run["iterations"]):
            text += f", the checkpoint of {tested:,} tested"
        if flat := run.get("flat_for"):
            text += f"; it ended where validation had not risen for {flat:,}"
        if imported := run.get("imported"):
            text += f"; tested from {imported}"
        lines.append(text)
    return lines


def _on(devices: Mapping[str, int]) -> str:
    """Where a run was trained, and how much of it where, if in several places."""
    if len(devices) == 1:
        return next(iter(devices))
    return " and ".join(f"{device} ({count:,} of them)" for device, count in devices.items())


def _gains(records: Sequence[Record]) -> list[str]:
    """In reinforcement learning: what each step gained, over tasks compared with themselves."""

    def told(gain: Mapping[str, list[float]]) -> list[str]:
        both = zip(gain["mean"], gain["ci95"], strict=True)
        return [f"{mean:.3g} ± {ci95:.2g}" for mean, ci95 in both]

    return [
        f"- gained by 1, 2, ... steps of {name}, each task against itself: {by_seed}"
        for name, by_seed in _by_method(records, "gain", told)
    ]


def _gaps(records: Sequence[Record]) -> list[str]:
    """In reinforcement learning: which part of the gap to the oracle each step closes."""
    return [
        f"- gap to the oracle closed after 1, 2, ... steps by {name}: {by_seed}"
        for name, by_seed in _by_method(records, "oracle_gap_closed", parts)
    ]


def _by_method(
    records: Sequence[Record], detail: str, told: Callable[[Any], list[str]]
) -> list[tuple[str, str]]:
    """What a detail says of every method, and where there are several seeds, of each."""
    found = [record.get("details", {}).get(detail, {}) for record in records]
    lines = []
    for name in found[0]:
        by_seed = [
            ", ".join(told(each[name])) + (f" (seed {record['seed']})" if len(records) > 1 else "")
            for record, each in zip(records, found, strict=True)
            if name in each
        ]
        lines.append((name, "; ".join(by_seed)))
    return lines


def parts(closed: list[float] | dict[str, list[Any]]) -> list[str]:
    """Parts of a gap in words; earlier versions wrote no intervals."""
    if isinstance(closed, list):
        return [f"{part:.2f}" for part in closed]
    both = zip(closed["mean"], closed["ci95"], strict=True)
    return [f"{part:.2f} ({low:.2f} to {high:.2f})" for part, (low, high) in both]


def _duration(seconds: float) -> str:
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds:.0f} seconds"
