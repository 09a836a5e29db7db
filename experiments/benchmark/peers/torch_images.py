"""Few-shot image classification in PyTorch: `conv2d` under `vmap` becomes a grouped convolution.

Tasks are sampled from a tensor in memory.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.benchmark.peers.torch_maml import Problem, Tasks, Weights, torch

BLOCKS = range(4)


def problem(config: Any, images: np.ndarray) -> Problem:
    """The experiment of a config on images, uint8 ``[C, M, H, W, channels]``."""
    pixels = torch.tensor(np.moveaxis(images, -1, 2))
    net = {"omniglot": strided_network, "miniimagenet": pooled_network}[config.model.network]
    return Problem(
        functools.partial(cross_entropy, net),
        functools.partial(sample_tasks, config, pixels),
        to_tasks,
        lambda name: not name.endswith("offset"),
    )


def strided_network(weights: Weights, images: Any) -> Any:
    """Logits ``[K, N]`` of images ``[K, 1, H, W]``: strides of 2, the mean over places."""
    hidden = images
    for i in BLOCKS:
        # TensorFlow's "SAME": one row and column behind, or one on either side of an odd size.
        before = hidden.shape[-1] % 2
        hidden = torch.nn.functional.pad(hidden, (before, 1, before, 1))
        hidden = torch.relu(_convolved(weights, i, hidden, stride=2))
    return hidden.mean((2, 3)) @ weights["head/kernel"] + weights["head/bias"]


def pooled_network(weights: Weights, images: Any) -> Any:
    """Logits ``[K, N]`` of images ``[K, 3, H, W]``: 2x2 max-pooling, all places to the head."""
    hidden = images
    for i in BLOCKS:
        hidden = _convolved(weights, i, hidden, padding=1)
        # Pooled first: a maximum commutes with ReLU, and less is left to compute.
        hidden = torch.relu(torch.nn.functional.max_pool2d(hidden, 2))
    places = hidden.movedim(1, -1).flatten(1)
    return places @ weights["head/kernel"] + weights["head/bias"]


def _convolved(weights: Weights, block: int, images: Any, **options: int) -> Any:
    """Convolution and norm: statistics of the batch, an offset only."""
    functional = torch.nn.functional
    kernel, bias = weights[f"block_{block}/conv/kernel"], weights[f"block_{block}/conv/bias"]
    hidden = functional.conv2d(images, kernel, bias, **options)
    offset = weights[f"block_{block}/norm/offset"]
    ones = torch.ones_like(offset)
    return functional.batch_norm(hidden, None, None, ones, offset, training=True, eps=1e-3)


def cross_entropy(network: Callable, weights: Weights, images: Any, labels: Any) -> Any:
    """The mean cross-entropy of a network."""
    return torch.nn.functional.cross_entropy(network(weights, images), labels)


def to_tasks(batch: Sequence[np.ndarray]) -> Tasks:
    """Batches of images ``[T, K, H, W, channels]`` and labels ``[T, K]``."""
    support_x, support_y, query_x, query_y = (torch.tensor(part) for part in batch)
    return support_x.movedim(-1, 2), support_y.long(), query_x.movedim(-1, 2), query_y.long()


def sample_tasks(config: Any, images: Any) -> Tasks:
    """A meta-batch of episodes of images ``[C, M, channels, H, W]``."""
    tasks, ways, shots = config.train.meta_batch, config.task.ways, config.task.shots
    classes = torch.rand(tasks, images.shape[0]).topk(ways).indices
    drawn = torch.rand(tasks, ways, images.shape[1]).topk(shots + config.train.queries).indices
    chosen = images[classes[:, :, None], drawn].float() / 255
    if config.data.rotate:  # each class by a random quarter turn
        turned = torch.stack([torch.rot90(chosen, k, (4, 5)) for k in range(4)])
        turns = torch.randint(4, (tasks, ways))
        chosen = turned[turns, torch.arange(tasks)[:, None], torch.arange(ways)]
    labels = torch.arange(ways)[None, :, None]

    def part(images):
        repeated = labels.expand(tasks, ways, images.shape[2]).reshape(tasks, -1)
        return images.reshape(tasks, -1, *images.shape[3:]), repeated

    return *part(chosen[:, :, :shots]), *part(chosen[:, :, shots:])
