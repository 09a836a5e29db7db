"""Measurements that take long, part by part: each is written when it is done.

The same command goes on with what is missing.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.benchmark.measure import matmul_gflops
from mamljax import files
from mamljax.running.progress import progress
from mamljax.running.provenance import provenance

RESULTS = Path(__file__).parents[2] / "results"
"""Where published weights are, for suites that measure them."""

Parts = dict[str, Callable[[], Any]]
"""Functions by name, which measure, and return a row or a list of rows, such as JSON holds."""


def run(name: str, output: Path, parts: Parts) -> dict[str, Any]:
    """Measure what the output does not hold yet; print it all.

    Args:
      name: of the suite.
      output: the JSON file.
      parts: in the order of what matters most.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    found = json.loads(output.read_text(encoding="utf-8")) if output.exists() else {}
    done = found.get("parts", {})
    found = provenance(f"speed: {name}", {}) | {"parts": done}
    found["matmul_gflops"] = matmul_gflops()
    with progress(name, len(parts), len(done)) as update:
        for part, measure in parts.items():
            if part not in done:
                done[part] = json.loads(json.dumps(measure()))
                files.write_json(output, found)
            update(len(done), part)
    show(done)
    return found


def show(done: Mapping[str, Any]) -> None:
    """Print every part as a table; those of a single row each in a common one."""
    console = Console()
    single: dict[tuple[str, ...], Table] = {}
    for name, part in done.items():
        if isinstance(part, list):
            table = Table(*part[0], title=name)
            for row in part:
                table.add_row(*map(_cell, row.values()))
            console.print(table)
        else:
            table = single.setdefault(tuple(part), Table("", *part))
            table.add_row(name, *map(_cell, part.values()))
    for table in single.values():
        console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value:,.4g}"
