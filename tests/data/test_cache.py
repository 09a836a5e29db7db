"""The prepared form of a set: whole or absent, checked, made anew when its files change."""

import fcntl
import json
import sys
from functools import partial

import numpy as np
import pytest
from array_record.python.array_record_data_source import ArrayRecordDataSource

from mamljax.data import DataError, cache
from mamljax.data.files import at
from mamljax.data.sources import ImageClass, Source

SHAPE = (3, 4, 2)
SIZES = {"ant": 5, "bee": 2, "cow": 7}


def images_of(name):
    seed = sorted(SIZES).index(name)
    return np.random.default_rng(seed).integers(0, 256, (SIZES[name], *SHAPE), np.uint8)


def source_of(read=images_of, calls=None):
    def classes(files):
        if calls is not None:
            calls.append(len(files))
        return [ImageClass(name, size, partial(read, name)) for name, size in SIZES.items()]

    return Source("Animals", "animals-1", SHAPE, lambda folder: [at(folder / "raw")], classes)


@pytest.fixture
def raw(tmp_path, write):
    write(tmp_path / "data/raw", b"some")
    return tmp_path / "data"


@pytest.fixture
def home(tmp_path):
    return tmp_path / "cache"


def everything(names):
    return names


def leftovers(home):
    return sorted(path.name for path in home.iterdir() if not path.name.endswith(".lock"))


def test_round_trip_of_classes_of_unequal_size(raw, home):
    for _ in range(2):
        found = cache.read(source_of(), everything, raw, home)
        assert found.names == ("ant", "bee", "cow")
        assert found.counts.tolist() == [5, 2, 7]
        assert (found.images.shape, found.images.dtype) == ((3, 7, *SHAPE), np.uint8)
        for images, count, name in zip(*found, strict=True):
            np.testing.assert_array_equal(images[:count], images_of(name))
            assert not images[count:].any()
    assert leftovers(home) == ["animals-1-images"]
    assert sorted(path.name for path in (home / "animals-1-images").iterdir()) == [
        "image_classes",
        "manifest.json",
    ]


def test_some_classes_in_another_order(raw, home):
    found = cache.read(source_of(), lambda names: ["bee", "ant"], raw, home)
    assert (found.names, found.counts.tolist()) == (("bee", "ant"), [2, 5])
    np.testing.assert_array_equal(found.images[0, :2], images_of("bee"))
    assert found.images.shape[1] == 5  # as many as the largest that was asked for


def test_many_shards(raw, home, monkeypatch):
    monkeypatch.setattr("mamljax.data.builder.SHARD_BYTES", 1)
    found = cache.read(source_of(), everything, raw, home)
    assert len(list(home.rglob("*.array_record*"))) == 3
    np.testing.assert_array_equal(found.images[2], images_of("cow"))


def test_prepared_once_and_again_for_other_files(raw, home, write):
    calls = []
    for _ in range(2):
        cache.read(source_of(calls=calls), everything, raw, home)
    assert len(calls) == 1
    write(raw / "raw", b"other")
    cache.read(source_of(calls=calls), everything, raw, home)
    assert len(calls) == 2


def test_without_files_it_is_what_was_prepared_before(raw, home, write):
    with pytest.raises(DataError, match=r"Animals is not prepared in .*cache: give data_dir"):
        cache.read(source_of(), everything, None, home)
    cache.read(source_of(), everything, raw, home)
    write(raw / "raw", b"other")
    assert cache.read(source_of(), everything, None, home).names == ("ant", "bee", "cow")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, DataError])
def test_an_interruption_leaves_nothing(raw, home, error):
    def stop(name):
        if name == "bee":
            raise error("in the middle")
        return images_of(name)

    with pytest.raises(error, match="in the middle"):
        cache.read(source_of(stop), everything, raw, home)
    assert leftovers(home) == []
    assert cache.read(source_of(), everything, raw, home).counts.sum() == 14


def test_an_interruption_keeps_what_was_prepared_from_other_files(raw, home, write):
    cache.read(source_of(), everything, raw, home)
    write(raw / "raw", b"other")
    with pytest.raises(ZeroDivisionError):
        cache.read(source_of(lambda name: 1 // 0), everything, raw, home)
    assert cache.read(source_of(), everything, None, home).counts.sum() == 14


def test_what_a_killed_process_left_is_cleaned_away(raw, home, write):
    write(home / ".animals-1-images.preparing/image_classes/half")
    assert cache.read(source_of(), everything, raw, home).counts.sum() == 14
    assert leftovers(home) == ["animals-1-images"]


def test_who_had_to_wait_takes_what_the_other_prepared(raw, home, monkeypatch):
    def wait(lock, how):
        monkeypatch.setattr(fcntl, "flock", lambda *_: None)
        cache.read(source_of(), everything, raw, home)

    monkeypatch.setattr(fcntl, "flock", wait)
    untouched = source_of(lambda name: pytest.fail("prepared twice"))
    assert cache.read(untouched, everything, raw, home).counts.sum() == 14


def cut(path):
    path.write_bytes(path.read_bytes()[:-10])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


def forget(path):
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"names": manifest["names"][1:]}))


def rename(path):
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"names": manifest["names"][::-1]}))


def recount(path):
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"counts": [5, 3, 7]}))


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        ("*.array_record*", cut),
        ("*.array_record*", flip),
        ("*.array_record*", lambda path: path.unlink()),
        ("dataset_info.json", lambda path: path.unlink()),
        ("manifest.json", cut),
        ("manifest.json", lambda path: path.write_text("[]")),
        ("manifest.json", lambda path: path.write_text('{"names": []}')),
        ("manifest.json", rename),
        ("manifest.json", recount),
    ],
)
def test_damage_is_reported_and_mended(raw, home, pattern, damage):
    cache.read(source_of(), everything, raw, home)
    (path,) = home.rglob(pattern)
    damage(path)
    with pytest.raises(DataError, match=r"Animals in .* is damaged .*: give data_dir to prepare"):
        cache.read(source_of(), everything, None, home)
    with pytest.warns(UserWarning, match=r"Animals in .* is damaged .*; it is prepared again"):
        found = cache.read(source_of(), everything, raw, home)
    np.testing.assert_array_equal(found.images[2], images_of("cow"))
    assert cache.read(source_of(), everything, raw, home).counts.sum() == 14


def test_a_class_that_the_manifest_lacks_is_damage(raw, home):
    wanted = lambda names: ["ant"]  # noqa: E731
    cache.read(source_of(), wanted, raw, home)
    forget(home / "animals-1-images/manifest.json")
    with pytest.warns(UserWarning, match="is damaged"):
        assert cache.read(source_of(), wanted, raw, home).names == ("ant",)


def test_a_cache_that_is_not_writable_is_found_before_the_work(raw, tmp_path, write):
    write(tmp_path / "file")
    untouched = source_of(lambda name: pytest.fail("worked in vain"))
    with pytest.raises(DataError, match=r"file/cache is not writable .*: give another cache_dir"):
        cache.read(untouched, everything, raw, tmp_path / "file/cache")


def test_wrong_images_are_never_stored(raw, home):
    wrong = source_of(lambda name: images_of(name)[:, :2])
    with pytest.raises(ValueError, match="does not match"):
        cache.read(wrong, everything, raw, home)
    assert leftovers(home) == []


def test_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.default_folder() == tmp_path / "xdg/mamljax/data"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.default_folder() == tmp_path / ".cache/mamljax/data"


def test_progress_counts_images(raw, home, capsys):
    cache.read(source_of(), everything, raw, home)
    printed = capsys.readouterr()
    assert "Animals: 14/14" in printed.err
    assert printed.out == ""


def test_tensorflow_is_not_needed(raw, home):
    cache.read(source_of(), everything, raw, home)
    assert "tensorflow" not in sys.modules


def on_disk(home, raw, choose=everything):
    return cache.read(source_of(), choose, raw, home, on_disk=True)


def test_images_may_stay_on_disk(raw, home, monkeypatch):
    monkeypatch.setattr("mamljax.data.builder.SHARD_BYTES", 1)
    choose = lambda names: ["cow", "ant"]  # noqa: E731
    found, expected = on_disk(home, raw, choose), cache.read(source_of(), choose, raw, home)
    assert found.names == expected.names
    np.testing.assert_array_equal(found.counts, expected.counts)
    assert found.images.shape == expected.images.shape
    classes, places = np.array([[1, 0], [0, 0]]), np.array([[4, 6], [0, 3]])
    np.testing.assert_array_equal(found.images[classes, places], expected.images[classes, places])


@pytest.mark.parametrize("damage", [flip, lambda path: path.unlink()])
def test_damage_shows_when_images_on_disk_are_opened(raw, home, damage):
    on_disk(home, raw)
    (path,) = home.rglob("*.array_record*")
    damage(path)
    with pytest.warns(UserWarning, match="is damaged"):
        found = on_disk(home, raw)
    np.testing.assert_array_equal(found.images[2, 6], images_of("cow")[6])


def test_damage_that_shows_later_is_told(raw, home, monkeypatch):
    def broken(self, rows):
        raise RuntimeError("a bad block")

    found = on_disk(home, raw)
    monkeypatch.setattr(ArrayRecordDataSource, "__getitems__", broken)
    where = np.array([2]), np.array([6])
    with pytest.raises(Exception, match=r"animals-1-images is damaged \(a bad block\): delete it"):
        np.asarray(found.images[where])
