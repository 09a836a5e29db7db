"""Omniglot, N-way K-shot: Finn et al. 2017, section 5.2, table 1.

    python -m experiments.omniglot --config=configs/omniglot.py:5way1shot --workdir=runs/omniglot

Without the data set, on characters drawn from fonts: --config.data.source=glyphs
"""

from ml_collections import ConfigDict

from configs import few_shot, variants

VARIANTS = (
    "5way1shot",
    "5way5shot",
    "20way1shot",
    "20way5shot",
    "5way1shot_dense",
    "5way5shot_dense",
)


def get_config(variant: str = "5way1shot") -> ConfigDict:
    """The config of a variant."""
    variants.check(variant, VARIANTS)
    setting, _, option = variant.partition("_")
    ways, shots = (int(x) for x in setting.removesuffix("shot").split("way"))
    config = few_shot.base("omniglot", ways, shots)
    config.data.scheme = "code"
    config.data.rotate = True
    if option == "dense":
        config.model.network = "dense"
    if ways == 5:
        config.train.meta_batch = 32
        config.train.num_inner_steps = 1
        config.train.inner_lr = 2.0  # 0.4 x 5
        config.evaluate.num_inner_steps = 3
    else:
        config.train.meta_batch = 16
        config.train.num_inner_steps = 5
        config.train.inner_lr = 2.0  # 0.1 x 20
        config.evaluate.num_inner_steps = 5
    config.evaluate.inner_lr = config.train.inner_lr
    return config
