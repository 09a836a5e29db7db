"""Files that are either the old or the new version, never half of one; records with checksums."""

import contextlib
import errno
import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

CHECKSUM = "checksum"

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a full disk, a used-up quota, a file that may not grow."""


@contextlib.contextmanager
def staged(path: Path) -> Iterator[Path]:
    """A hidden file of the same suffix beside `path`, to be written, that replaces it in the end.

    On any error inside the block it is removed, and the old file stays.
    """
    staging = path.with_name(f".{path.stem}.{os.getpid()}.writing{path.suffix}")
    try:
        yield staging
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in one atomic rename; on any error the old file stays."""
    with staged(path) as staging:
        staging.write_text(text, encoding="utf-8")


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Replace `path` by named arrays as ``.npz``, likewise."""
    with staged(path) as staging, staging.open("wb") as file:
        named: dict[str, Any] = dict(arrays)
        np.savez_compressed(file, **named)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def ask_for_room(folder: Path, size: int) -> None:
    """Take room on the disk for a number of bytes, and give it back.

    Raises:
      OSError: one of `FULL` if there is not so much.
    """
    taken = folder / ".room"
    try:
        with taken.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(size, 1))
    except OSError as error:
        if error.errno in FULL:  # else the file system cannot tell
            raise
    finally:
        taken.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as JSON. NaN and infinities, which JSON lacks, become null."""
    write_text(path, json.dumps(_finite(value), indent=2) + "\n")


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record as JSON has it, with a checksum, so that no flipped digit passes for a result."""
    plain = json.loads(json.dumps(_finite(dict(record))))
    return plain | {CHECKSUM: _checksum(plain)}


def unsealed(text: str) -> dict[str, Any]:
    """Return what was `sealed` and written as JSON.

    Raises:
      ValueError: if it is not what was written.
    """
    record = json.loads(text)
    if not isinstance(record, dict) or record.pop(CHECKSUM, None) != _checksum(record):
        raise ValueError("its checksum is not that of its content")
    return record


def _checksum(record: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and value - value != 0:
        return None
    return value
