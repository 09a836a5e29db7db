"""mamljax: gradient-based meta-learning as pure functions in JAX.

Meta-learning is five functions, each built from the one before:

    inner_update   one gradient step on one task                     inner.py
    unroll         a few of them: meta-parameters -> adapted         inner.py
    query_loss     adapt on the support set, score on the query set  objective.py
    backprop       the mean over tasks, differentiated               meta.py
    meta_step      an optax update of the meta-parameters            meta.py

`maml` and `fomaml` are compositions of them, as are the further methods in `algorithms`; `fit` and
`evaluate` run them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mamljax import algorithms, losses, models, tasks
from mamljax.algorithms import fomaml, maml
from mamljax.evaluate import evaluate
from mamljax.inner import inner_update, unroll
from mamljax.meta import backprop, init_state, meta_step
from mamljax.objective import multi_step_loss, query_loss, task_loss
from mamljax.train import fit
from mamljax.types import Batch, Drawn, Learner, Model, PerStep, Task, TrainState, Weighted
from mamljax.version import __version__

if TYPE_CHECKING:
    from mamljax import photos
    from mamljax.photos import load_model

__all__ = [
    "Batch",
    "Drawn",
    "Learner",
    "Model",
    "PerStep",
    "Task",
    "TrainState",
    "Weighted",
    "__version__",
    "algorithms",
    "backprop",
    "evaluate",
    "fit",
    "fomaml",
    "init_state",
    "inner_update",
    "load_model",
    "losses",
    "maml",
    "meta_step",
    "models",
    "multi_step_loss",
    "photos",
    "query_loss",
    "task_loss",
    "tasks",
    "unroll",
]


def __getattr__(name: str) -> Any:
    """Import what few programs need once it is asked for: image sets and files take their time."""
    if name not in ("load_model", "photos"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    photos = import_module("mamljax.photos")
    return photos if name == "photos" else photos.load_model
