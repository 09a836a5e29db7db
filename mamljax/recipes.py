"""Recipes: all that it takes to build a learner for images, as plain values.

Training builds its learner from a recipe, and whoever loads what was trained builds it from the
same one (`mamljax.photos`), so that the two cannot disagree.
"""

from typing import Any, NamedTuple

import numpy as np

from mamljax import checks, models
from mamljax.algorithms import context_vector, fomaml, maml, meta_lstm, proto_maml
from mamljax.baselines import (
    Statistician,
    fine_tune,
    mann,
    matching,
    memory_module,
    prototypical,
    siamese,
)
from mamljax.baselines import statistician as statistician_of
from mamljax.checks import ArgumentError
from mamljax.losses import cross_entropy
from mamljax.models.norm import CHOICES
from mamljax.models.resnet import WIDTHS
from mamljax.partition import all_but, all_parameters
from mamljax.types import Learner, Model, Params, Partition

WITH_OUTPUTS = {"maml": maml, "fomaml": fomaml, "lstm": meta_lstm}
"""Methods whose meta-parameters have an output for each class."""
GRADIENT_BASED = (*WITH_OUTPUTS, "proto_maml", "context")
METRIC = {
    "prototypical": prototypical,
    "matching": matching,
    "siamese": siamese,
    "memory": memory_module,
}
METHODS = (*GRADIENT_BASED, *METRIC, "mann", "statistician", "pretrained")
CONVOLUTIONAL = {"omniglot": models.omniglot_net, "miniimagenet": models.miniimagenet_net}
NETWORKS = (*CONVOLUTIONAL, "resnet12", "dense")

ANY_WAYS = ("maml", "fomaml", "proto_maml", *METRIC, "statistician", "pretrained")
"""Methods that can adapt to another number of classes than they were trained with."""


class Recipe(NamedTuple):
    """How a learner for images is built.

    method: one of `METHODS`.
    network: one of `NETWORKS`.
    filters: of every convolution, of resnet12 in its first block; 0 for the network's own number.
    norm, norm_scale, norm_offset: see `models.conv_net`.
    adapt_norm: whether the norms' parameters adapt in the inner loop.
    context_channels: of the context (``method="context"``).
    image_shape: height, width, channels.
    ways, shots: of the tasks in training.
    classes: in training, of which a ``pretrained`` network has a classifier.
    inner_lr, num_steps: of the inner loop, where there is one.
    """

    method: str = "maml"
    network: str = "omniglot"
    filters: int = 0
    norm: str = "batch"
    norm_scale: bool = False
    norm_offset: bool = True
    adapt_norm: bool = False
    context_channels: int = 3
    image_shape: tuple[int, ...] = (28, 28, 1)
    ways: int = 5
    shots: int = 1
    classes: int = 1
    inner_lr: float = 0.1
    num_steps: int = 1


def network(recipe: Recipe, outputs: int | None, **options: Any) -> Model:
    """The recipe's network; without outputs an embedding.

    Args:
      recipe: what to build.
      outputs: classes, or None.
      options: of `conv_net`, where the network is one.

    Raises:
      ArgumentError: for an unknown network or norm.
    """
    checks.one_of("network", recipe.network, NETWORKS)
    checks.one_of("norm", recipe.norm, CHOICES)
    norm = {
        "norm": recipe.norm,
        "norm_scale": recipe.norm_scale,
        "norm_offset": recipe.norm_offset,
    }
    if recipe.network == "dense":
        layers = (256, 128, 64, 64) if outputs is None else (256, 128, 64, 64, outputs)
        return models.mlp(layers, init="truncated_normal", **norm)
    if recipe.network == "resnet12":
        first = recipe.filters or WIDTHS[0]
        widths = [width * first // WIDTHS[0] for width in WIDTHS]
        return models.resnet12(outputs, widths=widths, **norm)
    return CONVOLUTIONAL[recipe.network](outputs, **norm, **_filters(recipe), **options)


def learner(recipe: Recipe, *, remat: bool = False, **options: Any) -> Learner:
    """The recipe's learner.

    Args:
      recipe: what to build.
      remat: of the inner loop, see `unroll`.
      options: ``task_chunk`` and ``mesh``, see `backprop`.

    Raises:
      ArgumentError: for an unknown method, or values that do not go together.
    """
    checks.one_of("method", recipe.method, METHODS)
    if recipe.method in GRADIENT_BASED:
        return _gradient_based(recipe, {"remat": remat, **options})
    if recipe.method == "pretrained":
        steps = {"inner_lr": recipe.inner_lr, "num_steps": recipe.num_steps}
        body = network(recipe, None)
        return fine_tune(body, classes=recipe.classes, ways=recipe.ways, **steps, **options)
    if recipe.method == "mann":
        return mann(ways=recipe.ways, **options)
    if recipe.method == "statistician":
        return statistician(recipe, **options).learner
    return METRIC[recipe.method](network(recipe, None), ways=recipe.ways, **options)


def statistician(recipe: Recipe, **options: Any) -> Statistician:
    """The recipe's neural statistician, which also draws images."""
    # The mean over the last map says too little of an image to draw it by.
    body = network(recipe, None, readout="flatten")
    sizes = _filters(recipe)
    return statistician_of(body, recipe.image_shape, ways=recipe.ways, **sizes, **options)


def for_ways(recipe: Recipe, meta_params: Params, ways: int) -> tuple[Recipe, Params]:
    """The recipe and its meta-parameters for another number of classes.

    What compares with the support set takes any number as it is, as do fine-tuning, whose head
    begins at zero, and Proto-MAML, whose head begins at the prototypes. MAML's head gives as many
    of its outputs as there are classes, which fewer lose nothing by, since their order never meant
    anything; more classes take them again from the first, at a price in accuracy. (One mean output
    for all, or zeros, leave the body without a gradient in the first step: after few steps that is
    worse.)

    Raises:
      ArgumentError: for a method whose parameters are bound to the number in training.
    """
    checks.at_least("ways", ways, 2)
    if ways == recipe.ways:
        return recipe, meta_params
    if recipe.method not in ANY_WAYS:
        raise ArgumentError(
            f"{recipe.method} was trained for {recipe.ways} classes and cannot take {ways}: what "
            f"it adapts, or answers with, is bound to that number. Give it {recipe.ways} classes, "
            f"train with --config.task.ways={ways}, or train one of {', '.join(ANY_WAYS)}."
        )
    if recipe.method in WITH_OUTPUTS:
        meta_params = _with_outputs(meta_params, np.arange(ways) % recipe.ways)
    return recipe._replace(ways=ways), meta_params


def _with_outputs(params: Params, chosen: np.ndarray) -> Params:
    """Parameters whose last layer has the chosen ones of its outputs."""
    last = max((name for name in params if "kernel" in params[name]), key=_number_of_layer)
    return {**params, last: {name: x[..., chosen] for name, x in params[last].items()}}


def _number_of_layer(name: str) -> int:
    """``Dense_4`` of the dense network comes after ``Dense_3``; others have a single ``head``."""
    return int(name.rpartition("_")[2]) if "_" in name else 0


def _gradient_based(recipe: Recipe, options: dict[str, Any]) -> Learner:
    options |= {"inner_lr": recipe.inner_lr, "num_steps": recipe.num_steps}
    if recipe.method == "context":
        height, width, _ = recipe.image_shape
        shape = (height, width, recipe.context_channels)
        return context_vector(network(recipe, recipe.ways), cross_entropy, shape, **options)
    options["partition"] = _partition(recipe)
    if recipe.method == "proto_maml":
        return proto_maml(network(recipe, None), ways=recipe.ways, **options)
    return WITH_OUTPUTS[recipe.method](network(recipe, recipe.ways), cross_entropy, **options)


def _partition(recipe: Recipe) -> Partition:
    """Without the parameters of norms, unless these adapt, or there are none."""
    there_are = recipe.norm_scale or recipe.norm_offset
    if recipe.norm == "none" or recipe.adapt_norm or not there_are:
        return all_parameters()
    return all_but("norm")


def _filters(recipe: Recipe) -> dict[str, int]:
    return {"filters": recipe.filters} if recipe.filters else {}
