"""The command `mamljax data`: what it tells of a folder, in flags, and what it draws."""

import re

import numpy as np
import pytest
from PIL import Image

from experiments import prepare
from experiments.few_shot import words


@pytest.fixture
def photos(tmp_path):
    """Six classes of train, each of one colour, two photos each."""
    for c in range(6):
        place = tmp_path / "photos" / "train" / f"class{c}"
        place.mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (20, 10), (40 * c, 0, 255)).save(place / f"{i}.png")
    return tmp_path / "photos"


@pytest.fixture
def tell(photos, tmp_path, capsys):
    """What the command prints, on either channel, for a folder of photos."""

    def run(*options, failing=False):
        arguments = ["folder", f"--dir={photos}", f"--cache={tmp_path / 'cache'}", *options]
        arguments.append(f"--sheet={tmp_path / 'made' / 'sheet.png'}")
        if failing:
            with pytest.raises(SystemExit) as caught:
                prepare.main(arguments)
            assert caught.value.code == 2
            return capsys.readouterr().err
        prepare.main(arguments)
        return capsys.readouterr().out

    return run


SIZE = ("--size", "10", "20")


def test_errors_speak_of_flags(tell):
    assert "folder needs --size HEIGHT WIDTH; got None" in tell(failing=True)
    wrong = tell("--size", "20", "20", failing=True)
    assert "12 files cannot be used" in wrong
    assert "is 10 x 20 pixels; expected 20 x 20 (--resize brings" in wrong
    missing = tell(*SIZE, failing=True)
    assert "no folder 'test', only train" in missing
    assert "give --split=0.8,0.1,0.1" in missing
    assert "image_size" not in wrong + missing
    assert "fractions" not in wrong + missing


def test_validation_is_optional_as_in_training(tell, photos):
    (photos / "train/class5").rename(photos / "class5")
    (photos / "test").mkdir()
    (photos / "class5").rename(photos / "test/class5")
    told = tell(*SIZE)
    assert "There are no validation classes" in told
    assert "test has 1 class (class5); a task takes 5" in told
    assert not re.search("^train has", told, re.MULTILINE)
    told = tell(*SIZE, "--ways=1", "--queries=2")
    assert (
        "train has 5 classes (class0, class1, class2, class3, class4) with fewer than the 3" in told
    )
    assert "a task takes 1" not in told


def test_classes_are_divided_and_shown(tell, tmp_path):
    told = tell(*SIZE, "--split=0.5,0,0.5", "--ways=3")
    assert [line.split()[1:6:2] for line in told.splitlines() if "10 x 20" in line] == [
        ["train", "3", "6"],
        ["test", "3", "6"],
    ]
    assert "a task takes" not in told
    with Image.open(tmp_path / "made" / "sheet.png") as sheet:
        pixels = np.asarray(sheet)
    for c in range(6):  # every class is there, twice the longer side times the shorter
        assert np.all(pixels == [40 * c, 0, 255], axis=-1).sum() == 2 * 72 * 36


def test_paths_are_left_as_they_are():
    said = words.said("data_dir of /home/data_dir/a: resize=True. cache_dir.txt", words.COMMAND)
    assert said == "--dir of /home/data_dir/a: --resize. cache_dir.txt"
