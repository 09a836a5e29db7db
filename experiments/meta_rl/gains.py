"""What adaptation gained in reinforcement learning, task by task, with intervals."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mamljax.evaluate import Scores, summarise

RESAMPLES = 2000
"""Bootstrap samples behind the interval of a part of the gap to the oracle."""


def by_step(scores: Mapping[str, Scores]) -> dict[str, dict[str, list[float]]]:
    """Return what each method gained by 1, 2, ... steps, with that difference's 95% interval.

    Every task is compared with itself: the intervals of returns before and after adaptation say how
    much tasks differ, not how sure a gain is.
    """
    found = {}
    for name, score in scores.items():
        gain = score.values[:, 1:] - score.values[:, :1]
        if gain.size and np.isfinite(gain).all():
            paired = summarise(gain, -gain)
            found[name] = {"mean": paired.mean.tolist(), "ci95": paired.ci95.tolist()}
    return found


def gap_closed(scores: Mapping[str, Scores]) -> dict[str, dict[str, list[Any]]]:
    """Return which part of the way from its start to the oracle each method gets, step by step.

    By method ``{"mean": parts, "ci95": [lowest, highest] of each}``. A ratio of means has no simple
    error, so its interval is a bootstrap: tasks are drawn anew, with replacement, and each brings
    its return before and after adaptation and the oracle's.
    """
    if "oracle" not in scores:
        return {}
    best = scores["oracle"].values[:, :1]
    again = np.random.default_rng(0).integers(len(best), size=(RESAMPLES, len(best)))
    found = {}
    for name, score in scores.items():
        if score.values.shape[1] == 1 or not np.isfinite(score.values).all():
            continue
        parts = _share(*(x.mean(axis=0) for x in (score.values, best)))
        drawn = _share(*(x[again].mean(axis=1) for x in (score.values, best)))
        ci95 = np.percentile(drawn, (2.5, 97.5), axis=0).T
        found[name] = {"mean": parts.round(3).tolist(), "ci95": ci95.round(3).tolist()}
    return found


def _share(returns: np.ndarray, best: np.ndarray) -> np.ndarray:
    """The part of the way to the best return, ``[..., steps + 1], [..., 1] -> [..., steps]``."""
    start = returns[..., :1]
    return (returns[..., 1:] - start) / (best - start)
