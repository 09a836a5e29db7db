"""The Omniglot training step in PyTorch, written the two ways in which PyTorch users write MAML.

``torch.func``: `vmap` over tasks of a function that takes its own inner gradient. `conv2d` under
`vmap` becomes a grouped convolution.
``torch loop``: a Python loop over tasks with ``autograd.grad(create_graph=True)``.

Both sample their tasks from a tensor in memory, use the fused Adam, and log nothing.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from experiments.peers.torch_sinusoid import set_threads, torch
from experiments.race import Contestant, Evaluation

Arrays = dict[str, np.ndarray]
"""Weights by name, as `mamljax.models.weights.to_arrays` gives them."""
Weights = dict[str, Any]
"""The same as tensors, kernels ``[out, in, 3, 3]``."""
BLOCKS = range(4)


def contestants(
    config: Any,
    images: np.ndarray,
    start: Arrays,
    agreed: Arrays,
    batch: Sequence[np.ndarray],
    threads: Sequence[int] = (1, 2),
) -> Iterator[Contestant]:
    """Each way of writing it, at each number of threads.

    Args:
      config: of the Omniglot experiment.
      images: uint8 ``[C, M, H, W, 1]``, what tasks are drawn from.
      start: the weights that training starts from.
      agreed: the weights at which the loss and its gradient are compared.
      batch: support images, support labels, query images, query labels of the compared tasks.
      threads: numbers of threads to try.
    """
    for name, make_loss in (("torch.func", vmapped_loss), ("torch loop", looped_loss)):
        for count in threads:
            loss = make_loss(config.train.inner_lr, config.train.num_inner_steps)
            variant = f"{count} thread{'' if count == 1 else 's'}"
            check = functools.partial(_evaluate, loss, agreed, batch, count)
            run = _trainer(loss, config, images, start, count)
            yield Contestant(name, variant, 1, False, check, run)


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


def loss_of(weights: Weights, images: Any, labels: Any) -> Any:
    """The mean cross-entropy."""
    return torch.nn.functional.cross_entropy(network(weights, images), labels)


def _step(weights: Weights, grads: Weights, inner_lr: float) -> Weights:
    return {
        name: weight if name.endswith("offset") else weight - inner_lr * grads[name]
        for name, weight in weights.items()
    }


def vmapped_loss(inner_lr: float, num_steps: int) -> Callable[[Weights, Sequence[Any]], Any]:
    """The mean query loss after the inner steps, all tasks at once."""

    def task_loss(weights, support_x, support_y, query_x, query_y):
        for _ in range(num_steps):
            grads = torch.func.grad(loss_of)(weights, support_x, support_y)
            weights = _step(weights, grads, inner_lr)
        return loss_of(weights, query_x, query_y)

    losses = torch.func.vmap(task_loss, in_dims=(None, 0, 0, 0, 0))
    return lambda weights, tasks: losses(weights, *tasks).mean()


def looped_loss(inner_lr: float, num_steps: int) -> Callable[[Weights, Sequence[Any]], Any]:
    """The mean query loss after the inner steps, one task after the other."""

    def meta_loss(weights, tasks):
        losses = []
        for support_x, support_y, query_x, query_y in zip(*tasks, strict=True):
            adapted = weights
            for _ in range(num_steps):
                loss = loss_of(adapted, support_x, support_y)
                grads = torch.autograd.grad(loss, list(adapted.values()), create_graph=True)
                adapted = _step(adapted, dict(zip(adapted, grads, strict=True)), inner_lr)
            losses.append(loss_of(adapted, query_x, query_y))
        return torch.stack(losses).mean()

    return meta_loss


def sample_tasks(config: Any, images: Any) -> Sequence[Any]:
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


def _trainer(meta_loss, config, images, start: Arrays, threads: int) -> Callable[[int], float]:
    weights = _tensors(start)
    optimizer = torch.optim.Adam(weights.values(), lr=config.train.meta_lr, fused=True)
    pixels = torch.from_numpy(np.ascontiguousarray(images[..., 0]))

    def run(num_iterations):
        set_threads(threads)
        for _ in range(num_iterations):
            optimizer.zero_grad()
            meta_loss(weights, sample_tasks(config, pixels)).backward()
            optimizer.step()
        return 0.0  # nothing is compiled

    return run


def _evaluate(meta_loss, agreed: Arrays, batch: Sequence[np.ndarray], threads: int) -> Evaluation:
    set_threads(threads)
    weights = _tensors(agreed)
    support_x, support_y, query_x, query_y = (torch.tensor(part) for part in batch)
    # [T, K, H, W, 1] -> [T, K, 1, H, W]
    tasks = support_x.movedim(-1, 2), support_y.long(), query_x.movedim(-1, 2), query_y.long()
    loss = meta_loss(weights, tasks)
    loss.backward()
    grads = {name: weight.grad for name, weight in weights.items()}
    return Evaluation(
        loss.item(),
        {
            name: (grad.permute(2, 3, 1, 0) if grad.ndim == 4 else grad).numpy()
            for name, grad in grads.items()
        },
    )


def _tensors(weights: Arrays) -> Weights:
    def tensor(leaf):
        moved = np.transpose(leaf, (3, 2, 0, 1)) if leaf.ndim == 4 else leaf
        return torch.tensor(np.ascontiguousarray(moved), requires_grad=True)

    return {name: tensor(leaf) for name, leaf in weights.items()}
