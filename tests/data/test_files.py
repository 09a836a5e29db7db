"""Files in folders and archives that were made by somebody else."""

import gzip
import io
import os
import tarfile
import zipfile

import pytest

from mamljax.data import files
from mamljax.data.files import DataError, at, fingerprint, in_folder, in_tar, in_zip


def zipped(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def tarred(path, *members, data=b"x"):
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            member.size = len(data) if member.isreg() else 0
            archive.addfile(member, io.BytesIO(data))
    return at(path)


def test_folder_is_listed_in_the_order_of_names(tmp_path, write):
    for name in ("b/2.png", "b/1.png", "a/z/3.png", ".hidden/4.png", "b/.5.png"):
        write(tmp_path / name, name.encode())
    found = list(in_folder(tmp_path))
    assert [file.path for file in found] == ["a/z/3.png", "b/1.png", "b/2.png"]
    assert [(file.read(), file.size) for file in found[:1]] == [(b"a/z/3.png", 9)]
    assert (found[0].parts, found[0].name) == (["a", "z", "3.png"], "3.png")
    assert list(in_folder(tmp_path / "absent")) == []


def test_special_files_are_not_waited_for(tmp_path, write):
    os.mkfifo(tmp_path / "pipe.png")
    write(tmp_path / "file.png")
    assert [file.path for file in in_folder(tmp_path)] == ["file.png"]


def test_zip_lists_the_same_files(tmp_path):
    members = {"b/1.png": b"1", "a/": b"", "a/2.png": b"22", "__MACOSX/b/._1.png": b"-"}
    found = list(in_zip(zipped(tmp_path / "x.zip", members)))
    assert [(file.path, file.size, file.read()) for file in found] == [
        ("a/2.png", 2, b"22"),
        ("b/1.png", 1, b"1"),
    ]


def test_fingerprint_sees_names_and_sizes(tmp_path, write):
    write(tmp_path / "set/a.png", b"1")
    before = fingerprint(list(in_folder(tmp_path / "set")))
    assert fingerprint(list(in_folder(tmp_path / "set"))) == before
    write(tmp_path / "set/a.png", b"12")
    larger = fingerprint(list(in_folder(tmp_path / "set")))
    (tmp_path / "set/a.png").rename(tmp_path / "set/b.png")
    renamed = fingerprint(list(in_folder(tmp_path / "set")))
    assert len({before, larger, renamed}) == 3


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("../outside.png", "is a link out of"),
        ("../outside", "is a link out of"),
        ("/dev/zero", "is a link out of"),
        ("inside", "is a link to a folder"),
        ("absent.png", "is a link to nothing"),
    ],
)
def test_links_are_refused(tmp_path, write, target, message):
    write(tmp_path / "outside.png")
    write(tmp_path / "outside/1.png")
    write(tmp_path / "set/inside/1.png")
    (tmp_path / "set/link").symlink_to(target)
    with pytest.raises(DataError, match=message):
        list(in_folder(tmp_path / "set"))


def test_links_to_files_inside_are_files_and_the_folder_itself_may_be_a_link(tmp_path, write):
    write(tmp_path / "set/a/1.png", b"one")
    (tmp_path / "set/2.png").symlink_to("a/1.png")
    (tmp_path / "link").symlink_to("set")
    found = list(in_folder(tmp_path / "link"))
    assert [(file.path, file.read()) for file in found] == [("2.png", b"one"), ("a/1.png", b"one")]


@pytest.mark.parametrize("name", ["../x.png", "a/../../x.png", "/x.png", "..\\x.png"])
def test_members_that_lead_out_are_refused(tmp_path, name):
    with pytest.raises(DataError, match="a path out of it"):
        list(in_zip(zipped(tmp_path / "x.zip", {name: b"1"})))
    with pytest.raises(DataError, match="a path out of it"):
        list(in_tar(tarred(tmp_path / "x.tar.gz", tarfile.TarInfo(name))))


def test_links_in_archives_are_refused(tmp_path):
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(link, "/etc/hostname")
    with pytest.raises(DataError, match=r"holds a link, 'link\.png'"):
        list(in_zip(tmp_path / "x.zip"))
    member = tarfile.TarInfo("link.png")
    member.type, member.linkname = tarfile.SYMTYPE, "/etc/hostname"
    with pytest.raises(DataError, match=r"holds a link or a device, 'link\.png'"):
        list(in_tar(tarred(tmp_path / "x.tar.gz", member)))


def test_huge_members_are_refused_before_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", bytes(1001))
    with pytest.raises(DataError, match=r"'bomb\.png' of 1,001 bytes; 1,000 is the most"):
        list(in_zip(tmp_path / "x.zip"))
    with pytest.raises(DataError, match=r"'bomb' of 1,001 bytes; 1,000 is the most"):
        list(in_tar(tarred(tmp_path / "x.tar.gz", tarfile.TarInfo("bomb"), data=bytes(1001))))


def test_broken_archives_are_named(tmp_path, write):
    cut = zipped(tmp_path / "cut.zip", {"a.png": b"1" * 500}).read_bytes()[:300]
    with pytest.raises(DataError, match=r"cut\.zip cannot be read .*fetch it again"):
        list(in_zip(write(tmp_path / "cut.zip", cut)))
    whole = zipped(tmp_path / "flipped.zip", {"a.png": b"1" * 500}).read_bytes()
    flipped = write(tmp_path / "flipped.zip", whole.replace(b"1" * 500, b"1" * 499 + b"2"))
    with pytest.raises(DataError, match=r"flipped\.zip: a\.png cannot be read \(Bad CRC"):
        next(in_zip(flipped)).read()
    for name, data in [
        ("no.tar.gz", b"no archive"),
        ("cut.tar.gz", gzip.compress(bytes(9000))[:20]),
    ]:
        with pytest.raises(DataError, match=rf"{name} cannot be read"):
            list(in_tar(at(write(tmp_path / name, data))))


def test_tar_gives_names_and_contents(tmp_path):
    folder = tarfile.TarInfo("set")
    folder.type = tarfile.DIRTYPE
    archive = tarred(tmp_path / "x.tar.gz", folder, tarfile.TarInfo("set/a"), data=b"abc")
    assert list(in_tar(archive)) == [("set/a", b"abc")]
