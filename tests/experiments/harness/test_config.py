"""What ``--help`` says of configs."""

import re
from importlib import import_module

import pytest

from experiments.harness.config import comments, listing

FILES = ("sinusoid", "omniglot", "miniimagenet", "tieredimagenet", "cub", "cifar_fs")
FILES += ("navigation", "locomotion")

SOURCE = """
def base():
    config.seed = 0  # of everything
    # How far,
    # and how fast.
    config.train.reach = config.train.speed = 1.0

    # Not of the next, since a line lies between.

    config.train.color = "#fff"
    config.train.rate = 2  # "#" twice


def get_config(variant):
    config.train.speed = 2.0  # twice that
    if variant == "odd":
        config.seed = 1  # left out
"""


def test_comments_beside_and_above_belong_to_values():
    assert comments(SOURCE) == {
        "seed": ["of everything"],
        "train.reach": ["How far, and how fast."],
        "train.speed": ["How far, and how fast.", "twice that"],
        "train.rate": ['"#" twice'],
    }


@pytest.mark.parametrize("name", FILES)
def test_every_value_is_explained(name):
    lines = [*listing(f"configs/{name}.py").splitlines(), ""]
    values = [index for index, line in enumerate(lines) if line.startswith("    --config.")]
    assert len(values) > 20
    assert [lines[at] for at in values if not lines[at + 1].startswith(" " * 8)] == []
    assert max(map(len, lines)) < 120


@pytest.mark.parametrize("name", FILES)
def test_every_variant_is_listed(name):
    with pytest.raises(ValueError, match="unknown variant '-'") as refused:
        import_module(f"configs.{name}").get_config("-")
    variants = re.search(r"there are (.*?)\.", str(refused.value))[1].split(", ")
    said = listing(f"configs/{name}.py").split("Config values")[0]
    listed = set(re.findall(r"\w+", said))
    for variant in variants:
        setting, _, option = variant.partition("_")
        told = {variant} <= listed or {setting, f"5way1shot_{option}"} <= listed
        assert told or {setting, option} <= listed, variant


def test_the_values_of_a_variant_are_those_that_it_has():
    assert "--config.train.num_iterations=70000" in listing("configs/sinusoid.py")
    quick = listing("configs/sinusoid.py:quick")
    assert "Config values of quick" in quick
    assert "--config.train.num_iterations=10000" in quick
    with pytest.raises(ValueError, match="Did you mean 'quick'"):
        listing("configs/sinusoid.py:quik")
