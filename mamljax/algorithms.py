"""Named algorithms: each is one composition of the core pieces, with its reference.

    what adapts          all of it: maml · the head: anil · the body: boil · a context: cavia,
                         context_vector
    where it begins      at what is meta-learned · its head at prototypes: proto_maml
    how it is updated    any optax optimizer · learned step sizes: meta_sgd · learned matrices:
                         meta_curvature · a learned recurrent network: meta_lstm
    what is minimised    the query loss · the query loss after every step: step_weights
    how it is differentiated   through the inner loop: maml · first-order: fomaml · at the minimum:
                               imaml · not at all: reptile

`maml` takes all of the first four as options, and the methods built on it pass them on, so they
combine: ``meta_sgd(..., partition=by_path("head"), step_weights=...)``.
"""

from typing import Any

import jax
import optax
from jax.sharding import Mesh

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.implicit import implicit
from mamljax.inner import conditioned, inner_update, starting, unroll
from mamljax.inner_lstm import meta_lstm as lstm_rule
from mamljax.inner_optim import InnerRule, learned_sgd, with_rule
from mamljax.inner_optim import meta_curvature as curvature_rule
from mamljax.losses import cross_entropy, one_hot
from mamljax.meta import backprop
from mamljax.models.context import with_context
from mamljax.models.head import flattened, prototype_head, with_head
from mamljax.objective import (
    annealed_weights,
    distance_moved,
    multi_step_loss,
    query_loss,
    task_loss,
)
from mamljax.partition import all_but, all_parameters, by_path, fresh_context
from mamljax.types import Batch, Learner, LossFn, Model, Partition, StartFn


def maml(
    model: Model,
    loss_fn: LossFn,
    *,
    inner_lr: Any = 0.01,
    num_steps: int = 1,
    first_order: bool = False,
    inner_tx: optax.GradientTransformation | InnerRule | None = None,
    partition: Partition | None = None,
    start: StartFn | None = None,
    step_weights: Any = None,
    remat: bool = False,
    scan_unroll: int = 1,
    task_chunk: int | None = None,
    mesh: Mesh | None = None,
) -> Learner:
    """Model-agnostic meta-learning (Finn, Abbeel, Levine 2017, algorithm 1).

    Args:
      model: the network, from `mamljax.models`.
      loss_fn: ``(outputs, targets) -> scalar``, averaged over the examples.
      inner_lr: alpha, the step size of inner gradient descent: a number or an optax schedule.
      num_steps: inner steps in training.
      first_order: drop the second derivatives, see `fomaml`.
      inner_tx: another inner optimizer than ``optax.sgd(inner_lr)``, or an `InnerRule` that is
        meta-learned, such as `inner_optim.learned_sgd`; `inner_lr` is then unused.
      partition: which parameters adapt; all by default.
      start: ``(meta_params, support) -> params``, where adaptation begins if not at the
        meta-parameters themselves, as for `proto_maml`.
      step_weights: ``[num_steps]``, to minimise the query loss after every step, see
        `multi_step_loss`; None takes the loss after the last.
      remat, scan_unroll: see `unroll`.
      task_chunk, mesh: see `backprop`.

    Raises:
      ArgumentError: for values out of range; for an `InnerRule` beside a `start`.

    >>> import jax, jax.numpy as jnp
    >>> from mamljax import Batch, losses, maml, models
    >>> learner = maml(models.mlp((8, 1)), losses.mean_squared_error, inner_lr=0.1)
    >>> support = Batch(inputs=jnp.ones((5, 1)), targets=jnp.ones((5, 1)))
    >>> meta_params = learner.init(jax.random.key(0), support.inputs)
    >>> adapted = learner.adapt(meta_params, support, jax.random.key(1), num_steps=10)
    >>> bool(adapted.support_losses[-1] < adapted.support_losses[0])
    True
    """
    checks.step_size("inner_lr", inner_lr)
    if start is not None and isinstance(inner_tx, InnerRule):
        raise ArgumentError(
            "start does not go with a learned inner_tx: what adapts is made anew for each task, so "
            "there is nothing of it for the inner update to learn. Leave one of them out."
        )
    loss = task_loss(model, loss_fn)
    tx = optax.sgd(inner_lr) if inner_tx is None else inner_tx
    partition = all_parameters() if partition is None else partition
    init, partition, tx = with_rule(tx, model.init, partition)
    inner = inner_update(loss, partition, tx, first_order=first_order)
    adapt = starting(unroll(inner, num_steps, remat=remat, scan_unroll=scan_unroll), start)
    adapt = conditioned(adapt, model)
    objective = query_loss(adapt, loss)
    if step_weights is not None:
        objective = multi_step_loss(adapt, loss, step_weights, name="step_weights")
    meta_gradient = backprop(objective, task_chunk=task_chunk, mesh=mesh)
    return Learner(init, adapt, model.apply, loss_fn, objective, meta_gradient)


def fomaml(model: Model, loss_fn: LossFn, **options: Any) -> Learner:
    """First-order MAML: the meta-gradient is the query gradient at the adapted parameters.

    Finn et al. 2017, section 5.2. Takes the options of `maml`.
    """
    return maml(model, loss_fn, first_order=True, **options)


def anil(model: Model, loss_fn: LossFn, head: str, **options: Any) -> Learner:
    """Almost no inner loop: only the last layer adapts.

    Raghu et al. 2020, *Rapid learning or feature reuse?*. Takes the options of `maml`.

    Args:
      model, loss_fn: see `maml`.
      head: a regular expression that finds the last layer's parameters, see `by_path`: ``"head"``
        in the convolutional networks, ``"Dense_2"`` in an `mlp` of three layers.

    >>> from mamljax import algorithms, losses, models
    >>> net = models.omniglot_net(5)
    >>> learner = algorithms.anil(net, losses.cross_entropy, "^head/", inner_lr=0.1)
    """
    return maml(model, loss_fn, partition=by_path(head, name="anil: head"), **options)


def boil(model: Model, loss_fn: LossFn, head: str, **options: Any) -> Learner:
    """Body only update in the inner loop: all but the last layer adapt.

    Oh et al. 2021, *BOIL: Towards representation change for few-shot learning*. Takes the arguments
    of `anil`.
    """
    return maml(model, loss_fn, partition=all_but(head, name="boil: head"), **options)


def proto_maml(
    embedding: Model, loss_fn: LossFn = cross_entropy, *, ways: int, **options: Any
) -> Learner:
    """MAML whose last layer begins every task at the prototypes of its classes.

    Triantafillou et al. 2020, *Meta-Dataset*, section 3: without inner steps it is the prototypical
    network, whose head the steps then adapt with the rest. Gradients pass through the head to the
    embedding, whose parameters are all there is to meta-learn: the number of classes is free, and
    their order means nothing.

    Args:
      embedding: ``inputs -> [K, ...]``; what it returns is flattened to features ``[K, D]``.
        Adapted parameters are those of `models.with_head`.
      loss_fn: see `maml`.
      ways: classes ``N`` of a task; labels are 0 to N - 1.
      options: of `maml`, but for its start.

    Raises:
      ArgumentError: when adapting, if the support set is not one `Batch`.

    >>> from mamljax import algorithms, models
    >>> learner = algorithms.proto_maml(models.omniglot_net(None), ways=5, inner_lr=0.1)
    """
    model = with_head(embedding, checks.at_least("ways", ways, 1))

    def start(meta_params, support):
        if not isinstance(support, Batch):
            raise ArgumentError(
                "this learner makes what it starts from of one support set, a "
                f"mamljax.Batch(inputs, targets); got {type(support).__name__}."
            )
        features = flattened(embedding).apply(meta_params, support.inputs)
        labels = one_hot(support.targets, ways, features.dtype, name="proto_maml")
        return {"body": meta_params, "head": prototype_head(features, labels)}

    return maml(model._replace(init=embedding.init), loss_fn, start=start, **options)


def meta_sgd(
    model: Model, loss_fn: LossFn, *, inner_lr: float = 0.01, per: str = "parameter", **options: Any
) -> Learner:
    """MAML whose inner step sizes are meta-learned, one for each parameter.

    Li et al. 2017, *Meta-SGD: Learning to learn quickly for few-shot learning*. With
    ``per="model"`` a single one is learned, as section 2.2 of Finn et al. 2017 remarks one may.

    Args:
      model, loss_fn: see `maml`.
      inner_lr: where the step sizes begin.
      per: what shares a step size, see `learned_sgd`.
      options: of `maml`.

    >>> from mamljax import algorithms, losses, models
    >>> learner = algorithms.meta_sgd(models.mlp((8, 1)), losses.mean_squared_error, num_steps=2)
    """
    checks.non_negative("inner_lr", inner_lr)
    return maml(model, loss_fn, inner_tx=learned_sgd(inner_lr, per=per), **options)


def meta_curvature(
    model: Model, loss_fn: LossFn, *, inner_lr: float = 0.01, **options: Any
) -> Learner:
    """MAML whose inner gradients are multiplied by meta-learned matrices.

    Park and Oliva 2019, *Meta-curvature*. Takes the options of `maml`.
    """
    checks.non_negative("inner_lr", inner_lr)
    return maml(model, loss_fn, inner_tx=curvature_rule(inner_lr), **options)


def meta_lstm(
    model: Model, loss_fn: LossFn, *, units: int = 20, first_order: bool = True, **options: Any
) -> Learner:
    """The meta-learner LSTM: a recurrent network computes the inner updates.

    Ravi and Larochelle 2017, *Optimization as a model for few-shot learning*. The network's weights
    and where the model's parameters begin are learned. The paper takes 12 inner steps for one shot
    and 5 for five.

    Args:
      model, loss_fn: see `maml`.
      units: of the network's first layer.
      first_order: leave out the gradients of what the network reads, as the paper does.
      options: of `maml`; `inner_lr` is unused, the step sizes are the network's.

    >>> from mamljax import algorithms, losses, models
    >>> learner = algorithms.meta_lstm(models.mlp((8, 1)), losses.mean_squared_error, num_steps=5)
    """
    return maml(model, loss_fn, inner_tx=lstm_rule(units), first_order=first_order, **options)


def maml_plus_plus(
    model: Model,
    loss_fn: LossFn,
    *,
    inner_lr: float = 0.01,
    num_steps: int = 5,
    iteration: Any = None,
    loss_annealing: int = 7_500,
    first_order_until: int = 0,
    **options: Any,
) -> Learner:
    """MAML++ (Antoniou et al. 2019, *How to train your MAML*).

    Step sizes are learned for each tensor and inner step; the query loss of every step counts at
    first, with weights that move to the last one; the first iterations may be first-order. The rest
    of the method lies elsewhere: a norm with parameters for each step (``norm_steps`` of the
    networks), shared between tasks (``partition=all_but("norm")``), and a cosine schedule in the
    outer optimizer (`optax.cosine_decay_schedule`). The norm's statistics are those of the batch at
    each step; the authors' code normalises by these too, and only keeps the running averages.

    Args:
      model, loss_fn: see `maml`.
      inner_lr: where the step sizes begin.
      num_steps: inner steps.
      iteration: the meta-iteration, for `meta.annealed_step`; None is the learner at the end of
        training, which is also the one to evaluate with.
      loss_annealing: meta-iterations until only the last step's loss counts. The authors take 15 of
        their epochs of 500.
      first_order_until: meta-iterations without second derivatives at the start. The authors
        recommend 50 of their 100 epochs.
      options: of `maml`.

    >>> import optax
    >>> from mamljax import algorithms, losses, meta, models
    >>> def learner_at(iteration):
    ...     return algorithms.maml_plus_plus(
    ...         models.omniglot_net(5, norm_steps=5), losses.cross_entropy, iteration=iteration
    ...     )
    >>> step_fn = meta.annealed_step(learner_at, optax.adam(1e-3))
    """
    checks.non_negative("inner_lr", inner_lr)
    options |= {"inner_tx": learned_sgd(inner_lr, per="tensor", num_steps=num_steps)}
    options["num_steps"] = num_steps
    if iteration is None:
        return maml(model, loss_fn, **options)
    options["step_weights"] = annealed_weights(num_steps, iteration / loss_annealing)
    early, late = (maml(model, loss_fn, first_order=first, **options) for first in (True, False))

    def meta_gradient(*arguments):
        is_early = iteration < first_order_until
        return jax.lax.cond(is_early, early.meta_gradient, late.meta_gradient, *arguments)

    return late._replace(meta_gradient=meta_gradient) if first_order_until else late


def cavia(model: Model, loss_fn: LossFn, shape: tuple[int, ...], **options: Any) -> Learner:
    """Only a context adapts, which begins every task at zero.

    Zintgraf et al. 2019, *Fast context adaptation via meta-learning*, in its form that concatenates
    the context to the inputs. The context is not meta-learned: the meta-parameters are the model's.

    Args:
      model, loss_fn: see `maml`.
      shape: of the context, see `models.with_context`.
      options: of `maml`, but for its partition.

    >>> from mamljax import algorithms, losses, models
    >>> learner = algorithms.cavia(models.mlp((8, 1)), losses.mean_squared_error, (4,))
    """
    extended = with_context(model, shape)
    model = extended._replace(init=lambda key, inputs: extended.init(key, inputs)["model"])
    return maml(model, loss_fn, partition=fresh_context(shape), **options)


def context_vector(
    model: Model, loss_fn: LossFn, shape: tuple[int, ...], **options: Any
) -> Learner:
    """Only a context adapts, and where it begins is meta-learned (Finn et al. 2017, appendix C.2).

    After Rei 2015, *Online representation learning in recurrent neural language models*: free
    parameters among the inputs. Table 3 of the paper compares it with MAML.

    Args:
      model, shape: see `models.with_context`.
      loss_fn: see `maml`.
      options: of `maml`, but for its partition.

    >>> from mamljax import algorithms, losses, models
    >>> learner = algorithms.context_vector(models.mlp((8, 1)), losses.mean_squared_error, (4,))
    """
    partition = by_path("^context$")
    return maml(with_context(model, shape), loss_fn, partition=partition, **options)


def imaml(
    model: Model,
    loss_fn: LossFn,
    *,
    inner_lr: Any = 0.01,
    num_steps: int = 10,
    strength: float = 1.0,
    cg_steps: int = 5,
    inner_tx: optax.GradientTransformation | None = None,
    partition: Partition | None = None,
    task_chunk: int | None = None,
    mesh: Mesh | None = None,
    **unsupported: Any,
) -> Learner:
    """Implicit MAML: the inner loop is held near its start, and differentiated at its end.

    Rajeswaran et al. 2019, *Meta-learning with implicit gradients*.

    Args:
      model, loss_fn, inner_lr, inner_tx, partition: see `maml`.
      num_steps: inner steps; their number costs neither memory nor time in the backward pass.
      strength: lambda of the pull towards the meta-parameters.
      cg_steps: see `implicit`.
      task_chunk, mesh: see `backprop`.

    >>> from mamljax import algorithms, losses, models
    >>> learner = algorithms.imaml(models.mlp((8, 1)), losses.mean_squared_error, strength=2.0)
    """
    _refuse("imaml", {**unsupported, "inner_tx": inner_tx}, NOT_WITH_IMAML)
    checks.step_size("inner_lr", inner_lr)
    partition = all_parameters() if partition is None else partition
    inner_tx = optax.sgd(inner_lr) if inner_tx is None else inner_tx
    loss = task_loss(model, loss_fn)
    adapt = implicit(loss, partition, inner_tx, num_steps, strength=strength, cg_steps=cg_steps)
    adapt = conditioned(adapt, model)
    objective = query_loss(adapt, loss)
    meta_gradient = backprop(objective, task_chunk=task_chunk, mesh=mesh)
    return Learner(model.init, adapt, model.apply, loss_fn, objective, meta_gradient)


def reptile(
    model: Model,
    loss_fn: LossFn,
    *,
    inner_lr: Any = 0.01,
    num_steps: int = 5,
    inner_tx: optax.GradientTransformation | None = None,
    task_chunk: int | None = None,
    mesh: Mesh | None = None,
    **unsupported: Any,
) -> Learner:
    """Move the meta-parameters towards the adapted ones; nothing is differentiated twice.

    Nichol et al. 2018, *On first-order meta-learning algorithms*. The meta-gradient is the
    difference, see `distance_moved`, so ``optax.sgd(epsilon)`` is the paper's outer update; the
    meta-loss that is logged is half its square.

    Args:
      model, loss_fn, inner_lr, inner_tx: see `maml`.
      num_steps: inner steps in training; with one step it is joint training on all tasks.
      task_chunk, mesh: see `backprop`.

    >>> from mamljax import algorithms, losses, models
    >>> learner = algorithms.reptile(models.mlp((8, 1)), losses.mean_squared_error, num_steps=5)
    """
    _refuse("reptile", {**unsupported, "inner_tx": inner_tx}, NOT_WITH_REPTILE)
    checks.step_size("inner_lr", inner_lr)
    tx = optax.sgd(inner_lr) if inner_tx is None else inner_tx
    adapt = unroll(inner_update(task_loss(model, loss_fn), all_parameters(), tx), num_steps)
    objective = distance_moved(adapt)
    meta_gradient = backprop(objective, task_chunk=task_chunk, mesh=mesh)
    adapt = conditioned(adapt, model)  # not for the objective, which compares plain parameters
    return Learner(model.init, adapt, model.apply, loss_fn, objective, meta_gradient)


ALWAYS_FIRST_ORDER = "it never differentiates through the inner loop; leave it out"
NOT_WITH_IMAML = {
    "inner_tx": "the end point it differentiates does not depend on a learned inner update; use "
    "meta_sgd or meta_curvature",
    "step_weights": "it has the gradient of the end point only; use maml",
    "first_order": ALWAYS_FIRST_ORDER,
    "remat": ALWAYS_FIRST_ORDER,
}
NOT_WITH_REPTILE = {
    "inner_tx": "nothing would train a learned inner update; use meta_sgd or meta_curvature",
    "partition": "what does not adapt would never be trained; use anil or boil",
    "step_weights": "it has no query loss; use maml",
    "first_order": ALWAYS_FIRST_ORDER,
    "remat": ALWAYS_FIRST_ORDER,
}


def _refuse(method: str, options: dict[str, Any], reasons: dict[str, str]) -> None:
    """Refuse options that do not go with a method, saying why and what does."""
    for name, value in options.items():
        if name == "inner_tx" and not isinstance(value, InnerRule):
            continue
        why = f": {reasons[name]}" if name in reasons else ""
        raise ArgumentError(f"{method} does not take {name}={value!r}{why}.")
