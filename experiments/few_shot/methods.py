"""The methods of few-shot classification: what each trains, on what, and what is then tested."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jax.sharding import Mesh

from experiments.harness.config import Config
from mamljax import baselines, recipes, tasks
from mamljax.data import ImageSet
from mamljax.recipes import Recipe
from mamljax.tasks import episodes
from mamljax.tasks.augment import Augment
from mamljax.types import Array, Learner, Params, Sampler


class Tested(NamedTuple):
    """A learner that is tested with trained parameters.

    learner: made from an inner step size.
    tuned: the step size is chosen on validation tasks, not the config's.
    steps: it takes inner steps.
    params: from the trained parameters to those that the learner takes.
    """

    learner: Callable[[float], Learner]
    tuned: bool = False
    steps: bool = True
    params: Callable[[Params], Params] = lambda params: params


class Method(NamedTuple):
    """A way to few-shot classification.

    learner: what is trained.
    sampler: what it is trained on, tasks or minibatches, from the training images.
    tested: by the name in the report; the first one is validated while training goes on.
    sample: of a generative model, see `baselines.Statistician`.
    """

    learner: Learner
    sampler: Callable[[ImageSet], Sampler]
    tested: Mapping[str, Tested]
    sample: Callable[[Params, Array, int], Array] | None = None


def recipe(config: Config, image_shape: tuple[int, ...], classes: int) -> Recipe:
    """What the config says of the learner, with the step size and the steps of training.

    Args:
      config: of the experiment.
      image_shape: ``(H, W, ch)``.
      classes: how many there are in training.
    """
    model = config.model
    return Recipe(
        method=config.method,
        network=model.network,
        filters=model.filters,
        norm=model.norm,
        norm_scale=model.norm_scale,
        norm_offset=model.norm_offset,
        adapt_norm=model.adapt_norm,
        context_channels=model.context_channels,
        image_shape=tuple(image_shape),
        ways=config.task.ways,
        shots=config.task.shots,
        classes=classes,
        inner_lr=config.train.inner_lr,
        num_steps=config.train.num_inner_steps,
    )


def task_sampler(
    config: Config, images: ImageSet, queries: int, augment: Augment | None = None
) -> Sampler:
    """Episodes of the config's ways and shots."""
    return episodes(
        images.images,
        counts=images.counts,
        names=images.names,
        ways=config.task.ways,
        shots=config.task.shots,
        queries=queries,
        rotate=config.data.rotate,
        augment=augment,
    )


def augmentation(config: Config) -> Augment | None:
    """The changes of training images that the config asks for."""
    asked = config.data.augment.to_dict()
    return tasks.augment(**asked) if any(asked.values()) else None


def build(config: Config, image_shape: tuple[int, ...], classes: int, mesh: Mesh | None) -> Method:
    """The config's method.

    Args:
      config: of the experiment.
      image_shape: ``(H, W, ch)``.
      classes: how many there are in training.
      mesh: devices to split the tasks over.
    """
    trained = recipe(config, image_shape, classes)
    options = {"task_chunk": config.train.task_chunk or None, "mesh": mesh}
    if config.method == "pretrained":
        return _pretrained(config, trained, options)
    if config.method in recipes.GRADIENT_BASED:
        options["remat"] = config.train.remat

        def by_step_size(inner_lr: float) -> Learner:
            return recipes.learner(trained._replace(inner_lr=inner_lr), **options)

        return _episodic(config, by_step_size(config.train.inner_lr), Tested(by_step_size))
    if config.method == "statistician":
        learner, sample = recipes.statistician(trained, **options)
    else:
        learner, sample = recipes.learner(trained, **options), None
    tested = Tested(lambda inner_lr: learner, steps=False)
    return _episodic(config, learner, tested)._replace(sample=sample)


def _episodic(config: Config, learner: Learner, tested: Tested) -> Method:
    def sampler(images):
        return task_sampler(config, images, config.train.queries, augmentation(config))

    return Method(learner, sampler, {config.method: tested})


def _pretrained(config: Config, trained: Recipe, options: dict[str, Any]) -> Method:
    """One classifier of all training classes: fine-tuned, or its features compared."""
    body, ways = recipes.network(trained, None), trained.ways

    def fine_tuned(inner_lr: float) -> Learner:
        return recipes.learner(trained._replace(inner_lr=inner_lr), **options)

    features = baselines.nearest_neighbour(body, ways=ways, similarity="cosine")
    pixels = baselines.nearest_neighbour(ways=ways)
    tested = {
        "nearest neighbour, features": Tested(
            lambda inner_lr: features, steps=False, params=lambda params: params["body"]
        ),
        "fine-tuning": Tested(fine_tuned, tuned=True),
        "nearest neighbour, pixels": Tested(
            lambda inner_lr: pixels, steps=False, params=lambda params: ()
        ),
    }

    def sampler(images):
        return baselines.minibatches(
            images.images,
            size=config.train.minibatch,
            counts=images.counts,
            augment=augmentation(config),
        )

    return Method(fine_tuned(0.0), sampler, tested)
