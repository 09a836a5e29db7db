"""The methods that meta-learning is compared with, behind the same `Learner`."""

from mamljax.baselines.averaging import PENALTIES, train_regressors
from mamljax.baselines.finetune import fine_tune, minibatches
from mamljax.baselines.mann import mann
from mamljax.baselines.memory import memory_module
from mamljax.baselines.metric import (
    matching,
    metric_learner,
    nearest_neighbour,
    prototypical,
    siamese,
)
from mamljax.baselines.pretrain import oracle, pretrain
from mamljax.baselines.statistician import Statistician, statistician

__all__ = [
    "PENALTIES",
    "Statistician",
    "fine_tune",
    "mann",
    "matching",
    "memory_module",
    "metric_learner",
    "minibatches",
    "nearest_neighbour",
    "oracle",
    "pretrain",
    "prototypical",
    "siamese",
    "statistician",
    "train_regressors",
]
