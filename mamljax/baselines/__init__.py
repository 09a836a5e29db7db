"""The methods that meta-learning is compared with, behind the same `Learner`."""

from mamljax.baselines.averaging import PENALTIES, train_regressors
from mamljax.baselines.context import context_vector
from mamljax.baselines.finetune import fine_tune, minibatches
from mamljax.baselines.head import with_head
from mamljax.baselines.mann import mann
from mamljax.baselines.metric import (
    matching,
    metric_learner,
    nearest_neighbour,
    prototypical,
    siamese,
)
from mamljax.baselines.pretrain import oracle, pretrain
from mamljax.baselines.tuning import tune_inner_lr

__all__ = [
    "PENALTIES",
    "context_vector",
    "fine_tune",
    "mann",
    "matching",
    "metric_learner",
    "minibatches",
    "nearest_neighbour",
    "oracle",
    "pretrain",
    "prototypical",
    "siamese",
    "train_regressors",
    "tune_inner_lr",
    "with_head",
]
