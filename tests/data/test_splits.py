"""The named splits: fixed, disjoint, whole."""

import hashlib
import itertools

import pytest

from mamljax.data import SCHEMES, split_names
from mamljax.data.splits import CIFAR100, OMNIGLOT, SUPERCLASSES, seventy_ten_twenty

SIZES = {
    ("omniglot", "paper"): {"train": 1200, "test": 423},
    ("omniglot", "code"): {"train": 1100, "validation": 100, "test": 423},
    ("omniglot", "vinyals"): {"train": 1028, "validation": 172, "test": 423},
    ("miniimagenet", "ravi"): {"train": 64, "validation": 16, "test": 20},
    ("cifar_fs", "bertinetto"): {"train": 64, "validation": 16, "test": 20},
    ("fc100", "oreshkin"): {"train": 60, "validation": 20, "test": 20},
    ("tieredimagenet", "ren"): {"train": 351, "validation": 97, "test": 160},
    ("cub", "chen"): {"train": 100, "validation": 50, "test": 50},
}
# Of all names, one a line: a change of any of them makes other results.
DIGESTS = {
    ("omniglot", "code"): "788ebf300ce32974",
    ("omniglot", "paper"): "3dad95bf6f8a484f",
    ("omniglot", "vinyals"): "1de24bc1ab4081fb",
    ("miniimagenet", "ravi"): "0da78d591262ab0e",
    ("cifar_fs", "bertinetto"): "394dc1fe31bcf607",
    ("fc100", "oreshkin"): "b0d4bc964a752ea9",
    ("tieredimagenet", "ren"): "8a11973b446ab9d7",
    ("cub", "chen"): "3581187565857e1b",
}


def test_every_scheme_is_listed():
    assert {(source, scheme) for source in SCHEMES for scheme in SCHEMES[source]} == set(SIZES)


@pytest.mark.parametrize(("source", "scheme"), SIZES)
def test_splits_are_disjoint_and_whole(source, scheme):
    found = split_names(source, scheme)
    assert {split: len(names) for split, names in found.items()} == SIZES[source, scheme]
    everything = list(itertools.chain(*found.values()))
    assert len(set(everything)) == len(everything)
    whole = {"omniglot": OMNIGLOT, "cifar_fs": CIFAR100, "fc100": CIFAR100}.get(source, everything)
    assert set(everything) == set(whole)
    assert all(list(names) == sorted(names) for names in found.values())


@pytest.mark.parametrize(("source", "scheme"), SIZES)
def test_splits_never_change(source, scheme):
    lines = "\n".join(
        f"{k} {name}" for k, names in split_names(source, scheme).items() for name in names
    )
    assert hashlib.sha256(lines.encode()).hexdigest()[:16] == DIGESTS[source, scheme]


def test_birds_are_split_as_in_the_list_of_chen_et_al():
    # Of the places in the sorted folders: even ones train, of the odd ones every other one tests.
    found = split_names("cub")
    assert [found[s][:3] for s in ("train", "validation", "test")] == [
        ("001", "003", "005"), ("002", "006", "010"), ("004", "008", "012")
    ]  # fmt: skip


def test_defaults():
    assert split_names("omniglot") == split_names("omniglot", "code")
    assert split_names("fc100") == split_names("fc100", "oreshkin")


def test_paper_and_code_test_the_same_characters():
    paper, code = split_names("omniglot", "paper"), split_names("omniglot", "code")
    assert paper["test"] == code["test"]
    assert set(paper["train"]) == {*code["train"], *code["validation"]}
    # A shuffle of characters, not of alphabets: nearly all 50 are on both sides.
    assert len({name.split("/")[0] for name in paper["test"]}) > 45


def test_vinyals_splits_by_alphabet_but_for_gurmukhi():
    alphabets = [
        {name.split("/")[0] for name in names}
        for names in split_names("omniglot", "vinyals").values()
    ]
    assert [len(some) for some in alphabets] == [33, 5, 13]
    assert alphabets[0] & alphabets[2] == {"Gurmukhi"}
    assert "Gurmukhi/character41" in split_names("omniglot", "vinyals")["train"]
    assert "Gurmukhi/character42" in split_names("omniglot", "vinyals")["test"]


def test_fc100_splits_superclasses():
    for names in split_names("fc100").values():
        for members in SUPERCLASSES.values():
            assert len(set(members.split()) & set(names)) in (0, 5)


def test_other_sets_are_cut_70_10_20_by_name_alone():
    drawn = [seventy_ten_twenty(f"class {i}") for i in range(4000)]
    shares = [drawn.count(split) / 4000 for split in ("train", "validation", "test")]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.02)
    assert drawn[:3] == [seventy_ten_twenty(f"class {i}") for i in range(3)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("omnglot",), "source must be one of .* got 'omnglot'. Did you mean 'omniglot'"),
        (("folder",), "source must be one of"),
        (("omniglot", "papper"), "scheme of omniglot must be one of .* Did you mean 'paper'"),
        (("fc100", "ravi"), r"scheme of fc100 must be one of \['oreshkin'\]; got 'ravi'"),
    ],
)
def test_unknown_names(arguments, message):
    with pytest.raises(ValueError, match=message):
        split_names(*arguments)
