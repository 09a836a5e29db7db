"""The published sets on disk: every layout that is taken, and what is said about all others."""

import csv
import pickle
import tarfile
import zipfile

import numpy as np
import pytest

from mamljax.data import DataError, cache, cifar100, cub, miniimagenet, omniglot, tieredimagenet

CHARACTERS = ("Greek/character01", "Greek/character02", "Latin/character01")
CLASSES_OF = {"train": ("n01", "n02"), "validation": ("n03",), "test": ("n04",)}
ANIMALS = ("bee", "cow")


def load(source, folder, tmp_path):
    return cache.read(source, lambda names: names, folder, tmp_path / "cache")


def zip_folder(folder, archive):
    with zipfile.ZipFile(archive, "w") as opened:
        for path in sorted(folder.rglob("*")):
            opened.write(path, path.relative_to(folder.parent))


@pytest.fixture
def omniglot_folder(tmp_path, write, image_bytes):
    """Two characters to learn and one to evaluate, two drawings of each, all 105 x 105."""
    for i, (part, name) in enumerate(
        zip(["background", "background", "evaluation"], CHARACTERS, strict=True)
    ):
        for drawer in (1, 2):
            data = image_bytes((105, 105), 255 * (i % 2), "1")
            write(tmp_path / f"data/images_{part}/{name}/000{i}_{drawer:02d}.png", data)
    return tmp_path / "data"


@pytest.fixture
def mini_folder(tmp_path, write, image_bytes):
    """Two images of each of four classes, in folders, with the lists."""
    folder = tmp_path / "data"
    for split, name in miniimagenet.CSV.items():
        rows = [(f"{c}{i}.jpg", c) for c in CLASSES_OF[split] for i in range(2)]
        write_csv(folder / name, rows)
        for filename, label in rows:
            level = 40 * int(label[1:]) + int(filename[-5])
            data = image_bytes((84, 84), level, kind="JPEG")
            write(folder / ("val" if split == "test" else "train") / label / filename, data)
    return folder


def write_csv(path, rows, header=("filename", "label")):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.fixture
def cifar_folder(tmp_path, write, image_bytes):
    """Two classes, with two images to train and one to test each."""
    for c, name in enumerate(ANIMALS):
        for i, batch in enumerate(("train", "train", "test")):
            data = image_bytes((32, 32), 100 * c + i)
            write(tmp_path / f"data/{batch}/{name}/000{i}.png", data)
    return tmp_path / "data"


def pickled(folder, write, **changes):
    """The same images as of `cifar_folder`, in the layout for Python."""
    meta = {b"fine_label_names": [b"bee", b"cow"]}
    levels = {"train": [100, 0, 1, 101], "test": [2, 102]}
    batches = {
        name: {
            b"data": np.stack([channels(level) for level in some]),
            b"fine_labels": [level // 100 for level in some],
        }
        for name, some in levels.items()
    }
    for name, value in ({"meta": meta} | batches | changes).items():
        write(folder / name, value if isinstance(value, bytes) else pickle.dumps(value, 4))


def channels(level):
    return np.repeat(np.uint8([level, level // 2, 255 - level]), 32 * 32)


# Omniglot


def omniglot_source():
    return omniglot.source(CHARACTERS, drawers=2)


def test_omniglot_in_folders_and_zips(omniglot_folder, tmp_path):
    for zipped in ([], ["images_background"], ["images_evaluation"]):
        for part in zipped:
            zip_folder(omniglot_folder / part, omniglot_folder / f"{part}.zip")
            (omniglot_folder / part).rename(tmp_path / part)
        found = load(omniglot_source(), omniglot_folder, tmp_path)
        assert found.names == CHARACTERS
        assert found.images.shape == (3, 2, 28, 28, 1)
        # Ink was 0 in the files, and is 255 here.
        assert [images.mean() for images in found.images] == [255, 0, 255]


@pytest.mark.parametrize("part", ["images_background", "images_evaluation"])
def test_missing_omniglot_says_what_to_do(omniglot_folder, tmp_path, part):
    (omniglot_folder / part).rename(tmp_path / "elsewhere")
    expected = (
        rf"neither {part}\.zip nor .* Put images_background\.zip .*or load with download=True"
    )
    with pytest.raises(DataError, match=expected):
        load(omniglot_source(), omniglot_folder, tmp_path)


def test_omniglot_must_be_complete(omniglot_folder, tmp_path):
    more = omniglot.source((*CHARACTERS, "Latin/character02"), drawers=2)
    with pytest.raises(DataError, match="1 of 4 classes are missing, such as 'Latin/character02'"):
        load(more, omniglot_folder, tmp_path)
    (omniglot_folder / "images_background/Greek/character02/0001_02.png").unlink()
    with pytest.raises(DataError, match="'Greek/character02' has 1 images; expected 2: unpack or"):
        load(omniglot_source(), omniglot_folder, tmp_path)


def test_a_broken_drawing_is_named_and_nothing_is_kept(omniglot_folder, tmp_path):
    path = omniglot_folder / "images_background/Greek/character02/0001_02.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:60])
    with pytest.raises(DataError, match=r"character02/0001_02\.png is not a readable image"):
        load(omniglot_source(), omniglot_folder, tmp_path)
    path.write_bytes(whole)
    assert load(omniglot_source(), omniglot_folder, tmp_path).counts.sum() == 6


def test_omniglot_of_another_size_is_refused(omniglot_folder, tmp_path, image_bytes):
    path = omniglot_folder / "images_evaluation/Latin/character01/0002_01.png"
    path.write_bytes(image_bytes((28, 28), 0, "1"))
    with pytest.raises(DataError, match=r"0002_01\.png is 28 x 28 pixels; expected 105 x 105"):
        load(omniglot_source(), omniglot_folder, tmp_path)


# miniImagenet


def mini_source():
    return miniimagenet.source(CLASSES_OF, images=2)


def assert_mini(found):
    assert found.names == ("n01", "n02", "n03", "n04")
    assert found.images.shape == (4, 2, 84, 84, 3)
    levels = found.images[..., 0].mean((2, 3))
    np.testing.assert_allclose(levels, [[40 * c, 40 * c + 1] for c in (1, 2, 3, 4)], atol=2)


def test_mini_in_class_folders(mini_folder, tmp_path):
    assert_mini(load(mini_source(), mini_folder, tmp_path))


def test_mini_flat_with_lists_in_a_folder(mini_folder, tmp_path):
    for path in list(mini_folder.rglob("*.jpg")):
        (mini_folder / "images").mkdir(exist_ok=True)
        path.rename(mini_folder / "images" / path.name)
    for name in miniimagenet.CSV.values():
        (mini_folder / "splits").mkdir(exist_ok=True)
        (mini_folder / name).rename(mini_folder / "splits" / name)
    assert_mini(load(mini_source(), mini_folder, tmp_path))


@pytest.mark.parametrize("lists", ["inside", "beside"])
def test_mini_in_a_zip(mini_folder, tmp_path, lists):
    (tmp_path / "zipped").mkdir()
    if lists == "beside":
        for name in miniimagenet.CSV.values():
            (mini_folder / name).rename(tmp_path / "zipped" / name)
    zip_folder(mini_folder, tmp_path / "zipped/mini.zip")
    assert_mini(load(mini_source(), tmp_path / "zipped", tmp_path))


def test_an_unpacked_zip_may_stay(mini_folder, tmp_path):
    zip_folder(mini_folder, mini_folder / "mini.zip")
    assert_mini(load(mini_source(), mini_folder, tmp_path))


def test_lists_may_have_folders_and_a_byte_order_mark(mini_folder, tmp_path):
    rows = "filename,label\r\nimages/n030.jpg,n03\r\nimages/n031.jpg,n03\r\n"
    (mini_folder / "val.csv").write_text(rows, encoding="utf-8-sig")
    assert_mini(load(mini_source(), mini_folder, tmp_path))


def remove_images(folder):
    for path in list(folder.rglob("*.jpg")):
        path.unlink()


def twice(folder):
    (folder / "again").mkdir()
    (folder / "again/n010.jpg").write_bytes((folder / "train/n01/n010.jpg").read_bytes())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "val.csv").unlink(), r"lacks val\.csv\. Put the 84 x 84 images"),
        (remove_images, "lacks any image. Put the 84 x 84 images .* with Ravi and Larochelle's"),
        (twice, r"n010\.jpg is there twice: remove one"),
        (
            lambda f: (f / "train/n01/n010.jpg").unlink(),
            r"train\.csv names 'n010\.jpg', .* 7 images",
        ),
        (
            lambda f: write_csv(f / "test.csv", [("n040.jpg", "n04")], ("file", "class")),
            r"test\.csv is not a csv file with columns filename and label",
        ),
        (
            lambda f: (f / "test.csv").write_text("filename,label\nn040.jpg\n\n"),
            r"test\.csv lists class 'None'",
        ),
        (lambda f: (f / "test.csv").write_bytes(b"\xff\xfe\x00"), r"test\.csv is not a csv file"),
        (
            lambda f: write_csv(f / "test.csv", [("n010.jpg", "n01")]),
            r"test\.csv lists class 'n01', which Ravi and Larochelle do not have in this split",
        ),
        (
            lambda f: write_csv(f / "test.csv", [("n040.jpg", "n04")]),
            "class 'n04' has 1 images; expected 2",
        ),
        (lambda f: write_csv(f / "test.csv", []), "1 of 4 classes are missing, such as 'n04'"),
    ],
)
def test_incomplete_mini_says_what_to_do(mini_folder, tmp_path, change, message):
    change(mini_folder)
    with pytest.raises(DataError, match=message):
        load(mini_source(), mini_folder, tmp_path)


def test_mini_of_another_size_is_refused(mini_folder, tmp_path, image_bytes):
    (mini_folder / "val/n04/n041.jpg").write_bytes(image_bytes((84, 80), 1, kind="JPEG"))
    with pytest.raises(DataError, match=r"n041\.jpg is 84 x 80 pixels; expected 84 x 84"):
        load(mini_source(), mini_folder, tmp_path)


def test_absent_folder(tmp_path):
    with pytest.raises(DataError, match=r"miniImagenet is not in .*absent, which lacks train"):
        load(mini_source(), tmp_path / "absent", tmp_path)


# CIFAR-100


def cifar_source():
    return cifar100.source(ANIMALS, images=3)


def assert_cifar(found):
    assert found.names == ANIMALS
    assert found.images.shape == (2, 3, 32, 32, 3)
    for c, images in enumerate(found.images):
        # Every image is of one colour, and they come in any order.
        assert images.min((1, 2)).tolist() == images.max((1, 2)).tolist()
        levels = range(100 * c, 100 * c + 3)
        assert sorted(images[:, 0, 0].tolist()) == [[i, i // 2, 255 - i] for i in levels]


def test_cifar_in_folders(cifar_folder, tmp_path, write):
    write(cifar_folder / "train/too/deep/1.png", b"not looked at")
    assert_cifar(load(cifar_source(), cifar_folder, tmp_path))


@pytest.mark.parametrize("below", ["", "cifar-100-python"])
def test_cifar_for_python(tmp_path, write, below):
    pickled(tmp_path / "data" / below, write)
    assert_cifar(load(cifar_source(), tmp_path / "data", tmp_path))


def test_cifar_for_python_in_its_archive(tmp_path, write):
    pickled(tmp_path / "cifar-100-python", write)
    (tmp_path / "data").mkdir()
    with tarfile.open(tmp_path / "data/cifar-100-python.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "cifar-100-python", "cifar-100-python")
    assert_cifar(load(cifar_source(), tmp_path / "data", tmp_path))


def test_missing_or_incomplete_cifar(cifar_folder, tmp_path):
    with pytest.raises(
        DataError, match=r"CIFAR-100 is not in .* Put cifar-100-python\.tar\.gz there"
    ):
        load(cifar_source(), tmp_path, tmp_path)
    (cifar_folder / "test/cow/0002.png").unlink()
    with pytest.raises(DataError, match="'cow' has 2 images; expected 3"):
        load(cifar_source(), cifar_folder, tmp_path)


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('this must never run')",)


@pytest.mark.parametrize(
    "change",
    [
        {"meta": pickle.dumps(Evil())},
        {"train": pickle.dumps({b"data": Evil()})},
        {"test": b"cos\nsystem\n(S'exit 1'\ntR."},
        {"test": b"cnumpy\nfromfile\n(S'/etc/passwd'\ntR."},
        {"meta": b""},
        {"meta": {}},
        {"meta": [1, 2]},
        {"train": {b"data": np.zeros((2, 7), np.uint8), b"fine_labels": [0, 1]}},
        {"train": {b"data": np.zeros((2, 3072), np.float32), b"fine_labels": [0, 1]}},
        {"train": {b"data": np.zeros((2, 3072), np.uint8), b"fine_labels": [0]}},
    ],
    ids=lambda change: str(change)[:40],
)
def test_other_pickles_are_refused_and_never_run(tmp_path, write, change):
    pickled(tmp_path / "data", write, **change)
    with pytest.raises(DataError, match="does not hold CIFAR-100 in its layout for Python"):
        load(cifar_source(), tmp_path / "data", tmp_path)


def test_pickles_of_python_2_and_early_numpy_are_read():
    # What numpy 1 under Python 2 wrote for arange(3): byte strings, and names of its own modules.
    old = (
        b"\x80\x02}U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
        b"K\x00\x85U\x01b\x87Rq\x00(K\x01K\x03\x85cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x03\x00\x01\x02tbs."
    )
    found = cifar100.unpickle(old)
    np.testing.assert_array_equal(found[b"data"], np.arange(3, dtype=np.uint8))


# tieredImageNet and CUB

TIERED = {"train": ("n00000001", "n00000002"), "validation": ("n00000003",), "test": ("n00000004",)}


def tiered_source(**counts):
    return tieredimagenet.source(TIERED, {"train": 4, "validation": 2, "test": 2} | counts)


@pytest.fixture
def tiered_folder(tmp_path, write, image_bytes):
    """Two images of each class: in folders of classes, or named after them."""
    for split, names in TIERED.items():
        for name in names:
            for i in range(2):
                place = f"images/{name}_{i}.jpg" if split == "test" else f"{split}/{name}/{i}.jpg"
                data = image_bytes((84, 84), 40 * int(name[1:]) + i, kind="JPEG")
                write(tmp_path / "data" / place, data)
    # Of a class of ImageNet that is not among the 608, and of none.
    write(tmp_path / "data/train/n00000009/0.jpg", b"not looked at")
    write(tmp_path / "data/readme/sheet.png", b"not looked at")
    return tmp_path / "data"


def test_tiered_in_both_layouts(tiered_folder, tmp_path):
    found = load(tiered_source(), tiered_folder, tmp_path)
    assert found.names == ("n00000001", "n00000002", "n00000003", "n00000004")
    assert found.images.shape == (4, 2, 84, 84, 3)
    levels = found.images[..., 0].mean((2, 3))
    np.testing.assert_allclose(levels, [[40 * c, 40 * c + 1] for c in (1, 2, 3, 4)], atol=2)


def test_incomplete_tiered_says_what_to_do(tiered_folder, tmp_path):
    with pytest.raises(DataError, match="has 2 images of test classes; expected 3: unpack"):
        load(tiered_source(test=3), tiered_folder, tmp_path)
    for path in (tiered_folder / "images").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"lacks class 'n00000004' of test. Put the 84 x 84"):
        load(tiered_source(), tiered_folder, tmp_path)
    with pytest.raises(DataError, match=r"tieredImageNet is not in .*nowhere. Put the 84 x 84"):
        load(tiered_source(), tmp_path / "nowhere", tmp_path)


@pytest.mark.parametrize("below", cub.FOLDERS)
def test_birds(tmp_path, write, image_bytes, below):
    for number, species in ((1, "Black_footed_Albatross"), (2, "Laysan_Albatross")):
        for i in range(number):
            place = tmp_path / "data" / below / f"{number:03d}.{species}" / f"{i}.jpg"
            write(place, image_bytes((50 + i, 70), 100 * number, kind="JPEG"))
    write(tmp_path / "data" / below / "README", b"")
    found = load(cub.source(("001", "002"), 3), tmp_path / "data", tmp_path)
    assert (found.names, found.counts.tolist()) == (("001", "002"), [1, 2])
    assert found.images.shape == (2, 2, 84, 84, 3)
    assert abs(found.images[1, 1, 40, 40, 0].astype(int) - 200) <= 3
    with pytest.raises(DataError, match=r"CUB has 3 images; expected 4. Unpack"):
        load(cub.source(("001", "002"), 4), tmp_path / "data", tmp_path / "other")
    with pytest.raises(DataError, match=r"CUB lacks 1 classes, such as '003'. Unpack"):
        load(cub.source(("001", "003"), 3), tmp_path / "data", tmp_path / "other")
    with pytest.raises(DataError, match=r"CUB is not in .*nowhere. Unpack"):
        load(cub.source(), tmp_path / "nowhere", tmp_path)
