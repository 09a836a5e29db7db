"""miniImagenet, 5-way K-shot: Finn et al. 2017, section 5.2, table 1.

python -m experiments.miniimagenet --config=configs/miniimagenet.py:5way1shot --workdir=runs/mini
"""

from ml_collections import ConfigDict

from configs import few_shot, variants

VARIANTS = ("5way1shot", "5way5shot", "5way1shot_fomaml", "5way5shot_fomaml")


def get_config(variant: str = "5way1shot") -> ConfigDict:
    """The config of a variant."""
    variants.check(variant, VARIANTS)
    setting, _, option = variant.partition("_")
    shots = int(setting.removeprefix("5way").removesuffix("shot"))
    config = few_shot.base("miniimagenet", 5, shots)
    config.method = option or "maml"
    config.train.meta_batch = 4 if shots == 1 else 2
    config.train.queries = 15
    config.train.clip = 2.0  # the authors clip the gradient of 5 x the mean loss to 10
    config.evaluate.queries = (1, 15) if shots == 1 else (5, 15)
    return config
