"""The inner loop: adapt the meta-parameters to one task (MAML, algorithm 1, lines 5 to 7)."""

import jax
import jax.numpy as jnp
import optax

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.types import (
    Adapted,
    AdaptFn,
    Batch,
    Drawn,
    InnerState,
    InnerStep,
    Model,
    Params,
    Partition,
    PerStep,
    StartFn,
    TaskLossFn,
    WithStatistics,
)


def inner_update(
    loss_fn: TaskLossFn,
    partition: Partition,
    tx: optax.GradientTransformation,
    *,
    first_order: bool = False,
) -> InnerStep:
    r"""One inner step: ``theta' = theta - alpha * grad L(theta)`` (MAML, equation 1).

    Args:
      loss_fn: the task's loss of parameters on a batch.
      partition: which parameters the step changes.
      tx: the inner optimizer; `optax.sgd(alpha)` for plain MAML. It is called with the extra
        arguments ``shared`` (the parameters that do not adapt), ``step`` (the inner step) and
        ``value`` (the support loss before the step, under the name that optax gives it).
      first_order: treat the gradient, and the loss that `tx` sees, as constants when
        differentiating through the step (first-order MAML, section 5.2).
    """
    tx = optax.with_extra_args_support(tx)

    def start(meta_params):
        adapting, shared = partition.split(meta_params)
        return InnerState(adapting, tx.init(adapting), jnp.zeros((), jnp.int32)), shared

    def step(state, shared, support, key):
        def support_loss(adapting):
            return loss_fn(partition.merge(adapting, shared), support, key, state.step)

        loss, grads = jax.value_and_grad(support_loss)(state.adapting)
        value = loss
        if first_order:
            grads, value = jax.lax.stop_gradient((grads, value))
        updates, opt_state = tx.update(
            grads, state.opt_state, state.adapting, shared=shared, step=state.step, value=value
        )
        adapting = optax.apply_updates(state.adapting, updates)
        return InnerState(adapting, opt_state, state.step + 1), loss

    def params(state, shared):
        return partition.merge(state.adapting, shared)

    return InnerStep(start, step, params)


def unroll(
    inner: InnerStep, num_steps: int, *, remat: bool = False, scan_unroll: int = 1
) -> AdaptFn:
    """Repeat an inner step `num_steps` times; differentiable from end to end.

    Each step has a key of its own, folded from that of the call. With None for a key stochastic
    layers are off, which is adaptation without dropout.

    Args:
      inner: the inner step, from `inner_update`.
      num_steps: inner steps per adaptation, 0 or more; a call may ask for another number.
      remat: recompute each step in the backward pass instead of storing it: memory no longer grows
        with what one step stores, at the price of one more forward pass.
      scan_unroll: inner steps per iteration of the compiled loop; unrolled steps compile more
        slowly and may run faster.

    Raises:
      ArgumentError: for a negative number of steps, a `PerStep` support of another length, or a
        `Drawn` one without a key.
    """
    default_steps = checks.at_least("num_steps", num_steps, 0)
    checks.at_least("scan_unroll", scan_unroll, 1)
    # Inside a rolled loop no common subexpression can undo the recomputation, so XLA may be free.
    body = jax.checkpoint(inner.step, prevent_cse=scan_unroll > 1) if remat else inner.step

    def adapt(meta_params, support, key, *, num_steps=None, observe=None):
        steps = checks.at_least("num_steps", default_steps if num_steps is None else num_steps, 0)
        fresh = support.data if isinstance(support, PerStep) else None
        if fresh is not None and (found := checks.leading_axis("support", fresh)) != steps:
            raise ArgumentError(
                f"a PerStep support set must hold one batch per inner step: num_steps={steps}, "
                f"but its leading axis has length {found}."
            )
        start, shared = inner.start(meta_params)

        def seen(state):
            return observe and observe(inner.params(state, shared), state.step)

        def step(state, batch):
            step_key = None if key is None else jax.random.fold_in(key, state.step)
            drawn = None
            if isinstance(support, Drawn):
                if step_key is None:
                    raise ArgumentError(
                        "a Drawn support set is drawn in every inner step, so key must be a key, "
                        "such as jax.random.key(0); got None, which adapts without one."
                    )
                draw_key, step_key = jax.random.split(step_key)
                batch = drawn = support.draw(inner.params(state, shared), draw_key)
            data = support if batch is None else batch
            state, loss = body(state, shared, data, step_key)
            return state, (loss, seen(state), drawn)

        end, (losses, after, drawn) = jax.lax.scan(step, start, fresh, steps, unroll=scan_unroll)
        observed = observe and jax.tree.map(
            lambda first, rest: jnp.concatenate([first[None], rest]), seen(start), after
        )
        return Adapted(inner.params(end, shared), losses, observed, drawn)

    return adapt


def starting(adapt: AdaptFn, start: StartFn | None) -> AdaptFn:
    """Let adaptation start from other parameters than the meta-parameters, made for each task.

    Gradients pass through `start`. With None `adapt` is returned as it is.

    Args:
      adapt: from `unroll`.
      start: ``(meta_params, support) -> params``.
    """
    if start is None:
        return adapt

    def from_there(meta_params, support, key, **options):
        return adapt(start(meta_params, support), support, key, **options)

    return from_there


def conditioned(adapt: AdaptFn, model: Model) -> AdaptFn:
    """Let adapted parameters keep the statistics of their support set, if the model's norms ask.

    Which is so with ``norm="support"``: MetaBN of Bronskill et al. 2020, *TaskNorm*, section 3.
    Gradients pass through the statistics. For any other model `adapt` is returned as it is.

    Raises:
      ArgumentError: when adapting, if the support set is not one `Batch`.
    """
    condition = model.condition
    if condition is None:
        return adapt

    def with_statistics(meta_params, support, key, *, num_steps=None, observe=None):
        if not isinstance(support, Batch):
            raise ArgumentError(
                "norm='support' takes the statistics of one support set, a mamljax.Batch; got "
                f"{type(support).__name__}. Build the network with norm='batch' or 'layer'."
            )

        def observed(params, step):
            return observe and observe(condition(params, support.inputs, step), step)

        found = adapt(
            without_statistics(meta_params),
            support,
            key,
            num_steps=num_steps,
            observe=observe and observed,
        )
        params = condition(found.params, support.inputs, found.support_losses.shape[0])
        return found._replace(params=params)

    return with_statistics


def without_statistics(params: Params) -> Params:
    """Parameters from which one may adapt again: those of `WithStatistics` alone."""

    def has(node):
        return isinstance(node, WithStatistics)

    return jax.tree.map(lambda node: node.params if has(node) else node, params, is_leaf=has)
