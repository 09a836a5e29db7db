"""Ctrl-C and the request to terminate: training ends with a checkpoint, and says how to go on."""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator

from mamljax import processes
from mamljax.checkpoint import Checkpoints
from mamljax.train import Chunk, Hook

EXIT_STATUS = 128 + signal.SIGINT


class Interrupted(KeyboardInterrupt):
    """Training has stopped on request; the message says where and how it goes on."""


@contextlib.contextmanager
def noticed() -> Iterator[Callable[[], bool]]:
    """Tells whether to stop: Ctrl-C and SIGTERM are noted within, and obeyed when they come twice.

    A cluster sends SIGTERM before it takes a machine away.
    """
    seen = []

    def note(number, frame):
        del frame
        if seen:
            raise KeyboardInterrupt
        seen.append(number)
        print("\nStopping after this chunk. Once more: at once.", file=sys.stderr, flush=True)

    if threading.current_thread() is not threading.main_thread():  # which alone sees signals
        yield lambda: False
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_hook(asked: Callable[[], bool], checkpoints: Checkpoints) -> Hook:
    """Ends training when asked to, with a checkpoint; of several processes the first decides."""

    def hook(chunk: Chunk) -> bool:
        stop = bool(processes.from_first(asked()))
        if stop and chunk.step < chunk.num_steps and chunk.step not in checkpoints.steps():
            # Without a score: it would take its time, and the choice of the best checkpoint must
            # not depend on when a run was stopped.
            checkpoints.save(chunk.state)
        return stop

    return hook
