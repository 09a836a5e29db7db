"""Endings of a run before its time: Ctrl-C, a full disk, too little memory.

Each ends with a checkpoint, and with one line that says how to go on.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import NoReturn

from flax.traverse_util import flatten_dict

from experiments.harness.config import Config
from mamljax import files, processes
from mamljax.running.checkpoint import Checkpoints
from mamljax.train import Call, Hook

EXIT_STATUS = 128 + signal.SIGINT

INTERRUPTED = "Stopped. The same command goes on from the last checkpoint."

LESS_MEMORY = (
    ("train.task_chunk", 1),
    ("train.remat", True),
    ("train.rollout_chunk", 1),
    ("evaluate.task_chunk", 1),
    ("train.meta_batch", "fewer tasks, which is another experiment"),
)
"""Values that need less memory, in the order in which they cost something."""


class Interrupted(KeyboardInterrupt):
    """Training has stopped on request; the message says where and how it goes on."""


@contextlib.contextmanager
def noticed() -> Iterator[Callable[[], bool]]:
    """Tell whether to stop: Ctrl-C and SIGTERM are noted within, and obeyed when they come twice.

    A cluster sends SIGTERM before it takes a machine away.
    """
    seen = []

    def note(number, frame):
        del frame
        if seen:
            raise KeyboardInterrupt
        seen.append(number)
        print("\nStopping after this call. Once more: at once.", file=sys.stderr, flush=True)

    if threading.current_thread() is not threading.main_thread():  # which alone sees signals
        yield lambda: False
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_hook(
    asked: Callable[[], bool],
    checkpoints: Checkpoints,
    totals: Callable[[], Mapping[str, float]] = dict,
) -> Hook:
    """Return a hook that ends training when asked to, with a checkpoint.

    Of several processes the first decides.
    """

    def hook(call: Call) -> bool:
        stop = bool(processes.from_first(asked()))
        if stop and call.step < call.num_steps and call.step not in checkpoints.steps():
            # Without a score: it would take its time, and the choice of the best checkpoint must
            # not depend on when a run was stopped.
            checkpoints.save(call.state, totals=totals())
        return stop

    return hook


def at_once(message: str) -> NoReturn:
    """End the process with an error: what else would write at its end to a full disk, cannot."""
    print(f"error: {message}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def explained(error: Exception, config: Config) -> str | None:
    """Return what to say of a full disk or of too little memory; None for other errors."""
    return _full_disk(error) or _out_of_memory(error, config)


def _full_disk(error: Exception) -> str | None:
    codes = {getattr(cause, "errno", None) for cause in (error, error.__cause__)}
    told = any(os.strerror(code) in str(error) for code in files.FULL)  # by libraries not in Python
    if not told and not codes & set(files.FULL):
        return None
    notes = " ".join(getattr(error, "__notes__", []))
    return (
        f"the disk is full ({error}). {notes} Make room, then give the same command: it goes on "
        "from the last checkpoint, which is whole."
    )


def _out_of_memory(error: Exception, config: Config) -> str | None:
    if "RESOURCE_EXHAUSTED" not in str(error):
        return None
    present = flatten_dict(config.to_dict(), sep=".")
    less = ", ".join(f"--config.{name}={value}" for name, value in LESS_MEMORY if name in present)
    return (
        f"out of memory ({str(error).splitlines()[0]}). What needs less, in this order: {less}. "
        "The same command goes on from the last checkpoint."
    )
