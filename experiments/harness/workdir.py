"""The work directory of a run: writable, and one run's alone."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from mamljax import processes
from mamljax.checks import ArgumentError

LOCK = ".lock"


class WorkdirError(ArgumentError):
    """A work directory that cannot be worked in."""


@contextlib.contextmanager
def claimed(workdir: Path) -> Iterator[None]:
    """Make it, and hold it until the end; of several processes the first does.

    The lock is the operating system's, so that one of a process that was killed is free.

    Raises:
      WorkdirError: if it cannot be written to, or another process is at work in it.
    """
    if not processes.is_first():
        yield
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise WorkdirError(
            f"--workdir={workdir} cannot be written to ({error.strerror}): give another one."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise WorkdirError(
                f"process {lock.read().strip() or 'unknown'} is at work in --workdir={workdir}: "
                "wait for it, or give another one."
            ) from error
        except OSError:
            pass  # some network file systems have no locks
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield
