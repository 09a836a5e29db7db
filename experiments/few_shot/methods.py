"""The methods of few-shot classification: what each trains, on what, and what is then tested."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from jax.sharding import Mesh

from experiments.harness.config import Config
from mamljax import baselines, fomaml, maml, models, tasks
from mamljax.algorithms import context_vector, meta_lstm
from mamljax.data import ImageSet
from mamljax.losses import cross_entropy
from mamljax.models.resnet import WIDTHS
from mamljax.partition import all_but, all_parameters
from mamljax.tasks import episodes
from mamljax.tasks.augment import Augment
from mamljax.types import Array, Learner, Model, Params, Partition, Sampler


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
    sampler: what it is trained on, from the training images.
    meta_batch: tasks per iteration.
    tested: by the name in the report; the first one is validated while training goes on.
    sample: of a generative model, see `baselines.Statistician`.
    """

    learner: Learner
    sampler: Callable[[ImageSet], Sampler]
    meta_batch: int
    tested: Mapping[str, Tested]
    sample: Callable[[Params, Array, int], Array] | None = None


def network(config: Config, outputs: int | None) -> Model:
    """The config's network; without outputs an embedding."""
    norm = {
        "norm": config.model.norm,
        "norm_scale": config.model.norm_scale,
        "norm_offset": config.model.norm_offset,
    }
    if config.model.network == "dense":
        layers = (256, 128, 64, 64) if outputs is None else (256, 128, 64, 64, outputs)
        return models.mlp(layers, init="truncated_normal", **norm)
    if config.model.network == "resnet12":
        first = config.model.filters or WIDTHS[0]
        widths = [width * first // WIDTHS[0] for width in WIDTHS]
        return models.resnet12(outputs, widths=widths, **norm)
    convolutional = {"omniglot": models.omniglot_net, "miniimagenet": models.miniimagenet_net}
    filters = {"filters": config.model.filters} if config.model.filters else {}
    return convolutional[config.model.network](outputs, **norm, **filters)


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
    shared = {"task_chunk": config.train.task_chunk or None, "mesh": mesh}
    if config.method in GRADIENT_BASED:
        return _gradient_based(config, image_shape, shared)
    if config.method == "pretrained":
        return _pretrained(config, classes)
    shared["ways"] = config.task.ways
    sample = None
    if config.method == "mann":
        learner = baselines.mann(**shared)
    elif config.method == "statistician":
        sizes = {"filters": config.model.filters} if config.model.filters else {}
        body = network(config, None)
        learner, sample = baselines.statistician(body, image_shape, **sizes, **shared)
    else:
        learner = METRIC[config.method](network(config, None), **shared)
    tested = Tested(lambda inner_lr: learner, steps=False)
    return _episodic(config, learner, {config.method: tested})._replace(sample=sample)


def _gradient_based(config: Config, image_shape: tuple[int, ...], shared: dict) -> Method:
    model = network(config, config.task.ways)
    partition = _partition(config)

    def learner(inner_lr: float) -> Learner:
        options = {"inner_lr": inner_lr, "num_steps": config.train.num_inner_steps}
        options |= {"remat": config.train.remat, **shared}
        if config.method == "context":
            height, width, _ = image_shape
            shape = (height, width, config.model.context_channels)
            return context_vector(model, cross_entropy, shape, **options)
        return GRADIENT_BASED[config.method](model, cross_entropy, partition=partition, **options)

    tested = {config.method: Tested(learner)}
    return _episodic(config, learner(config.train.inner_lr), tested)


def _partition(config: Config) -> Partition:
    """Without the parameters of norms, unless these adapt, or there are none."""
    there_are = config.model.norm_scale or config.model.norm_offset
    if config.model.norm == "none" or config.model.adapt_norm or not there_are:
        return all_parameters()
    return all_but("norm")


def _episodic(config: Config, learner: Learner, tested: Mapping[str, Tested]) -> Method:
    def sampler(images):
        return task_sampler(config, images, config.train.queries, augmentation(config))

    return Method(learner, sampler, config.train.meta_batch, tested)


def _pretrained(config: Config, classes: int) -> Method:
    """One classifier of all training classes: fine-tuned, or its features compared."""
    body, ways = network(config, None), config.task.ways

    def fine_tuned(inner_lr: float) -> Learner:
        return baselines.fine_tune(body, classes=classes, ways=ways, inner_lr=inner_lr)

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

    return Method(fine_tuned(0.0), sampler, 1, tested)


GRADIENT_BASED = {"maml": maml, "fomaml": fomaml, "context": context_vector, "lstm": meta_lstm}
METRIC = {
    "prototypical": baselines.prototypical,
    "matching": baselines.matching,
    "siamese": baselines.siamese,
    "memory": baselines.memory_module,
}
NETWORKS = ("omniglot", "miniimagenet", "resnet12", "dense")
METHODS = (*GRADIENT_BASED, *METRIC, "mann", "statistician", "pretrained")
