"""tieredImageNet, 5-way K-shot (Ren et al. 2018), with a ResNet-12.

    python -m experiments.tieredimagenet --config=configs/tieredimagenet.py:5way1shot_pretrained \\
        --workdir=runs/pretrained --config.data.dir=DIRECTORY

DIRECTORY holds the 84 x 84 images, each in a folder named after its class (train/n01530575/*.jpg).
They take 16 GB prepared and are read from disk as they are drawn (config.data.on_disk=True).

Variants, given after a colon:
    5way1shot, 5way5shot          MAML
    5way1shot_fomaml, ...         first-order MAML
    5way1shot_pretrained, ...     a classifier of all classes: fine-tuning and nearest neighbours
    5way1shot_prototypical, ...   also matching, siamese, mann, memory, statistician, lstm, context,
                                  proto_maml, dense

A backbone first, then episodes: 5way1shot_pretrained trains one classifier of all 351 classes, with
augmentation, and tests its features by nearest neighbours and by fine-tuning. The variant
5way1shot_prototypical with --config.weights.start=runs/pretrained/model.npz and another --workdir
goes on from its weights with Prototypical networks, 5way1shot with MAML.

The smaller network of Finn et al. is --config.model.network=miniimagenet
--config.model.norm_scale=False. Nothing here has been trained to its end with this code: a
ResNet-12 takes a GPU. It lacks what Lee et al. 2019 have besides: DropBlock, SGD with a schedule,
running averages.
"""

from ml_collections import ConfigDict

from configs.base import few_shot

SETTINGS = ("5way1shot", "5way5shot")


def get_config(variant: str = "5way1shot") -> ConfigDict:
    """The config of a variant."""
    return few_shot.resnet12("tieredimagenet", few_shot.parse(variant, SETTINGS))
