"""Classes of the published sets, and which of them learn and test: facts, listed."""

import hashlib
from collections.abc import Sequence

from mamljax import checks
from mamljax.data.ren import REN_TEST, REN_TRAIN, REN_VALIDATION

# Omniglot's alphabets and their numbers of characters (Lake, Salakhutdinov, Tenenbaum 2015).
ALPHABETS = {
    "Alphabet_of_the_Magi": 20,
    "Angelic": 20,
    "Anglo-Saxon_Futhorc": 29,
    "Arcadian": 26,
    "Armenian": 41,
    "Asomtavruli_(Georgian)": 40,
    "Atemayar_Qelisayer": 26,
    "Atlantean": 26,
    "Aurek-Besh": 26,
    "Avesta": 26,
    "Balinese": 24,
    "Bengali": 46,
    "Blackfoot_(Canadian_Aboriginal_Syllabics)": 14,
    "Braille": 26,
    "Burmese_(Myanmar)": 34,
    "Cyrillic": 33,
    "Early_Aramaic": 22,
    "Futurama": 26,
    "Ge_ez": 26,
    "Glagolitic": 45,
    "Grantha": 43,
    "Greek": 24,
    "Gujarati": 48,
    "Gurmukhi": 45,
    "Hebrew": 22,
    "Inuktitut_(Canadian_Aboriginal_Syllabics)": 16,
    "Japanese_(hiragana)": 52,
    "Japanese_(katakana)": 47,
    "Kannada": 41,
    "Keble": 26,
    "Korean": 40,
    "Latin": 26,
    "Malay_(Jawi_-_Arabic)": 40,
    "Malayalam": 47,
    "Manipuri": 40,
    "Mkhedruli_(Georgian)": 41,
    "Mongolian": 30,
    "N_Ko": 33,
    "Ojibwe_(Canadian_Aboriginal_Syllabics)": 14,
    "Old_Church_Slavonic_(Cyrillic)": 45,
    "Oriya": 46,
    "Sanskrit": 42,
    "Sylheti": 28,
    "Syriac_(Estrangelo)": 23,
    "Syriac_(Serto)": 23,
    "Tagalog": 17,
    "Tengwar": 25,
    "Tibetan": 42,
    "Tifinagh": 55,
    "ULOG": 26,
}
OMNIGLOT = tuple(
    f"{alphabet}/character{number:02d}"
    for alphabet, size in ALPHABETS.items()
    for number in range(1, size + 1)
)

# Matching networks (Vinyals et al. 2016) split whole alphabets, but for Gurmukhi: its characters
# from 42 on test, the others learn.
VINYALS_VALIDATION = ("Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)")
VINYALS_TEST = (
    "Kannada",
    "Keble",
    "Malayalam",
    "Manipuri",
    "Mongolian",
    "Old_Church_Slavonic_(Cyrillic)",
    "Oriya",
    "Sylheti",
    "Syriac_(Serto)",
    "Tengwar",
    "Tibetan",
    "ULOG",
)

# The ImageNet classes of miniImagenet as Ravi and Larochelle 2017 split them, without the n.
RAVI_TRAIN = """
    01532829 01558993 01704323 01749939 01770081 01843383 01910747 02074367 02089867 02091831
    02101006 02105505 02108089 02108551 02108915 02111277 02113712 02120079 02165456 02457408
    02606052 02687172 02747177 02795169 02823428 02966193 03017168 03047690 03062245 03207743
    03220513 03337140 03347037 03400231 03476684 03527444 03676483 03838899 03854065 03888605
    03908618 03924679 03998194 04067472 04243546 04251144 04258138 04275548 04296562 04389033
    04435653 04443257 04509417 04515003 04596742 04604644 04612504 06794110 07584110 07697537
    07747607 09246464 13054560 13133613
"""
RAVI_VALIDATION = """
    01855672 02091244 02114548 02138441 02174001 02950826 02971356 02981792 03075370 03417042
    03535780 03584254 03770439 03773504 03980874 09256479
"""
RAVI_TEST = """
    01930112 01981276 02099601 02110063 02110341 02116738 02129165 02219486 02443484 02871525
    03127925 03146219 03272010 03544143 03775546 04146614 04149813 04418357 04522168 07613480
"""

# CIFAR-100's superclasses (Krizhevsky 2009).
SUPERCLASSES = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
CIFAR100 = tuple(sorted(" ".join(SUPERCLASSES.values()).split()))

# CIFAR-FS (Bertinetto et al. 2019) splits classes; all others learn.
BERTINETTO_VALIDATION = """
    beaver beetle butterfly camel cattle crab crocodile flatfish lamp maple_tree motorcycle otter
    sea shark television tractor
"""
BERTINETTO_TEST = """
    baby bed bicycle chimpanzee fox leopard man pickup_truck plain poppy rocket rose snail
    sweet_pepper table telephone wardrobe whale woman worm
"""

# FC100 (Oreshkin et al. 2018) splits superclasses; all others learn.
ORESHKIN_VALIDATION = (
    "large_carnivores",
    "large_omnivores_and_herbivores",
    "non-insect_invertebrates",
    "small_mammals",
)
ORESHKIN_TEST = ("aquatic_mammals", "insects", "medium_mammals", "people")

# Caltech-UCSD Birds 200 (Wah et al. 2011): species by their numbers. Chen et al. 2019 train on
# every other one, and give the rest to validation and test in turn.
CUB = tuple(f"{number:03d}" for number in range(1, 201))

SPLITS = ("train", "validation", "test")
SCHEMES = {
    "omniglot": ("code", "paper", "vinyals"),
    "miniimagenet": ("ravi",),
    "cifar_fs": ("bertinetto",),
    "fc100": ("oreshkin",),
    "tieredimagenet": ("ren",),
    "cub": ("chen",),
}
"""The named splits of the sets that have any, the default first."""


def split_names(source: str, scheme: str | None = None) -> dict[str, tuple[str, ...]]:
    """The class names of every split of a published set.

    Schemes of Omniglot: ``"paper"`` has 1200 characters to learn and 423 to test, ``"code"`` holds
    100 of the 1200 back for validation, as the authors' code does. Both are cut from one fixed
    shuffle, so they test the same 423; which those were in 2017 cannot be known, for the authors
    shuffled the listing of a folder, whose order is up to the file system. ``"vinyals"`` is the
    split of Vinyals et al., 1028 / 172 / 423, mostly by alphabet.

    Args:
      source: one of `SCHEMES`.
      scheme: one of `SCHEMES` for it; None for the first.

    Raises:
      ArgumentError: for unknown names.
    """
    checks.one_of("source", source, SCHEMES)
    scheme = SCHEMES[source][0] if scheme is None else scheme
    checks.one_of(f"scheme of {source}", scheme, SCHEMES[source])
    return {
        "paper": _paper,
        "code": _code,
        "vinyals": _vinyals,
        "ravi": _ravi,
        "bertinetto": _bertinetto,
        "oreshkin": _oreshkin,
        "ren": _ren,
        "chen": _chen,
    }[scheme]()


def by_hash(name: str) -> bytes:
    """A sorting key that shuffles, for everyone and at all times alike: the name's SHA-256."""
    return hashlib.sha256(name.encode()).digest()


def seventy_ten_twenty(name: str) -> str:
    """The split of a class in a set without a published one: 70, 10 and 20 % of all names."""
    draw = by_hash(name)[0] / 256
    return "train" if draw < 0.7 else "validation" if draw < 0.8 else "test"


def _paper() -> dict[str, tuple[str, ...]]:
    order = sorted(OMNIGLOT, key=by_hash)
    return {"train": tuple(sorted(order[:1200])), "test": tuple(sorted(order[1200:]))}


def _code() -> dict[str, tuple[str, ...]]:
    order = sorted(OMNIGLOT, key=by_hash)
    held_back = tuple(sorted(order[1100:1200]))
    return _rest(OMNIGLOT, validation=held_back, test=_paper()["test"])


def _vinyals() -> dict[str, tuple[str, ...]]:
    def among(alphabets: Sequence[str]) -> tuple[str, ...]:
        return tuple(name for name in OMNIGLOT if name.split("/")[0] in alphabets)

    last_of_gurmukhi = tuple(f"Gurmukhi/character{number}" for number in range(42, 46))
    test = (*among(VINYALS_TEST), *last_of_gurmukhi)
    return _rest(OMNIGLOT, validation=among(VINYALS_VALIDATION), test=tuple(sorted(test)))


def _ravi() -> dict[str, tuple[str, ...]]:
    return _of_imagenet(RAVI_TRAIN, RAVI_VALIDATION, RAVI_TEST)


def _ren() -> dict[str, tuple[str, ...]]:
    return _of_imagenet(REN_TRAIN, REN_VALIDATION, REN_TEST)


def _chen() -> dict[str, tuple[str, ...]]:
    return {"train": CUB[::2], "validation": CUB[1::4], "test": CUB[3::4]}


def _of_imagenet(*numbers: str) -> dict[str, tuple[str, ...]]:
    listed = dict(zip(SPLITS, numbers, strict=True))
    return {split: tuple(f"n{number}" for number in text.split()) for split, text in listed.items()}


def _bertinetto() -> dict[str, tuple[str, ...]]:
    validation, test = tuple(BERTINETTO_VALIDATION.split()), tuple(BERTINETTO_TEST.split())
    return _rest(CIFAR100, validation, test)


def _oreshkin() -> dict[str, tuple[str, ...]]:
    def among(superclasses: Sequence[str]) -> tuple[str, ...]:
        return tuple(sorted(" ".join(SUPERCLASSES[name] for name in superclasses).split()))

    return _rest(CIFAR100, among(ORESHKIN_VALIDATION), among(ORESHKIN_TEST))


def _rest(
    names: Sequence[str], validation: tuple[str, ...], test: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    """All splits, where whatever is not held back is there to learn from."""
    held_back = {*validation, *test}
    train = tuple(name for name in names if name not in held_back)
    return {"train": train, "validation": validation, "test": test}
