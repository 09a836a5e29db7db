"""Files of an image set as they lie on disk, in folders or archives, read with suspicion."""

import hashlib
import io
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

MAX_BYTES = 2**28
"""No file of any known set comes near this; an archive member that claims more is a bomb."""


class DataError(ValueError):
    """An image set is missing, incomplete or broken; the message says what to do about it."""


class File(NamedTuple):
    """One file: its path below the set's folder, where it lies, its size, and its bytes.

    The path is a plain string with slashes: there are tens of thousands, on every load.
    """

    path: str
    where: str
    size: int
    read: Callable[[], bytes]

    @property
    def parts(self) -> list[str]:
        """The folders on the way, and the name."""
        return self.path.split("/")

    @property
    def name(self) -> str:
        """The name without folders."""
        return self.parts[-1]


def fingerprint(files: Sequence[File]) -> str:
    """A digest of names and sizes: cheap, and another one for other files."""
    listing = "\n".join(sorted(f"{file.path} {file.size}" for file in files))
    return hashlib.sha256(listing.encode()).hexdigest()[:16]


def at(path: Path) -> File:
    """The file at a path."""
    return File(path.name, str(path), path.stat().st_size, path.read_bytes)


def in_folder(folder: Path, below: str = "") -> Iterator[File]:
    """All files below a folder but hidden ones, in the order of their names; none without it.

    Raises:
      DataError: for a link that leads out of the folder, or to another folder.
    """
    if not below and not folder.is_dir():
        return
    with os.scandir(folder / below) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.name.startswith("."):
            continue
        if entry.is_symlink():
            _check_link(Path(entry.path), folder)
        if entry.is_dir():
            yield from in_folder(folder, f"{below}{entry.name}/")
        elif entry.is_file():
            read = partial(_read_file, entry.path)
            yield File(f"{below}{entry.name}", entry.path, entry.stat().st_size, read)


def in_zip(archive: Path) -> Iterator[File]:
    """All files in a zip archive in the order of their names; nothing is unpacked to disk.

    The archive stays open for as long as any of its files is referred to.

    Raises:
      DataError: if it is broken, or has members that no honest archive of images has.
    """
    try:
        opened = zipfile.ZipFile(archive)
    except (zipfile.BadZipFile, OSError) as error:
        raise _broken(archive, error) from error
    for member in sorted(opened.infolist(), key=lambda member: member.filename):
        _check_member(archive, member.filename, member.file_size)
        hidden = any(part.startswith((".", "__MACOSX")) for part in member.filename.split("/"))
        if member.is_dir() or hidden:
            continue
        if stat.S_ISLNK(member.external_attr >> 16):
            raise DataError(f"{archive} holds a link, {member.filename!r}: put the file there.")
        where = f"{archive}: {member.filename}"
        read = partial(_read_member, opened, member, where)
        yield File(member.filename, where, member.file_size, read)


def in_tar(file: File) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files in a tar archive that fits into memory, compressed or not.

    Raises:
      DataError: if it is broken, or has members that no honest archive has.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(file.read())) as opened:
            for member in opened:
                _check_member(file.where, member.name, member.size)
                content = opened.extractfile(member) if member.isreg() else None
                if content is not None:
                    yield member.name, content.read()
                elif not member.isdir():
                    raise DataError(f"{file.where} holds a link or a device, {member.name!r}.")
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise _broken(file.where, error) from error


def _check_member(archive: object, name: str, size: int) -> None:
    if name.startswith("/") or ".." in name.split("/") or "\\" in name:
        raise DataError(f"{archive} holds {name!r}, a path out of it: it is not to be trusted.")
    if size > MAX_BYTES:
        raise DataError(f"{archive} holds {name!r} of {size:,} bytes; {MAX_BYTES:,} is the most.")


def _broken(archive: object, error: Exception) -> DataError:
    return DataError(f"{archive} cannot be read ({error}): fetch it again.")


def _read_file(path: str) -> bytes:
    return Path(path).read_bytes()


def _read_member(opened: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> bytes:
    try:
        return opened.read(member)
    except Exception as error:  # a broken member can make zlib and zipfile raise anything
        raise _broken(where, error) from error


def _check_link(link: Path, folder: Path) -> None:
    if not link.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{link} is a link out of {folder}: put what it links to there instead.")
    if not link.exists():
        raise DataError(f"{link} is a link to nothing: put the file itself there instead.")
    if link.is_dir():
        raise DataError(f"{link} is a link to a folder: put the folder itself there instead.")
