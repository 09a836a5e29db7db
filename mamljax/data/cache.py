"""Prepared sets on disk: written whole or not at all, and checked whenever they are read."""

import contextlib
import fcntl
import io
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.data.files import DataError, File, fingerprint
from mamljax.data.images import WRONG_SIZE
from mamljax.data.sources import ImageClass, Source
from mamljax.files import sealed, unsealed, write_json
from mamljax.running.progress import progress
from mamljax.tasks.stored import Stored

MANIFEST = "manifest.json"
FORM = "-images"
"""Ends the name of a prepared set's folder; to be changed with the form of what is in it."""
AT_A_TIME = 64
"""Images that are read at a time."""
SHOWN = 20
"""Lines of an error on many files; a file has the rest."""

Choose = Callable[[Sequence[str]], Sequence[str]]
"""All class names -> those wanted."""


class ImageSet(NamedTuple):
    """Images by class.

    images: uint8 ``[classes, most images of a class, height, width, channels]``; rows from
      ``counts[c]`` on are zeros. `Stored` ones, of the same shape, stay on disk.
    counts: int ``[classes]``.
    names: class names.
    """

    images: Any
    counts: np.ndarray
    names: tuple[str, ...]


class Manifest(NamedTuple):
    """The contents of a prepared set, and the fingerprint of the files that it was made from."""

    names: Sequence[str]
    counts: Sequence[int]
    made_from: str


class Damage(Exception):
    """A prepared set is not what its manifest says."""


def default_folder() -> Path:
    """``mamljax/data`` in ``$XDG_CACHE_HOME``, or in ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mamljax" / "data"


def read(
    source: Source,
    choose: Choose,
    data_dir: Path | None,
    cache_dir: Path,
    *,
    on_disk: bool = False,
) -> ImageSet:
    """The chosen classes of a set, which is prepared first if it is not, or not from these files.

    Without a `data_dir` the set is taken as it was last prepared. Its images are `Stored` if they
    stay `on_disk`.

    Raises:
      DataError: if that takes files that are not there or are broken.
    """
    checks.require("tensorflow_datasets", "an image set", package="tensorflow-datasets")
    home = cache_dir / f"{source.key}{FORM}"
    load = _open if on_disk else _read
    files = _look(source, data_dir)
    try:
        manifest = _manifest(home, files)
        if manifest is not None:
            return load(home, source.shape, manifest, choose)
    except Damage as damage:
        what = f"the prepared {source.title} in {home} is damaged ({damage})"
        if files is None:
            raise DataError(f"{what}: give data_dir to prepare it again.") from damage
        shutil.rmtree(home)
        warnings.warn(f"{what}; it is prepared again.", stacklevel=3)
    if files is None:
        raise DataError(f"{source.title} is not prepared in {cache_dir}: give data_dir.")
    _prepare(source, files, home)
    manifest = _manifest(home, files)
    assert manifest is not None
    return load(home, source.shape, manifest, choose)


def _look(source: Source, data_dir: Path | None) -> list[File] | None:
    """The set's files; None if they were not looked for."""
    if source.find is None:
        return []
    return None if data_dir is None else source.find(data_dir)


def _manifest(home: Path, files: list[File] | None) -> Manifest | None:
    """Return what is prepared in `home`; None if nothing is, or if it was made from other files."""
    try:
        manifest = Manifest(**unsealed((home / MANIFEST).read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError) as error:
        raise Damage(f"its {MANIFEST} is not readable: {error}") from error
    return manifest if files is None or manifest.made_from == fingerprint(files) else None


class _Records(NamedTuple):
    """The records of a prepared set: its images, class by class.

    starts: the first record of each chosen class, ``[classes]``.
    counts: the records of each chosen class, ``[classes]``.
    names: of the chosen classes.
    source: what reads a list of records.
    """

    starts: np.ndarray
    counts: np.ndarray
    names: tuple[str, ...]
    source: Any


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """Turn whatever a broken file makes the readers raise into `Damage`."""
    try:
        yield
    except (ImportError, MemoryError):
        raise  # no fault of the files
    except Exception as error:
        raise Damage(str(error)) from error


def _records(home: Path, shape: Sequence[int], manifest: Manifest, choose: Choose) -> _Records:
    from mamljax.data.builder import SPLIT, ImageClasses

    names = tuple(choose(manifest.names))
    with _readable():
        chosen = [manifest.names.index(name) for name in names]
        ends = np.cumsum(manifest.counts)
        builder: Any = ImageClasses(home, shape)  # TFDS hides its signatures from type checkers
        source = builder.as_data_source(SPLIT)
        if len(source) != ends[-1]:
            raise ArgumentError(f"it holds {len(source)} images instead of {ends[-1]}")
        counts = np.array([manifest.counts[i] for i in chosen])
        return _Records(ends[chosen] - counts, counts, names, source)


def _read(home: Path, shape: Sequence[int], manifest: Manifest, choose: Choose) -> ImageSet:
    """The chosen classes in memory."""
    records = _records(home, shape, manifest, choose)
    with _readable():
        images = np.zeros((len(records.names), max(records.counts), *shape), np.uint8)
        for i, (start, count) in enumerate(zip(records.starts, records.counts, strict=True)):
            # Some at a time: all records of a class are more than its images.
            for at in range(0, count, AT_A_TIME):
                rows = range(start + at, start + min(at + AT_A_TIME, count))
                for place, record in enumerate(records.source.__getitems__([*map(int, rows)]), at):
                    if record["name"].decode() != records.names[i]:
                        raise ArgumentError(f"class {records.names[i]!r} is not what it should be")
                    images[i, place] = record["image"]
    return ImageSet(images, records.counts, records.names)


def _open(home: Path, shape: Sequence[int], manifest: Manifest, choose: Choose) -> ImageSet:
    """The chosen classes on disk."""
    records = _records(home, shape, manifest, choose)
    with _readable():
        firsts = records.source.__getitems__([*map(int, records.starts)])
        if [record["name"].decode() for record in firsts] != [*records.names]:
            raise ArgumentError("its classes are not what they should be")

    def read(at: np.ndarray) -> np.ndarray:
        rows = records.starts[at[:, 0]] + at[:, 1]
        try:
            with _readable():
                found = records.source.__getitems__([*map(int, rows)])
        except Damage as damage:
            raise DataError(
                f"{home} is damaged ({damage}): delete it, and it is prepared again."
            ) from damage
        return np.stack([record["image"] for record in found])

    most = (len(records.names), max(records.counts), *shape)
    return ImageSet(Stored(read, most), records.counts, records.names)


def _prepare(source: Source, files: list[File], home: Path) -> None:
    from mamljax.data.builder import ImageClasses

    with _staging(home) as staging:
        if _manifest(home, files) is not None:
            return  # another process has just done it
        problems = source.unusable(files)
        classes = source.classes(files)
        if not classes:
            raise DataError(_told(problems, home))
        with progress(source.title, sum(item.size for item in classes)) as update:
            reading = _reporting(classes, update, source.shape, problems)
            builder = ImageClasses(staging, source.shape, reading)
            with contextlib.redirect_stdout(io.StringIO()):  # where TFDS announces itself
                builder.download_and_prepare(download_dir=staging / "downloads")
        if problems:
            raise DataError(_told(problems, home))
        manifest = Manifest(
            names=[item.name for item in classes],
            counts=[item.size for item in classes],
            made_from=fingerprint(files),
        )
        shutil.rmtree(staging / "downloads")
        write_json(staging / MANIFEST, sealed(manifest._asdict()))
        shutil.rmtree(home, ignore_errors=True)
        staging.rename(home)


@contextlib.contextmanager
def _staging(home: Path) -> Iterator[Path]:
    """An empty folder beside `home`, for one process at a time, that is gone in the end."""
    staging = home.with_name(f".{home.name}.preparing")
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        lock = home.with_name(f".{home.name}.lock").open("w")
    except OSError as error:
        raise DataError(
            f"{home.parent} is not writable ({error}): give another cache_dir."
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(staging, ignore_errors=True)  # of a process that was killed
        try:
            staging.mkdir()
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _told(problems: Sequence[str], home: Path) -> str:
    """All that is wrong in one message: of more than twenty lines the rest is in a file."""
    lines = "\n".join(problems).splitlines()
    # Last, since all images may have another size, which must not hide the few that are broken.
    lines = sorted(lines, key=lambda line: WRONG_SIZE in line)
    if len(lines) == 1:
        return lines[0]
    told = [f"{len(lines)} files cannot be used:", *lines[:SHOWN]]
    if len(lines) > SHOWN:
        whole = home.with_name(f"{home.name}.problems.txt")
        whole.write_text("\n".join([*lines, ""]), encoding="utf-8")
        told.append(f"and {len(lines) - SHOWN} more: all of them are listed in {whole}")
    return "\n".join(told)


def _reporting(
    classes: Sequence[ImageClass], update: Callable, shape: Sequence[int], problems: list[str]
) -> list[ImageClass]:
    """The same classes, whose reading moves the progress on.

    What cannot be read is added to `problems` and read as zeros: all of it shall be told at once.
    """
    done = 0

    def reading(item: ImageClass) -> ImageClass:
        def read() -> np.ndarray:
            nonlocal done
            try:
                images = item.read()
            except DataError as problem:
                problems.append(str(problem))
                images = np.zeros((item.size, *shape), np.uint8)
            done += item.size
            update(done, item.name)
            return images

        return item._replace(read=read)

    return [reading(item) for item in classes]
