"""Birds (CUB-200-2011), 5-way K-shot, as Chen et al. 2019 split them, with a ResNet-12.

    python -m experiments.cub --config=configs/cub.py:5way1shot \\
        --workdir=runs/cub --config.data.dir=DIRECTORY

DIRECTORY holds CUB_200_2011/images, as its archive has it. Photos are squeezed to 84 x 84, whole.

Variants, given after a colon:
    5way1shot, 5way5shot          MAML
    5way1shot_fomaml, ...         first-order MAML
    5way1shot_pretrained, ...     a classifier of all classes: fine-tuning and nearest neighbours
    5way1shot_prototypical, ...   also matching, siamese, mann, memory, statistician, lstm, context,
                                  proto_maml, dense

configs/tieredimagenet.py says how they follow each other. Nothing here has been trained to its end
with this code.
"""

from ml_collections import ConfigDict

from configs.base import few_shot

SETTINGS = ("5way1shot", "5way5shot")


def get_config(variant: str = "5way1shot") -> ConfigDict:
    """The config of a variant."""
    config = few_shot.resnet12("cub", few_shot.parse(variant, SETTINGS))
    config.data.on_disk = False  # 250 MB
    return config
