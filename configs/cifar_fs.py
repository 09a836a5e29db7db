"""CIFAR-FS, 5-way K-shot (Bertinetto et al. 2019), and FC100 (Oreshkin et al. 2018).

    python -m experiments.cifar_fs --config=configs/cifar_fs.py:5way1shot \\
        --workdir=runs/cifar_fs --config.data.dir=DIRECTORY

DIRECTORY holds CIFAR-100, as its python archive or as folders of PNG files. FC100 are other splits
of the same images: --config.data.source=fc100

Variants, given after a colon:
    5way1shot, 5way5shot          MAML, 60,000 iterations
    5way1shot_fomaml, ...         first-order MAML
    5way1shot_pretrained, ...     fine-tuning and nearest neighbours
    5way1shot_prototypical, ...   also matching, siamese, mann, memory, statistician, lstm, context,
                                  proto_maml, dense

Expected accuracy after 60,000 iterations, as Bertinetto et al. report for MAML: 58.9 and 71.5
percent. It has not been measured with this code.
"""

from ml_collections import ConfigDict

from configs.base import few_shot

SETTINGS = ("5way1shot", "5way5shot")


def get_config(variant: str = "5way1shot") -> ConfigDict:
    """The config of a variant."""
    chosen = few_shot.parse(variant, SETTINGS)
    config = few_shot.base("cifar_fs", "miniimagenet", chosen)
    config.data.dir = "data/cifar100"
    config.train.queries = 15
    config.train.clip = 2.0  # as for miniImagenet
    config.evaluate.queries = (15,)
    return few_shot.with_protocol(config, chosen)
