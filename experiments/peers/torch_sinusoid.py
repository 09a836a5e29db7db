"""The sinusoid training step in PyTorch, written the two ways in which PyTorch users write MAML.

``torch.func``: `vmap` over tasks of a function that takes its own inner gradient.
``torch loop``: a Python loop over tasks with ``autograd.grad(create_graph=True)``, which is how
learn2learn and higher work, without what their module wrappers cost on top.

Both get PyTorch's faster choices: ``loss.backward()`` outside (half as fast again as
``torch.func.grad`` outside), the fused Adam, one call of the generator per meta-batch, and nothing
is logged. Other ways to write the layer or the squared error were no faster.
"""

import functools
import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from experiments.race import Contestant, Evaluation

# Not an import statement: torch is an optional extra, and pyright must pass where it is missing.
torch: Any = importlib.import_module("torch")

Arrays = dict[str, np.ndarray]
"""Weights by name: layer by layer, bias before kernel, kernels ``[inputs, outputs]``."""
Weights = Sequence[Any]
"""Tensors: bias and kernel of the first layer, of the second, ..."""
Tasks = Sequence[Any]
"""Tensors ``[T, K, 1]``: support inputs, support targets, query inputs, query targets."""


def contestants(
    config: Any,
    start: Arrays,
    agreed: Arrays,
    batch: Sequence[np.ndarray],
    threads: Sequence[int] = (1, 2),
) -> Iterator[Contestant]:
    """Each way of writing it, at each number of threads.

    Args:
      config: of the sinusoid experiment.
      start: the weights that training starts from.
      agreed: the weights at which the loss and its gradient are compared.
      batch: the tasks on which they are compared, in the order of `Tasks`.
      threads: numbers of threads to try.
    """
    if (steps := config.train.num_inner_steps) != 1:
        raise ValueError(f"the PyTorch peers take one inner step; got num_inner_steps={steps}.")
    for name, make_loss in (("torch.func", vmapped_loss), ("torch loop", looped_loss)):
        for count in threads:
            loss = make_loss(config.train.inner_lr)
            variant = f"{count} thread{'' if count == 1 else 's'}"
            check = functools.partial(_evaluate, loss, agreed, batch, count)
            yield Contestant(name, variant, 1, False, check, _trainer(loss, config, start, count))


def network(weights: Weights, inputs: Any) -> Any:
    """The fully connected ReLU network, ``[K, 1] -> [K, 1]``."""
    hidden = inputs
    for bias, kernel in zip(weights[:-2:2], weights[1:-2:2], strict=True):
        hidden = torch.relu(torch.addmm(bias, hidden, kernel))
    return torch.addmm(weights[-2], hidden, weights[-1])


def squared_error(weights: Weights, inputs: Any, targets: Any) -> Any:
    """The mean squared error of the network."""
    return torch.square(network(weights, inputs) - targets).mean()


def vmapped_loss(inner_lr: float) -> Callable[[Weights, Tasks], Any]:
    """The mean query loss after one inner step, all tasks at once."""

    def task_loss(weights, support_x, support_y, query_x, query_y):
        grads = torch.func.grad(squared_error)(weights, support_x, support_y)
        adapted = [weight - inner_lr * grad for weight, grad in zip(weights, grads, strict=True)]
        return squared_error(adapted, query_x, query_y)

    losses = torch.func.vmap(task_loss, in_dims=(None, 0, 0, 0, 0))
    return lambda weights, tasks: losses(weights, *tasks).mean()


def looped_loss(inner_lr: float) -> Callable[[Weights, Tasks], Any]:
    """The mean query loss after one inner step, one task after the other."""

    def meta_loss(weights, tasks):
        losses = []
        for support_x, support_y, query_x, query_y in zip(*tasks, strict=True):
            loss = squared_error(weights, support_x, support_y)
            grads = torch.autograd.grad(loss, weights, create_graph=True)
            adapted = [w - inner_lr * grad for w, grad in zip(weights, grads, strict=True)]
            losses.append(squared_error(adapted, query_x, query_y))
        return torch.stack(losses).mean()

    return meta_loss


def sample_tasks(config: Any) -> Tasks:
    """A meta-batch of sinusoids; all random numbers come from one call, the fastest way here."""
    shots = config.train.shots
    unit = torch.rand(config.train.meta_batch, 2 + shots + config.train.queries)

    def scaled(part, bounds):
        return bounds[0] + (bounds[1] - bounds[0]) * part

    amplitude = scaled(unit[:, :1], config.task.amplitude)
    phase = scaled(unit[:, 1:2], config.task.phase)
    x = scaled(unit[:, 2:], config.task.inputs)
    y = amplitude * torch.sin(x - phase)
    x, y = x.unsqueeze(-1), y.unsqueeze(-1)
    return x[:, :shots], y[:, :shots], x[:, shots:], y[:, shots:]


def set_threads(threads: int) -> None:
    """Use this many threads from now on."""
    torch.set_num_threads(threads)
    if (found := torch.get_num_threads()) != threads:
        raise RuntimeError(f"torch was asked for {threads} threads but uses {found}.")


def _trainer(meta_loss, config, start: Arrays, threads: int) -> Callable[[int], float]:
    weights = _tensors(start)
    optimizer = torch.optim.Adam(weights, lr=config.train.meta_lr, fused=True)

    def run(num_iterations):
        set_threads(threads)
        for _ in range(num_iterations):
            optimizer.zero_grad()
            meta_loss(weights, sample_tasks(config)).backward()
            optimizer.step()
        return 0.0  # nothing is compiled

    return run


def _evaluate(meta_loss, agreed: Arrays, batch: Sequence[np.ndarray], threads: int) -> Evaluation:
    set_threads(threads)
    weights = _tensors(agreed)
    loss = meta_loss(weights, [torch.tensor(part) for part in batch])
    loss.backward()
    grads = [weight.grad.numpy() for weight in weights]
    return Evaluation(loss.item(), dict(zip(agreed, grads, strict=True)))


def _tensors(weights: Arrays) -> Weights:
    return [torch.tensor(leaf, requires_grad=True) for leaf in weights.values()]
