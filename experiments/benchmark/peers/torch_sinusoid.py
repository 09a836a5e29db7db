"""Sinusoids in PyTorch; other ways to write the layer or the squared error were no faster."""

import functools
from typing import Any

from experiments.benchmark.peers.torch_maml import Problem, Tasks, Weights, torch


def problem(config: Any) -> Problem:
    """The sinusoid experiment of a config."""
    return Problem(
        squared_error,
        functools.partial(sample_tasks, config),
        lambda batch: [torch.tensor(part) for part in batch],
        batched_loss_of=batched_squared_error,
    )


def squared_error(weights: Weights, inputs: Any, targets: Any) -> Any:
    """The mean squared error of the fully connected ReLU network, ``[K, 1] -> [K, 1]``.

    Its weights come layer by layer, bias before kernel, kernels ``[inputs, outputs]``.
    """
    *layers, last_bias, last_kernel = weights.values()
    hidden = inputs
    for bias, kernel in zip(layers[::2], layers[1::2], strict=True):
        hidden = torch.relu(torch.addmm(bias, hidden, kernel))
    return torch.square(torch.addmm(last_bias, hidden, last_kernel) - targets).mean()


def batched_squared_error(weights: Weights, inputs: Any, targets: Any) -> Any:
    """The sum over tasks of `squared_error`, everything with a leading task axis."""
    *layers, last_bias, last_kernel = weights.values()
    hidden = inputs
    for bias, kernel in zip(layers[::2], layers[1::2], strict=True):
        hidden = torch.relu(torch.baddbmm(bias.unsqueeze(1), hidden, kernel))
    found = torch.baddbmm(last_bias.unsqueeze(1), hidden, last_kernel)
    return torch.square(found - targets).mean((1, 2)).sum()


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
