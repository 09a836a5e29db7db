"""`load`: names and options, a user's own folder, glyphs, the real Omniglot."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mamljax.data import DataError, NoClasses, glyphs, load, loading, split_names

DEFAULT_FOLDER = Path(__file__).parents[3] / "shared" / "data"
REAL = Path(os.environ.get("MAMLJAX_DATA", DEFAULT_FOLDER))


@pytest.fixture
def own(tmp_path, write, image_bytes):
    """A folder of dogs and cats; cats come in two sizes of file, and two kinds."""
    layout = {"train/dog": 3, "train/cat": 2, "validation/dog": 1, "test/cow": 2}
    for c, (where, size) in enumerate(layout.items()):
        for i in range(size):
            kind, suffix = [("PNG", "png"), ("JPEG", "jpg")][i % 2]
            data = image_bytes((6, 5), 50 * c + i, kind=kind)
            write(tmp_path / f"own/{where}/{i}.{suffix}", data)
    write(tmp_path / "own/README.txt", b"not an image")
    return tmp_path / "own"


@pytest.fixture
def load_own(own, tmp_path):
    def load_it(split="train", **options):
        options = {"image_size": (6, 5), **options}
        return load("folder", split, data_dir=own, cache_dir=tmp_path / "cache", **options)

    return load_it


def test_own_folder(load_own):
    found = load_own()
    assert (found.names, found.counts.tolist()) == (("cat", "dog"), [2, 3])
    assert (found.images.shape, found.images.dtype) == ((2, 3, 6, 5, 3), np.uint8)
    assert not found.images[0, 2].any()  # padding
    assert found.images[1, 0, 0, 0].tolist() == [0, 0, 255]
    assert (load_own("validation").names, load_own("test").names) == (("dog",), ("cow",))


def test_own_folder_grey_and_resized(load_own):
    assert load_own(grayscale=True).images.shape == (2, 3, 6, 5, 1)
    resized = load_own(image_size=(12, 9), resize=True)
    assert resized.images.shape == (2, 3, 12, 9, 3)
    assert resized.images[1, 0, 0, 0].tolist() == [0, 0, 255]
    assert load_own().images.shape == (2, 3, 6, 5, 3)  # options do not share what is prepared


def test_own_folder_may_grow(load_own, own, write, image_bytes):
    load_own()
    write(own / "train/eel/0.png", image_bytes((6, 5)))
    assert load_own().names == ("cat", "dog", "eel")


def remove_test(own):
    for path in (own / "test/cow").iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove_test, "there is no folder 'test', only train, validation. Put images at SPLIT"),
        (
            lambda own: (own / "test").rename(own / "val"),
            r"2 files .*\n.*val/cow/0\.png is in the folder of no .* SPLIT is .*\n.*cow/1\.jpg is",
        ),
        (
            lambda own: (own / "test/cow/0.png").rename(own / "0.png"),
            r"own/0\.png is in the folder of no class",
        ),
        (lambda own: own.rename(own.with_name("gone")), "there are no images .*own. Put images at"),
    ],
)
def test_own_folder_of_another_layout(load_own, own, change, message):
    change(own)
    with pytest.raises(DataError, match=message):
        load_own("test")


@pytest.mark.parametrize("name", ["film.mp4", "notes.txt", "more/1.heic"])
def test_what_lies_among_the_images_unread_is_told(load_own, own, write, name):
    write(own / "train/cat" / name, b"?")
    with pytest.raises(DataError, match=rf"train/cat/{name} is not read, .* convert it"):
        load_own()


def test_all_that_is_wrong_is_in_one_message(load_own, own, write, image_bytes):
    for name in ("train/cat/more/1.png", "train/2.webp", "test/cow/7.png"):
        write(own / name, image_bytes((9, 9)))
    write(own / "train/cat/notes.txt", b"?")
    write(own / "train/dog/0.png", b"broken")
    with pytest.raises(DataError, match="5 files cannot be used:") as caught:
        load_own()
    told = str(caught.value).splitlines()
    for name in ("cat/more/1.png", "train/2.webp", "cat/notes.txt", "dog/0.png", "cow/7.png"):
        assert sum(name in line for line in told) == 1
    assert "is 9 x 9 pixels; expected 6 x 5 (resize=True brings all" in told[-1]
    for name in ("train/cat/more/1.png", "train/2.webp", "test/cow/7.png", "train/cat/notes.txt"):
        (own / name).unlink()
    write(own / "train/dog/0.png", image_bytes((6, 5)))
    assert load_own().counts.tolist() == [2, 3]  # mended, it is read


def test_of_many_broken_files_a_file_lists_all(load_own, own, write):
    for i in range(30):
        write(own / f"train/cat/{i + 10}.png", b"broken")
    with pytest.raises(DataError, match="and 10 more: all of them are listed in ") as caught:
        load_own()
    whole = Path(str(caught.value).split("listed in ")[1])
    lines = whole.read_text().splitlines()
    assert len(lines) == 30
    assert all(f"train/cat/{i + 10}.png is not a readable" in x for i, x in enumerate(lines))


@pytest.fixture
def undivided(own, write, image_bytes):
    """Ten classes of train alone, by a function that moves them right into the folder."""
    for part in ("validation", "test", "train"):
        for path in sorted((own / part).rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        (own / part).rmdir()
    for c in range(10):
        for i in range(2):
            write(own / f"train/c{c}/{i}.png", image_bytes((6, 5), 20 * c + i))

    def move():
        for path in (own / "train").iterdir():
            path.rename(own / path.name)
        (own / "train").rmdir()

    return move


@pytest.mark.parametrize("moved", [False, True])
def test_a_seed_divides_the_classes(load_own, undivided, moved):
    if moved:
        undivided()
    splits = ("train", "validation", "test")

    def names(fractions, seed=0):
        return [set(load_own(split, fractions=fractions, seed=seed).names) for split in splits]

    first = names((0.6, 0.2, 0.2))
    assert [len(part) for part in first] == [6, 2, 2]
    assert set.union(*first) == {f"c{c}" for c in range(10)}
    assert names([0.6, 0.2, 0.2]) == first
    assert len({tuple(map(frozenset, names((0.6, 0.2, 0.2), seed))) for seed in range(5)}) > 3
    test = load_own("test", fractions=(0.6, 0.2, 0.2))
    for name, images in zip(test.names, test.images, strict=True):
        assert images[:, 0, 0, 0].tolist() == [20 * int(name[1]), 20 * int(name[1]) + 1]


def test_what_cannot_be_divided_is_told(load_own, own, undivided, write, image_bytes):
    with pytest.raises(NoClasses, match=r"no folder 'test', only train\..* fractions=\(0.8, 0.1"):
        load_own("test")
    with pytest.raises(NoClasses, match="of 10 classes leave none for validation"):
        load_own("validation", fractions=(0.97, 0.02, 0.01))
    with pytest.raises(ValueError, match=r"whose sum is 1, .* got \(0.8, 0.1\)"):
        load_own(fractions=(0.8, 0.1))
    with pytest.raises(ValueError, match="fractions are for folder, not for glyphs"):
        load("glyphs", "train", fractions=(0.8, 0.1, 0.1))
    write(own / "test/cow/1.png", image_bytes((6, 5)))
    with pytest.raises(DataError, match="there are classes in test too: leave fractions out"):
        load_own(fractions=(0.8, 0.1, 0.1))


def test_own_images_of_another_size_or_broken_are_all_listed(load_own, own, write, image_bytes):
    with pytest.raises(DataError, match=r"is 6 x 5 pixels; expected 5 x 6"):
        load_own(image_size=(5, 6))
    write(own / "train/dog/0.png", b"broken")
    write(own / "validation/dog/0.png", image_bytes((7, 7)))
    write(own / "test/cow/0.png", image_bytes((6, 5)))
    with pytest.raises(DataError, match="2 files cannot be used:") as caught:
        load_own()
    assert "train/dog/0.png is not a readable image" in str(caught.value)
    assert "validation/dog/0.png is 7 x 7 pixels" in str(caught.value)


def test_names_of_sets_are_looked_for_in_the_data_folder(tmp_path, write):
    # Each is refused, but for what is in its own folder.
    for name in ("omniglot", "miniimagenet", "cifar100"):
        (tmp_path / name).mkdir()
    for source, folder in [
        ("omniglot", "omniglot"),
        ("miniimagenet", "miniimagenet"),
        ("cifar_fs", "cifar100"),
        ("fc100", "cifar100"),
    ]:
        with pytest.raises(DataError, match=rf" is not in {tmp_path}/{folder}\b"):
            load(source, "train", data_dir=tmp_path, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("omnglot", "train"), {}, "source must be one of .* Did you mean 'omniglot'"),
        (("omniglot", "tests"), {}, "split must be one of .* Did you mean 'test'"),
        (("omniglot", "validation"), {"scheme": "paper"}, r"one of \['test', 'train'\]"),
        (("omniglot", "test"), {"scheme": "vinals"}, "Did you mean 'vinyals'"),
        (("glyphs", "tests"), {}, "split must be one of .* Did you mean 'test'"),
        (("glyphs", "test"), {"scheme": "code"}, "glyphs has no schemes; got scheme='code'"),
        (("folder", "test"), {"scheme": "code"}, "folder has no schemes"),
        (("folder", "test"), {}, "folder needs data_dir"),
        (
            ("folder", "test"),
            {"data_dir": "."},
            r"folder needs image_size=\(height, width\); got N",
        ),
        (("folder", "test"), {"data_dir": ".", "image_size": (1,)}, r"needs image_size.* \(1,\)"),
        (("folder", "test"), {"data_dir": ".", "image_size": (0, 3)}, "image_size must be an int"),
        (("omniglot", "test"), {"resize": True}, "are for folder, not for omniglot"),
        (("omniglot", "test"), {"image_size": (28, 28)}, "are for folder, not for omniglot"),
        (("fc100", "test"), {"download": True}, "download is for omniglot; the files of fc100"),
        (("omniglot", "test"), {"download": True}, "download needs data_dir"),
    ],
)
def test_wrong_arguments(tmp_path, arguments, options, message):
    with pytest.raises(ValueError, match=message):
        load(*arguments, cache_dir=tmp_path, **options)


def test_glyphs_need_no_files(tmp_path, monkeypatch):
    names = tuple(f"U+{i:04X}" for i in range(60))
    images = np.arange(60, dtype=np.uint8)[:, None, None, None, None] + np.zeros(
        (20, 28, 28, 1), "u1"
    )
    monkeypatch.setattr(glyphs, "draw", lambda progress=None: (images, names))
    found = [load("glyphs", split, cache_dir=tmp_path) for split in loading.SPLITS]
    assert sorted(name for part in found for name in part.names) == sorted(names)
    for part in found:
        assert part.images.shape == (len(part.names), 20, 28, 28, 1)
        for name, drawings in zip(part.names, part.images, strict=True):
            assert np.all(drawings == names.index(name))


def test_download_fetches_before_it_looks(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("mamljax.data.omniglot.download", asked.append)
    with pytest.raises(DataError, match="Omniglot is not in"):
        load("omniglot", "test", data_dir=tmp_path, cache_dir=tmp_path / "c", download=True)
    assert asked == [tmp_path]


def test_importing_loads_nothing_heavy():
    code = "import sys, mamljax.data; print({'PIL', 'tensorflow_datasets'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    if not (REAL / "omniglot" / "images_background.zip").is_file():
        pytest.skip(f"no Omniglot in {REAL}; set MAMLJAX_DATA to the folder that holds omniglot/")
    folder = tmp_path_factory.mktemp("cache")
    return lambda split, scheme: load(
        "omniglot", split, data_dir=REAL, cache_dir=folder, scheme=scheme
    )


@pytest.mark.parametrize("scheme", ["paper", "code", "vinyals"])
def test_real_omniglot(real, scheme):
    for split, names in split_names("omniglot", scheme).items():
        found = real(split, scheme)
        assert found.names == names
        assert found.images.shape == (len(names), 20, 28, 28, 1)
        assert set(found.counts.tolist()) == {20}
        # Strokes of ink on empty paper, in shades of grey.
        ink = found.images.mean((1, 2, 3, 4)) / 255
        assert 0.005 < ink.min() < ink.mean() < ink.max() < 0.25
        assert len(np.unique(found.images)) > 200
        # No drawing is there twice under one name.
        flat = found.images.reshape(len(names), 20, -1)
        assert all(len(np.unique(drawings, axis=0)) == 20 for drawings in flat[:50])
