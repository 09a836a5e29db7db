"""Optimizers for the inner loop, through which the meta-gradient is differentiated.

Any `optax.GradientTransformation` can be an inner optimizer. `optax.sgd` (with or without momentum)
is safe as it is; this module holds what differs when an optimizer is differentiated itself, and
inner updates that are meta-learned.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.types import Array, Params, Partition, PyTree, exportable


def adam(
    learning_rate: Any, *, b1: float = 0.9, b2: float = 0.999, eps_root: float = 1e-8
) -> optax.GradientTransformation:
    """Adam that can be differentiated through.

    `optax.adam` defaults to ``eps_root=0``, and the derivative of ``sqrt(nu)`` is infinite at
    ``nu = 0``: one dead ReLU turns the meta-gradient into NaN. A positive `eps_root` bounds it.

    It computes `in_single_precision`: in half precision `eps_root` would be 0, and so would
    ``1 - b2`` in bfloat16. With bfloat16 parameters what is left is their own rounding, at most
    ``2**-8`` of their size in each step. The derivative of a step may be as large as
    ``learning_rate / sqrt(eps_root)``, which over some steps exceeds the range of float16 where a
    gradient is zero and its derivative is not: take a larger `eps_root` there.

    Raises:
      ArgumentError: unless `eps_root` is positive.
    """
    checks.finite("adam: eps_root", eps_root)
    if eps_root <= 0:
        raise ArgumentError(
            f"adam: eps_root must be positive inside the inner loop; got {eps_root!r}. "
            "With 0 the meta-gradient is NaN wherever a support gradient is exactly zero."
        )
    return in_single_precision(optax.adam(learning_rate, b1=b1, b2=b2, eps_root=eps_root))


def in_single_precision(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """An optimizer that computes and keeps its state in float32 where gradients are narrower.

    Its updates are of the gradients' type again; float32 and float64 pass as they are. Squares,
    small constants and averages over many steps are lost in float16 and bfloat16.
    """
    tx = optax.with_extra_args_support(tx)

    def init(params):
        return tx.init(_widened(params))

    def update(updates, state, params=None, **extra):
        wide, state = tx.update(_widened(updates), state, _widened(params), **extra)
        return jax.tree.map(lambda x, like: x.astype(like.dtype), wide, updates), state

    return optax.GradientTransformationExtraArgs(init, update)


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """Gradients scaled down, where their norm is larger than `max_norm`, to that norm.

    It can be differentiated through: of `optax.clip_by_global_norm` the derivative is NaN where all
    gradients are zero, since that of a square root is infinite there. The norm is taken
    `in_single_precision`.

    Args:
      max_norm: above 0.

    Raises:
      ArgumentError: if `max_norm` is not positive.
    """
    checks.positive("max_norm", max_norm)

    def update(updates, state, params=None):
        del params
        squared = optax.tree.norm(updates, squared=True)
        too_long = squared > max_norm**2
        # The square root is taken of 1 where its result is not used, so that nothing is infinite.
        factor = jnp.where(too_long, max_norm / jnp.sqrt(jnp.where(too_long, squared, 1.0)), 1.0)
        return jax.tree.map(lambda x: factor.astype(x.dtype) * x, updates), state

    return in_single_precision(optax.GradientTransformation(optax.init_empty_state, update))


def _widened(tree: PyTree) -> PyTree:
    return jax.tree.map(
        lambda x: x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x, tree
    )


class Seen(NamedTuple):
    """Everything that an `InnerRule` sees of one inner step.

    gradients: of the support loss, in what adapts.
    params: what adapts, before the step.
    loss: the support loss before the step, a scalar.
    step: inner steps done so far.
    """

    gradients: PyTree
    params: PyTree
    loss: Array
    step: Array


class InnerRule(NamedTuple):
    """An inner update with parameters of its own, which are meta-learned beside the model's.

    init: ``(key, adapting) -> own``, where its parameters begin.
    update: ``(own, seen, state) -> (updates, state)``; updates are added to what adapts.
    start: ``adapting -> state``, what it remembers before a task's first step; nothing by default.
    """

    init: Callable[[Array, PyTree], PyTree]
    update: Callable[[PyTree, Seen, PyTree], tuple[PyTree, PyTree]]
    start: Callable[[PyTree], PyTree] = lambda adapting: ()


@exportable
class WithRule(NamedTuple):
    """The meta-parameters of a learner whose inner update is an `InnerRule`."""

    model: Params
    rule: PyTree


def learned_sgd(
    learning_rate: float = 0.01, *, per: str = "model", num_steps: int | None = None
) -> InnerRule:
    """Gradient descent with learned step sizes.

    Finn et al. 2017, section 2.2 (one for the model); Meta-SGD, Li et al. 2017 (one for each
    parameter); MAML++, Antoniou et al. 2019, section 4 (one for each tensor and step).

    What is learned are factors of `learning_rate`, from 1; they may become negative. The papers
    learn the step sizes themselves, and an outer optimizer such as Adam, which moves everything by
    as much, then changes small ones by a large part of their size: on sinusoids they diverged.

    Args:
      learning_rate: where all step sizes begin.
      per: ``model``, ``tensor`` or ``parameter``: what shares a factor.
      num_steps: learn them for each of this many inner steps; later steps take the last one's.
        None shares them between the steps.
    """
    checks.non_negative("learning_rate", learning_rate)
    checks.one_of("per", per, ("model", "tensor", "parameter"))
    steps = () if num_steps is None else (checks.at_least("num_steps", num_steps, 1),)

    def init(key, adapting):
        del key
        if per == "model":
            return jnp.ones(steps, jnp.result_type(*jax.tree.leaves(adapting)))
        return jax.tree.map(
            lambda x: jnp.ones(steps + (x.shape if per == "parameter" else ()), x.dtype), adapting
        )

    def update(factors, seen, state):
        if steps:
            now = jnp.minimum(seen.step, steps[0] - 1)
            factors = jax.tree.map(lambda factor: factor[now], factors)
        if per == "model":
            factors = jax.tree.map(lambda _: factors, seen.gradients)
        return jax.tree.map(lambda f, g: -learning_rate * f * g, factors, seen.gradients), state

    return InnerRule(init, update)


def meta_curvature(learning_rate: float = 0.01) -> InnerRule:
    """Gradient descent along gradients multiplied by learned matrices (Park and Oliva 2019).

    Every tensor's gradient is multiplied by one matrix along each of its axes, where the two
    spatial axes of a convolution's kernel count as one; the matrices begin as the identity. The
    step size is fixed: the matrices scale it.

    Args:
      learning_rate: the step size.
    """
    checks.non_negative("learning_rate", learning_rate)

    def axes(x):
        return (x.shape[0] * x.shape[1], *x.shape[2:]) if x.ndim == 4 else x.shape

    def multiplied(gradient, matrices):
        found = gradient.reshape(axes(gradient))
        for axis, matrix in enumerate(matrices):
            found = jnp.moveaxis(jnp.tensordot(matrix, found, (1, axis)), 0, axis)
        return -learning_rate * found.reshape(gradient.shape)

    def init(key, adapting):
        del key
        return jax.tree.map(lambda x: tuple(jnp.eye(n, dtype=x.dtype) for n in axes(x)), adapting)

    def update(matrices, seen, state):
        return jax.tree.map(multiplied, seen.gradients, matrices), state

    return InnerRule(init, update)


def with_rule(
    tx: InnerRule | optax.GradientTransformation,
    init: Callable[[Array, PyTree], Params],
    partition: Partition,
) -> tuple[Callable[[Array, PyTree], Params], Partition, optax.GradientTransformation]:
    """Turn an inner rule into what `inner_update` needs to learn it.

    Any other inner optimizer has nothing to learn: it is returned with what came beside it.

    Args:
      tx: how to update.
      init: of the model.
      partition: which of the model's parameters adapt.

    Returns:
      ``init`` of both kinds of parameters, a `WithRule`; their partition; and the rule as an inner
      optimizer.
    """
    if not isinstance(tx, InnerRule):
        return init, partition, tx
    rule = tx

    def init_both(key, inputs):
        meta_params = init(key, inputs)
        # The model's key is the one it has without a rule: both begin at the same parameters.
        rule_key = jax.random.fold_in(key, 1)
        return WithRule(meta_params, rule.init(rule_key, partition.split(meta_params)[0]))

    def split(meta_params):
        if not isinstance(meta_params, WithRule):
            raise ArgumentError(
                "this learner's inner update is learned: its meta-parameters are "
                "inner_optim.WithRule(model, rule), as learner.init makes them; got "
                f"{type(meta_params).__name__}."
            )
        adapting, shared = partition.split(meta_params.model)
        return adapting, WithRule(shared, meta_params.rule)

    def merge(adapting, shared):
        return partition.merge(adapting, shared.model)

    def update(
        updates,
        state,
        params=None,
        *,
        shared: Any = None,
        value: Any = None,
        step: Any = 0,
        **extra,
    ):
        del extra
        return rule.update(shared.rule, Seen(updates, params, value, step), state)

    def start(params):
        return rule.start(params)

    return (
        init_both,
        Partition(split, merge),
        optax.GradientTransformationExtraArgs(start, update),
    )
