"""Progress with rate and time left: a bar on a terminal or in a notebook, lines elsewhere."""

import contextlib
import html
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mamljax import processes
from mamljax.train import Call, Hook

LINE_SECONDS = 10.0
"""Without a terminal, a line at most this often (and one at the end)."""

Update = Callable[[int, str], None]
"""``(done, details)``: report how much is done of the whole."""


@contextlib.contextmanager
def progress(description: str, total: int, done: int = 0) -> Iterator[Update]:
    """Show the progress of a task of `total` parts, `done` of which were finished before."""
    console = Console(stderr=True, quiet=not processes.is_first())
    show = _bar if console.is_terminal else _cell if console.is_jupyter else _lines
    with show(console, description, total, done) as update:
        yield update


@contextlib.contextmanager
def training_progress(
    description: str, num_steps: int, done: int = 0, shown: Sequence[str] = ()
) -> Iterator[Hook]:
    """A hook for `fit` that shows iterations/s, tasks/s, the meta-loss and the time left.

    Args:
      description: what is trained.
      num_steps: meta-iterations in all.
      done: those that an earlier process did.
      shown: names in ``Metrics.info`` that are shown too.
    """
    with progress(description, num_steps, done) as update:

        def hook(call: Call) -> None:
            rate = call.iterations_per_second
            loss = float(np.mean(call.metrics.loss))
            speed = f"{rate:,.0f} it/s" if rate >= 10 else f"{rate:.2g} it/s"
            details = f"{speed}  {rate * call.meta_batch:,.0f} tasks/s  loss {loss:.4g}"
            for name in shown:
                details += f"  {name.replace('_', ' ')} {np.mean(call.metrics.info[name]):.4g}"
            update(call.step, details)

        yield hook


@contextlib.contextmanager
def _bar(console: Console, description: str, total: int, done: int) -> Iterator[Update]:
    columns = (
        TextColumn("{task.description:12s}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[details]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(description, total=total, completed=done, details="")
        yield lambda now, details: bar.update(task, completed=now, details=details)


@contextlib.contextmanager
def _cell(console: Console, description: str, total: int, done: int) -> Iterator[Update]:
    """A bar below the cell of a notebook; it stays there, and needs no widgets."""
    from IPython.display import HTML, display  # there is one where there are notebooks

    started = time.monotonic()

    def bar(now: int, details: str) -> "HTML":
        passed = time.monotonic() - started
        left = passed * (total - now) / max(now - done, 1)
        when = f"{left:,.0f} s left" if now < total else f"{passed:,.0f} s"
        text = html.escape(f"{description} {now:,}/{total:,}  {details}  {when}")
        return HTML(f'<progress value="{now}" max="{total}"></progress> <code>{text}</code>')

    shown = display(bar(done, ""), display_id=True)
    yield lambda now, details: None if shown is None else shown.update(bar(now, details))


@contextlib.contextmanager
def _lines(console: Console, description: str, total: int, done: int) -> Iterator[Update]:
    started = last = time.monotonic()

    def update(now: int, details: str) -> None:
        nonlocal last
        if time.monotonic() - last < LINE_SECONDS and now < total:
            return
        last = time.monotonic()
        left = (last - started) * (total - now) / max(now - done, 1)
        text = f"{description}: {now:,}/{total:,}  {details}  {left:,.0f} s left"
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    yield update
