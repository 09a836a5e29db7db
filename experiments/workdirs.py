"""The work directory of a run: writable, and one run's alone."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from mamljax import processes

LOCK = ".lock"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class WorkdirError(ValueError):
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


def full(error: Exception) -> str | None:
    """What to say where an error is that of a full disk; None for other errors."""
    codes = {getattr(cause, "errno", None) for cause in (error, error.__cause__)}
    told = any(os.strerror(code) in str(error) for code in FULL)  # by libraries not in Python
    if not told and not codes & set(FULL):
        return None
    notes = " ".join(getattr(error, "__notes__", []))
    return (
        f"the disk is full ({error}). {notes} Make room, then give the same command: it goes on "
        "from the last checkpoint, which is whole."
    )
