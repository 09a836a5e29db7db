"""The methods that meta-learning is compared with, behind the same `Learner`."""

from mamljax.baselines.averaging import PENALTIES, train_regressors
from mamljax.baselines.pretrain import oracle, pretrain
from mamljax.baselines.tuning import tune_inner_lr

__all__ = ["PENALTIES", "oracle", "pretrain", "train_regressors", "tune_inner_lr"]
