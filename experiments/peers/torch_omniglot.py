"""Omniglot in PyTorch: `conv2d` under `vmap` becomes a grouped convolution.

Tasks are sampled from a tensor in memory.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.peers.torch_maml import Problem, Tasks, Weights, torch

BLOCKS = range(4)


def problem(config: Any, images: np.ndarray) -> Problem:
    """The Omniglot experiment of a config on images, uint8 ``[C, M, H, W, 1]``."""
    pixels = torch.from_numpy(np.ascontiguousarray(images[..., 0]))
    return Problem(
        cross_entropy,
        functools.partial(sample_tasks, config, pixels),
        to_tasks,
        lambda name: not name.endswith("offset"),
    )


def network(weights: Weights, images: Any) -> Any:
    """Logits ``[K, N]`` of images ``[K, 1, H, W]``; statistics of the batch, offset only."""
    functional = torch.nn.functional
    hidden = images
    for i in BLOCKS:
        # TensorFlow's "SAME": one row and column behind, or one on either side of an odd size.
        before = hidden.shape[-1] % 2
        hidden = functional.pad(hidden, (before, 1, before, 1))
        kernel, bias = weights[f"block_{i}/conv/kernel"], weights[f"block_{i}/conv/bias"]
        hidden = functional.conv2d(hidden, kernel, bias, stride=2)
        offset = weights[f"block_{i}/norm/offset"]
        ones = torch.ones_like(offset)
        hidden = functional.batch_norm(hidden, None, None, ones, offset, training=True, eps=1e-3)
        hidden = torch.relu(hidden)
    return hidden.mean((2, 3)) @ weights["head/kernel"] + weights["head/bias"]


def cross_entropy(weights: Weights, images: Any, labels: Any) -> Any:
    """The mean cross-entropy of the network."""
    return torch.nn.functional.cross_entropy(network(weights, images), labels)


def to_tasks(batch: Sequence[np.ndarray]) -> Tasks:
    """Of images ``[T, K, H, W, 1]`` and labels ``[T, K]``."""
    support_x, support_y, query_x, query_y = (torch.tensor(part) for part in batch)
    return support_x.movedim(-1, 2), support_y.long(), query_x.movedim(-1, 2), query_y.long()


def sample_tasks(config: Any, images: Any) -> Tasks:
    """A meta-batch of episodes with a random quarter turn per class."""
    tasks, ways, shots = config.train.meta_batch, config.task.ways, config.task.shots
    classes = torch.rand(tasks, images.shape[0]).topk(ways).indices
    drawn = torch.rand(tasks, ways, images.shape[1]).topk(shots + config.train.queries).indices
    chosen = images[classes[:, :, None], drawn].float() / 255
    turned = torch.stack([torch.rot90(chosen, k, (3, 4)) for k in range(4)])
    turns = torch.randint(4, (tasks, ways))
    chosen = turned[turns, torch.arange(tasks)[:, None], torch.arange(ways)]
    labels = torch.arange(ways)[None, :, None]

    def part(images):
        repeated = labels.expand(tasks, ways, images.shape[2]).reshape(tasks, -1)
        return images.reshape(tasks, -1, 1, *images.shape[3:]), repeated

    return *part(chosen[:, :, :shots]), *part(chosen[:, :, shots:])
