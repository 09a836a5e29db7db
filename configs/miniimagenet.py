"""miniImagenet, 5-way K-shot: Finn et al. 2017, section 5.2, table 1.

    python -m experiments.miniimagenet --config=configs/miniimagenet.py:5way1shot \\
        --workdir=runs/miniimagenet --config.data.dir=DIRECTORY

DIRECTORY holds the 84 x 84 images (any folders, or a zip) and the Ravi and Larochelle split as
train.csv, val.csv and test.csv.

Variants, given after a colon:
    5way1shot, 5way5shot          MAML, 60,000 iterations
    5way1shot_fomaml, ...         first-order MAML
    5way1shot_pretrained, ...     fine-tuning and nearest neighbours
    5way1shot_lstm, ...           the meta-learner LSTM, 75,000 iterations of one task
    5way1shot_prototypical, ...   also matching, siamese, mann, memory, statistician, context,
                                  proto_maml, dense

Expected accuracy after training to the end, as published (percent): MAML 48.7 and 63.1, first-order
48.1 and 63.2, fine-tuning 28.9 and 49.8, nearest neighbour 41.1 and 51.0, matching 43.6 and 55.3,
LSTM 43.4 and 60.6.
Training to the end takes 13 to 24 hours on 2 cores; RESULTS.md has what was reached.

The published numbers are with as many queries per class as shots. Under statistics of the batch
more queries help: 15 per class, as others test, give about 2.5 points more with one shot. Both are
reported, each named in its row.
"""

from ml_collections import ConfigDict

from configs.base import few_shot

SETTINGS = ("5way1shot", "5way5shot")


def get_config(variant: str = "5way1shot") -> ConfigDict:
    """The config of a variant."""
    chosen = few_shot.parse(variant, SETTINGS)
    config = few_shot.base("miniimagenet", "miniimagenet", chosen)
    config.train.meta_batch = 4 if chosen.shots == 1 else 2  # the authors' code has 4 for both
    config.train.queries = 15
    config.train.clip = 2.0  # the authors clip the gradient of 5 x the mean loss to 10
    config.evaluate.queries = (chosen.shots, 15)
    return few_shot.with_protocol(config, chosen)
