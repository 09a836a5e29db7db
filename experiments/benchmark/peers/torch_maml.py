"""A training step of MAML in PyTorch, written the ways in which it can be written there.

``torch.func``: `vmap` over tasks of a function that takes its own inner gradients.
``torch loop``: a Python loop over tasks with ``autograd.grad(create_graph=True)``, which is how
learn2learn and higher work, without what their module wrappers cost on top.
``torch batched``: the network written out for all tasks at once, where a problem has that. Few
would take the trouble, but it is the fastest that plain PyTorch can do.

All get PyTorch's faster choices: ``loss.backward()`` outside (half as fast again as
``torch.func.grad`` outside) and the fused Adam. Nothing is logged.
"""

import functools
import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.benchmark.measure import Contestant, Evaluation

# Not an import statement: torch is an optional extra, and pyright must pass where it is missing.
torch: Any = importlib.import_module("torch")
ON_GPU = jax.default_backend() == "gpu"
if ON_GPU:  # not otherwise, since every operation then passes through a wrapper in Python
    torch.set_default_device("cuda")

Arrays = dict[str, np.ndarray]
"""Weights by name, as `mamljax.models.weights.to_arrays` gives them."""
Weights = dict[str, Any]
"""The same as tensors, convolutions' kernels ``[out, in, H, W]``."""
Tasks = Sequence[Any]
"""Tensors ``[T, ...]``: support inputs, support targets, query inputs, query targets."""
MetaLoss = Callable[[Weights, Tasks], Any]


class Problem(NamedTuple):
    """A network, its loss and its tasks.

    loss_of: of weights, inputs and targets of one task, a scalar.
    sample_tasks: draws a meta-batch.
    to_tasks: the same from arrays, in their order.
    adapts: whether the weights of a name take inner steps.
    batched_loss_of: the same as `loss_of` with a task axis on everything, the sum over tasks.
    """

    loss_of: Callable[[Weights, Any, Any], Any]
    sample_tasks: Callable[[], Tasks]
    to_tasks: Callable[[Sequence[np.ndarray]], Tasks]
    adapts: Callable[[str], bool] = lambda name: True
    batched_loss_of: Callable[[Weights, Any, Any], Any] | None = None


def contestants(
    problem: Problem,
    train: Any,
    start: Arrays,
    agreed: Arrays,
    batch: Sequence[np.ndarray],
    *,
    first_order: bool = False,
    threads: Sequence[int] = (1,) if ON_GPU else (1, 2),
) -> Iterator[Contestant]:
    """Each way of writing it, at each number of CPU threads.

    Args:
      problem: what is learned.
      train: the part of the experiment's config.
      start: the weights that training starts from.
      agreed: the weights at which the loss and its gradient are compared.
      batch: the tasks on which they are compared, in the order of `Tasks`.
      first_order: drop the second derivatives.
      threads: numbers of threads to try.
    """
    ways = {"torch.func": vmapped_loss, "torch loop": looped_loss}
    if problem.batched_loss_of:
        ways["torch batched"] = batched_loss
    for name, make_loss in ways.items():
        for count in threads:
            loss = make_loss(problem, train.inner_lr, train.num_inner_steps, first_order)
            variant = f"{count} thread{'' if count == 1 else 's'}"
            check = functools.partial(evaluate, problem, loss, agreed, batch, count)
            run = trainer(problem, loss, train.meta_lr, start, count)
            yield Contestant(name, variant, 1, False, check, run)


def vmapped_loss(
    problem: Problem, inner_lr: float, num_steps: int, first_order: bool = False
) -> MetaLoss:
    """The mean query loss after the inner steps, all tasks at once."""

    def task_loss(weights, support_x, support_y, query_x, query_y):
        for _ in range(num_steps):
            grads = torch.func.grad(problem.loss_of)(weights, support_x, support_y)
            if first_order:
                grads = {name: grad.detach() for name, grad in grads.items()}
            weights = _inner_step(problem, weights, grads, inner_lr)
        return problem.loss_of(weights, query_x, query_y)

    losses = torch.func.vmap(task_loss, in_dims=(None, 0, 0, 0, 0))
    return lambda weights, tasks: losses(weights, *tasks).mean()


def looped_loss(
    problem: Problem, inner_lr: float, num_steps: int, first_order: bool = False
) -> MetaLoss:
    """The mean query loss after the inner steps, one task after the other."""

    def meta_loss(weights, tasks):
        losses = []
        for support_x, support_y, query_x, query_y in zip(*tasks, strict=True):
            adapted = weights
            for _ in range(num_steps):
                loss = problem.loss_of(adapted, support_x, support_y)
                variables = list(adapted.values())
                grads = torch.autograd.grad(loss, variables, create_graph=not first_order)
                grads = dict(zip(adapted, grads, strict=True))
                adapted = _inner_step(problem, adapted, grads, inner_lr)
            losses.append(problem.loss_of(adapted, query_x, query_y))
        return torch.stack(losses).mean()

    return meta_loss


def batched_loss(
    problem: Problem, inner_lr: float, num_steps: int, first_order: bool = False
) -> MetaLoss:
    """The mean query loss after the inner steps, with the task axis written out."""
    loss_of: Any = problem.batched_loss_of

    def meta_loss(weights, tasks):
        support_x, support_y, query_x, query_y = tasks
        count = len(support_x)
        adapted = {name: weight.expand(count, *weight.shape) for name, weight in weights.items()}
        for _ in range(num_steps):
            loss = loss_of(adapted, support_x, support_y)
            # Tasks share no weights here, so the gradient of the sum is that of every task.
            variables = list(adapted.values())
            grads = torch.autograd.grad(loss, variables, create_graph=not first_order)
            adapted = _inner_step(
                problem, adapted, dict(zip(adapted, grads, strict=True)), inner_lr
            )
        return loss_of(adapted, query_x, query_y) / count

    return meta_loss


def trainer(
    problem: Problem, meta_loss: MetaLoss, meta_lr: float, start: Arrays, threads: int
) -> Callable[[int], float]:
    """Runs so many meta-steps, each on tasks of its own; returns the seconds spent on compiling."""
    weights = _tensors(start)
    optimizer = torch.optim.Adam(weights.values(), lr=meta_lr, fused=True)

    def run(num_iterations):
        _set_threads(threads)
        for _ in range(num_iterations):
            optimizer.zero_grad()
            meta_loss(weights, problem.sample_tasks()).backward()
            optimizer.step()
        if ON_GPU:
            torch.cuda.synchronize()
        return 0.0  # nothing is compiled

    return run


def evaluate(
    problem: Problem,
    meta_loss: MetaLoss,
    agreed: Arrays,
    batch: Sequence[np.ndarray],
    threads: int,
) -> Evaluation:
    """The meta-loss and its gradient, in the layouts of the arrays."""
    _set_threads(threads)
    weights = _tensors(agreed)
    loss = meta_loss(weights, problem.to_tasks(batch))
    loss.backward()
    grads = {name: weight.grad for name, weight in weights.items()}
    hwio = {
        name: grad.permute(2, 3, 1, 0) if grad.ndim == 4 else grad for name, grad in grads.items()
    }
    return Evaluation(loss.item(), {name: grad.cpu().numpy() for name, grad in hwio.items()})


def _inner_step(problem: Problem, weights: Weights, grads: Weights, inner_lr: float) -> Weights:
    return {
        name: weight - inner_lr * grads[name] if problem.adapts(name) else weight
        for name, weight in weights.items()
    }


def _set_threads(threads: int) -> None:
    torch.set_num_threads(threads)
    if (found := torch.get_num_threads()) != threads:
        raise RuntimeError(f"torch was asked for {threads} threads but uses {found}.")


def _tensors(weights: Arrays) -> Weights:
    def tensor(leaf):
        moved = np.transpose(leaf, (3, 2, 0, 1)) if leaf.ndim == 4 else leaf
        return torch.tensor(np.ascontiguousarray(moved), requires_grad=True)

    return {name: tensor(leaf) for name, leaf in weights.items()}
