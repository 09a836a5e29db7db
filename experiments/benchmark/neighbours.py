"""Photos classified one by one and together, and for other numbers of classes than in training.

Each published model file is tested on the same tasks of its test classes, with 15 queries for each:
predicted all together, as in papers; each alone, by the same norm; and each alone by the statistics
of the support set (``norm="support"``, of the very same weights). One of them is then asked for
fewer and for more classes than it was trained with.

    python -m experiments.benchmark --suite=neighbours --output=results/neighbours.json \\
        --data_dir=data
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from experiments.benchmark import parts
from experiments.benchmark.measure import Options
from mamljax import data, evaluate, photos, recipes, tasks
from mamljax.losses import accuracy
from mamljax.photos import ImageModel
from mamljax.types import Learner, Params, Sampler

MAML = "neighbours/omniglot_5way1shot_13000.npz"
MODELS = (
    "omniglot/5way1shot_dense.npz",
    "omniglot/5way1shot_siamese.npz",
    "miniimagenet/5way1shot_pretrained.npz",
    "neighbours/omniglot_prototypical_batch.npz",  # two of 3,000 iterations,
    "neighbours/omniglot_prototypical_support.npz",  # each trained by its norm
    MAML,
)
# By the statistics of the support set both are the same, to which a test holds them.
WAYS_TO_PREDICT = (("batch", "together"), ("batch", "one by one"), ("support", "one by one"))
OTHER_WAYS = (2, 3, 5, 10, 20)
QUERIES = 15
TASKS = 100


def run(output: Path, options: Options) -> dict[str, Any]:
    """Test every model, into the output."""
    measured: parts.Parts = {
        "other ways": functools.partial(other_ways, parts.RESULTS / MAML, options.data_dir)
    }
    for name in MODELS:
        measured[name] = functools.partial(measure, parts.RESULTS / name, options.data_dir)
    return parts.run("neighbours", output, measured)


def measure(
    path: Path, data_dir: str | None, num_tasks: int = TASKS, queries: int = QUERIES
) -> list[dict[str, Any]]:
    """Return a row for each way to predict: accuracy and its interval, after the last step.

    Args:
      path: a model file.
      data_dir: where the files of its set are; None takes what was prepared before.
      num_tasks: test tasks.
      queries: of each class.
    """
    model = photos.load_model(path)
    recipe = model.recipe
    sampler = _sampler(model, recipe.ways, queries, data_dir)
    rows = []
    for norm, predicted in WAYS_TO_PREDICT:
        learner = recipes.learner(recipe._replace(norm=norm))
        tested = one_by_one(learner) if predicted == "one by one" else learner
        row = {"model": path.stem, "method": recipe.method, "network": recipe.network}
        row |= {"norm": norm, "predicted": predicted}
        rows.append(row | _score(tested, model.meta_params, sampler, num_tasks))
    return rows


def other_ways(
    path: Path, data_dir: str | None, num_tasks: int = TASKS, ways: Sequence[int] = OTHER_WAYS
) -> list[dict[str, Any]]:
    """Return a row for each number of classes, by the statistics of the support set."""
    model = photos.load_model(path, norm="support")
    rows = []
    for number in ways:
        recipe, params = recipes.for_ways(model.recipe, model.meta_params, number)
        sampler = _sampler(model, number, 5, data_dir)
        row = {"model": path.stem, "ways": number, "trained_ways": model.recipe.ways}
        rows.append(row | _score(recipes.learner(recipe), params, sampler, num_tasks))
    return rows


def _sampler(model: ImageModel, ways: int, queries: int, data_dir: str | None) -> Sampler:
    images = data.load(model.about["source"], "test", data_dir=data_dir or None)
    shots = model.recipe.shots
    return tasks.episodes(
        images.images, counts=images.counts, ways=ways, shots=shots, queries=queries
    )


def _score(learner: Learner, params: Params, sampler: Sampler, num_tasks: int) -> dict[str, Any]:
    key = jax.random.key(0)
    found = evaluate(learner, params, sampler, key, num_tasks=num_tasks, metric=accuracy)
    return {"accuracy": found.mean[-1], "ci95": found.ci95[-1], "num_tasks": num_tasks}


def one_by_one(learner: Learner) -> Learner:
    """The learner, whose predictions are made for each example alone."""

    def predict(params, inputs, *, key=None, step=0):
        def alone(example):
            return learner.predict(params, example[None], key=key, step=step)[0]

        return jax.vmap(alone)(inputs)

    return learner._replace(predict=predict)
