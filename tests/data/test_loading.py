"""`load`: names and options, a user's own folder, glyphs, the real Omniglot."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mamljax.data import DataError, glyphs, load, loading, split_names

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
            r"not where they should be .*val/cow/0\.png, .*val/cow/1\.jpg\. .* SPLIT is",
        ),
        (
            lambda own: (own / "test/cow/0.png").rename(own / "0.png"),
            r"should be in .*own/0\.png\.",
        ),
        (lambda own: own.rename(own.with_name("gone")), "there are no images .*own. Put images at"),
    ],
)
def test_own_folder_of_another_layout(load_own, own, change, message):
    change(own)
    with pytest.raises(DataError, match=message):
        load_own("test")


@pytest.mark.parametrize("name", ["film.gif", "notes.txt", "more/1.gif"])
def test_what_lies_among_the_images_unread_is_listed(load_own, own, write, name):
    write(own / "train/cat" / name, b"?")
    with pytest.raises(DataError, match=rf"files that are not read, .*train/cat/{name}\. Convert"):
        load_own()


def test_all_misplaced_images_are_listed(load_own, own, write, image_bytes):
    for name in ("train/cat/more/1.png", "train/2.webp"):
        write(own / name, image_bytes())
    with pytest.raises(
        DataError, match=r"train/2\.webp, .*more/1\.png|more/1\.png, .*train/2\.webp"
    ):
        load_own()


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
