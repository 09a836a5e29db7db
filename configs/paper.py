"""The paper's numbers, and the runs that reproduce them: `mamljax reproduce`.

Finn, Abbeel, Levine 2017, *Model-agnostic meta-learning for fast adaptation of deep networks*.
"""

from typing import NamedTuple

Accuracies = dict[int, tuple[float, float | None]]
"""By shots: percent, and the half-width of the 95% interval where one was published."""

IMAGES: dict[tuple[str, int, str], Accuracies] = {
    # Tables 1 and 3 (context), by image set, ways and method; one query per class and shot.
    ("omniglot", 5, "maml"): {1: (98.7, 0.4), 5: (99.9, 0.1)},
    ("omniglot", 20, "maml"): {1: (95.8, 0.3), 5: (98.9, 0.2)},
    ("omniglot", 5, "maml, dense"): {1: (89.7, 1.1), 5: (97.5, 0.6)},
    ("omniglot", 5, "context"): {1: (94.9, 0.9), 5: (97.7, 0.3)},
    ("omniglot", 5, "mann"): {1: (82.8, None), 5: (94.9, None)},
    ("omniglot", 5, "siamese"): {1: (97.3, None), 5: (98.4, None)},
    ("omniglot", 20, "siamese"): {1: (88.2, None), 5: (97.0, None)},
    ("omniglot", 5, "memory"): {1: (98.4, None), 5: (99.6, None)},
    ("omniglot", 20, "memory"): {1: (95.0, None), 5: (98.6, None)},
    ("omniglot", 5, "statistician"): {1: (98.1, None), 5: (99.5, None)},
    ("omniglot", 20, "statistician"): {1: (93.2, None), 5: (98.1, None)},
    ("omniglot", 5, "matching"): {1: (98.1, None), 5: (98.9, None)},
    ("omniglot", 20, "matching"): {1: (93.8, None), 5: (98.5, None)},
    ("miniimagenet", 5, "fine-tuning"): {1: (28.86, 0.54), 5: (49.79, 0.79)},
    ("miniimagenet", 5, "nearest neighbour, features"): {1: (41.08, 0.70), 5: (51.04, 0.65)},
    ("miniimagenet", 5, "matching"): {1: (43.56, 0.84), 5: (55.31, 0.73)},
    ("miniimagenet", 5, "lstm"): {1: (43.44, 0.77), 5: (60.60, 0.71)},
    ("miniimagenet", 5, "fomaml"): {1: (48.07, 1.75), 5: (63.15, 0.91)},
    ("miniimagenet", 5, "maml"): {1: (48.70, 1.84), 5: (63.11, 0.92)},
}

SINUSOIDS = {  # table 2, 5-shot mean squared error after 1, 5 and 10 steps
    "multitask": (4.19, 3.85, 3.69),
    "multitask_l2": (7.18, 5.69, 5.60),
    "multitask_mean": (2.91, 2.72, 2.71),
    "pretrain": (2.41, 2.23, 2.19),
    "maml": (0.67, 0.38, 0.35),
}

RETURNS = {  # appendix C.2, mean return after 0, 1, 2 and 3 steps
    ("navigation", "maml"): (-40.41, -11.68, -3.33, -3.23),
    ("navigation", "pretrain"): (-40.81, -19.73, -11.72, -8.47),
    ("navigation", "random"): (-82.66, -57.96, -53.84, -46.81),
    ("navigation", "oracle"): (-2.29,),
    ("navigation", "context"): (-42.42, -13.90, -5.17, -3.18),
    ("cheetah_velocity", "maml"): (-129.53, -78.57, -66.62, -60.78),
    ("cheetah_velocity", "pretrain"): (-158.00, -135.39, -128.47, -133.61),
    ("cheetah_velocity", "random"): (-254.83, -254.33, -246.79, -230.83),
    ("cheetah_velocity", "oracle"): (-54.47,),
    ("cheetah_direction", "maml"): (-50.69, 293.19, 313.48, 315.65),
    ("cheetah_direction", "pretrain"): (-43.03, -24.75, -12.85, 19.57),
    ("cheetah_direction", "random"): (-35.73, 21.83, 62.32, 86.18),
    ("cheetah_direction", "oracle"): (442.69,),
    ("cheetah_direction", "context"): (-40.49, -44.08, -38.27, -42.50),
    ("ant_velocity", "maml"): (30.58, 96.74, 100.06, 101.41),
    ("ant_velocity", "pretrain"): (-1.83, 6.11, 8.48, 9.47),
    ("ant_velocity", "random"): (-78.64, -62.81, -48.55, -35.56),
    ("ant_velocity", "oracle"): (107.89,),
    ("ant_direction", "maml"): (8.66, 499.15, 500.68, 499.11),
    ("ant_direction", "pretrain"): (3.16, 1.27, 6.51, 6.86),
    ("ant_direction", "random"): (3.11, 9.25, 15.96, 26.11),
    ("ant_direction", "oracle"): (524.80,),
}


class Row(NamedTuple):
    """A training run behind numbers of the paper.

    A number is reproduced where the paper's lies within the two 95% intervals, or ours is better.
    Many of the paper's have no interval: then ours alone counts.

    name: of its report and its weights below ``results/``.
    config: experiment and variant, as ``mamljax train`` takes them.
    source: where in the paper.
    hours: on two CPU cores, about, for each seed (see RESULTS.md, speed).
    seeds: each is a run of its own.
    data: the folder of its images below ``--data``, none if it needs none.
    patience: iterations without a better validation score after which a run is done before its
      length, and its report says so; 0 for never.
    network: the row whose trained network this one tests, where training depends on neither ways
      nor shots; its own if empty.
    """

    name: str
    config: str
    source: str
    hours: float
    seeds: tuple[int, ...] = (0,)
    data: str = ""
    patience: int = 0
    network: str = ""


def _omniglot(variant: str, hours: float, source: str = "table 1", seeds: int = 1) -> Row:
    name, config = f"omniglot/{variant}", f"omniglot:{variant}"
    return Row(name, config, source, hours, tuple(range(seeds)), "omniglot", 10_000)


def _of_the_same(trained: Row, *settings: str, hours: float = 0.02) -> list[Row]:
    """Rows of other settings that test the network of one."""
    experiment, _, variant = trained.config.partition(":")
    option = variant.partition("_")[2]
    return [
        trained._replace(
            name=f"{experiment}/{setting}_{option}",
            config=f"{experiment}:{setting}_{option}",
            hours=hours,
            patience=0,
            network=trained.name,
        )
        for setting in settings
    ]


def _miniimagenet(variant: str, hours: float) -> Row:
    return Row(
        f"miniimagenet/{variant}",
        f"miniimagenet:{variant}",
        "table 1",
        hours,
        data="miniimagenet",
        patience=10_000,
    )


def _robot(family: str, hours: float, seeds: int = 1) -> Row:
    name, config = f"locomotion/{family}", f"locomotion:{family}"
    return Row(name, config, "figure 5", hours, tuple(range(seeds)), patience=100)


THREE = (0, 1, 2)
OTHERS = ("5way5shot", "20way1shot", "20way5shot")
# Trained networks that several rows test: a pair is of the same class or not; a set has no label; a
# stream has six examples of each class, whichever of them are called shots; a classifier knows all
# training classes.
SIAMESE = _omniglot("5way1shot_siamese", 0.9)
STATISTICIAN = _omniglot("5way1shot_statistician", 1.8)
MEMORY = _omniglot("5way1shot_memory", 1.2)
MEMORY_20 = _omniglot("20way1shot_memory", 4.7)
PRETRAINED = _miniimagenet("5way1shot_pretrained", 0.8)
ROWS = (
    Row("sinusoid/maml", "sinusoid:table2", "table 2, figures 2, 3, 6, 7", 0.2, THREE),
    Row("sinusoid/fomaml", "sinusoid:fomaml", "first-order MAML", 0.05, THREE),
    Row("sinusoid/paper", "sinusoid:paper", "the text's step size", 0.05, THREE),
    Row("navigation/paper", "navigation", "figure 4, appendix C.2", 0.2, THREE),
    Row("navigation/rl2", "navigation:rl2", "not in the paper", 0.7, patience=100),
    _omniglot("5way1shot_dense", 0.25, seeds=3),
    _omniglot("5way5shot_dense", 0.6),
    _omniglot("5way1shot", 1.4, seeds=3),
    _omniglot("5way1shot_matching", 0.7),
    SIAMESE,
    *_of_the_same(SIAMESE, *OTHERS),
    PRETRAINED,
    *_of_the_same(PRETRAINED, "5way5shot", hours=0.4),
    STATISTICIAN,
    *_of_the_same(STATISTICIAN, *OTHERS),
    MEMORY,
    *_of_the_same(MEMORY, "5way5shot"),
    _omniglot("5way1shot_mann", 0.3),
    _omniglot("5way1shot_context", 1.2, "table 3"),
    _omniglot("5way1shot_prototypical", 0.7, "not in the paper"),
    _omniglot("5way1shot_lstm", 21.0, "not in the paper"),
    _omniglot("5way5shot_matching", 4.2),
    _omniglot("5way5shot_mann", 1.2),
    _omniglot("5way5shot_context", 6.0, "table 3"),
    _omniglot("5way5shot", 7.0),
    _miniimagenet("5way1shot", 19.0),
    _miniimagenet("5way1shot_fomaml", 12.0),
    _miniimagenet("5way1shot_matching", 9.0),
    _miniimagenet("5way5shot_matching", 6.4),
    _omniglot("20way1shot", 12.0),
    _omniglot("20way1shot_matching", 1.4),
    _miniimagenet("5way1shot_lstm", 14.0),
    _miniimagenet("5way5shot", 33.0),
    _miniimagenet("5way5shot_fomaml", 12.0),
    _miniimagenet("5way5shot_lstm", 18.0),
    MEMORY_20,
    *_of_the_same(MEMORY_20, "20way5shot"),
    _omniglot("20way5shot_matching", 7.8),
    _omniglot("20way5shot", 65.0),
    _robot("cheetah_direction", 0.6, seeds=3),
    _robot("cheetah_velocity", 2.0),
    _robot("ant_direction", 3.0),
    _robot("ant_velocity", 2.0),
)
"""In the order in which they are trained."""
