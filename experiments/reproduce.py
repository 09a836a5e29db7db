"""Reproduce the paper: train what is missing, publish what is done, tell how every row stands.

    mamljax reproduce --status
    mamljax reproduce --data=data --hours=2.5 --nice=19
    mamljax reproduce --only=omniglot --verify
    mamljax reproduce --at_once=5                    # on a GPU, which one row does not fill

The rows are in configs/paper.py, in the order in which they are trained. Kill it at any time: the
same command goes on where it stopped. The report, figures and weights of a finished row go to
results/, and RESULTS.md is written anew; the checkpoints of an unfinished one that has as much in
it as two CPU cores do in an hour go to results/unfinished/, from where any machine goes on.
`--data` holds the image sets, each in a folder of its name; rows whose images are not there are
passed over.
"""

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from configs.paper import ROWS, Row
from experiments import results
from experiments.reproduction import standing, work
from experiments.reproduction.places import Places
from mamljax.checks import ArgumentError
from mamljax.running.table import Table, print_table

POLL_SECONDS = 0.5
"""Between two looks at what is being trained."""


def main(words: Sequence[str]) -> None:
    """Parse the command line, then train, verify or tell."""
    given = _parser().parse_args(words)
    places = Places(runs=given.runs, data=given.data)
    try:
        rows = chosen(given.only)
        if given.verify:
            raise SystemExit(0 if verified(rows, places) else 1)
        if not given.status:
            with _interrupted_by_sigterm():
                train(rows, places, hours=given.hours, nice=given.nice, at_once=given.at_once)
    except (ArgumentError, RuntimeError) as error:
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit("Stopped. The same command goes on from the last checkpoint.") from None
    tell(rows, places)


def chosen(only: str) -> list[Row]:
    """Return the rows whose name begins with one of the given words, separated by commas.

    Raises:
      ArgumentError: if there are none.
    """
    starts = tuple(filter(None, only.split(",")))
    rows = [row for row in ROWS if not starts or row.name.startswith(starts)]
    if not rows:
        names = ", ".join(row.name for row in ROWS)
        raise ArgumentError(f"--only={only}: no row begins so; there are {names}.")
    return rows


def train(
    rows: Sequence[Row], places: Places, *, hours: float, nice: int, at_once: int = 1
) -> None:
    """Train what is missing until the time is up, publishing every seed that is done.

    Args:
      rows, places: which and where.
      hours: from now on.
      nice: of every training.
      at_once: how many are trained side by side.

    Raises:
      RuntimeError: after all others, if the training of some has ended with an error.
    """
    deadline = time.monotonic() + 3600 * hours
    memory = "all" if at_once == 1 else "needed"
    waiting = [(row, seed) for row in rows for seed in row.seeds]
    running: list[work.Job] = []
    failed: list[str] = []
    try:
        while True:
            if time.monotonic() > deadline:
                waiting.clear()
                for job in running:
                    job.stop()
            while len(running) < at_once and (taken := _take(waiting, running, places)):
                running.append(work.Job(*taken, places, nice, memory))
            running = [job for job in running if not _ended(job, places, failed)]
            if not running and not waiting:
                break
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:  # which the processes, each in a session of its own, have not seen
        for job in running:
            job.stop()
        for job in running:
            job.wait()
            _keep(job, places)
        raise
    if failed:
        raise RuntimeError(f"training ended with an error, see above: {'; '.join(failed)}")


def _take(
    waiting: list[tuple[Row, int]], running: Sequence[work.Job], places: Places
) -> tuple[Row, int] | None:
    """Take out what can begin: not what tests a network that is being trained.

    What is done by now, or cannot begin, is taken out as well.
    """
    being_trained = {job.row.name for job in running}
    for row, seed in [*waiting]:
        if row.network in being_trained:
            continue
        waiting.remove((row, seed))
        if not standing.is_done(row, seed, places) and _can_begin(row, seed, places):
            return row, seed
    return None


def _can_begin(row: Row, seed: int, places: Places) -> bool:
    """Whether all that a row needs is there; tells what is not."""
    images = places.images(row)
    lacks = ""
    if images is not None and not images.is_dir():
        lacks = f"there is no folder {images}"
    elif row.network and not places.weights(row).is_file():
        lacks = f"it tests {row.network}"
    if lacks:
        if seed == row.seeds[0]:
            print(f"{row.name}: passed over, {lacks}.", file=sys.stderr)
        return False
    log = places.workdir(row, seed) / work.LOG
    print(f"{row.name}, seed {seed}: about {row.hours:g} h, see {log}", file=sys.stderr)
    return True


def _ended(job: work.Job, places: Places, failed: list[str]) -> bool:
    """Whether a job has ended; then what it leaves is packed or published."""
    try:
        finished = job.finished()
    except RuntimeError as error:
        print(f"{job.name}: {error}", file=sys.stderr)
        failed.append(job.name)
        finished = False
    if finished is None:
        return False
    if finished:
        work.publish(job.row, job.seed, places)
        results.main()
    else:
        _keep(job, places)
    return True


def _keep(job: work.Job, places: Places) -> None:
    if packed := work.pack(job.row, job.seed, places):
        print(f"{job.name}: packed into {packed}", file=sys.stderr)


@contextlib.contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does: training, a process of its own, is told by both."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def verified(rows: Sequence[Row], places: Places) -> bool:
    """Test all published weights again, print how they stand, return whether all hold."""
    found = [
        tested
        for row in rows
        if (tested := work.verify(row, places, lambda line: print(line, file=sys.stderr)))
    ]
    if not found:
        raise ArgumentError("no weights are published of these rows.")
    cells = [
        [one.row.name, f"{one.published:.4f}", f"{one.again:.4f}", "yes" if one.holds else "NO"]
        for one in found
    ]
    print_table(Table(["row", "published", "again", "holds"], cells, ""), "Weights")
    return all(one.holds for one in found)


def tell(rows: Sequence[Row], places: Places) -> None:
    """Print how every row stands."""
    found = [standing.standing(row, places) for row in rows]
    print_table(standing.trainings(found), "Training")
    print_table(standing.numbers(found), "Numbers")
    print(standing.summary(found))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mamljax reproduce",
        description="Train what is missing of the paper's rows, and tell how each stands.",
    )
    parser.add_argument("--status", action="store_true", help="only tell how every row stands")
    parser.add_argument("--verify", action="store_true", help="test the published weights again")
    parser.add_argument("--only", default="", help="rows that begin so, such as miniimagenet")
    parser.add_argument(
        "--hours", type=float, default=1e6, help="stop after so many (all it takes)"
    )
    parser.add_argument(
        "--at_once", type=_count, default=1, help="rows side by side: one does not fill a GPU (1)"
    )
    parser.add_argument("--nice", type=int, default=0, help="niceness of training, up to 19")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the image sets")
    parser.add_argument("--runs", type=Path, default=Path("runs/paper"), help="work directories")
    return parser


def _count(word: str) -> int:
    if not word.isdecimal() or not int(word):
        raise argparse.ArgumentTypeError(f"a number of at least 1 is expected; got {word!r}.")
    return int(word)


if __name__ == "__main__":
    main(sys.argv[1:])
