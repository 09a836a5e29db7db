"""Implicit differentiation of an adaptation: gradients that do not depend on its path.

Rajeswaran et al. 2019, *Meta-learning with implicit gradients* (iMAML). The inner loop minimises
the support loss plus a pull towards the meta-parameters, ``strength / 2 |phi - theta|^2``. At the
minimum ``grad L(phi) + strength (phi - theta) = 0``, and differentiating this equation gives the
meta-gradient from the Hessian of the support loss at phi alone, however phi was found.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from jax.scipy.sparse.linalg import cg

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.inner import inner_update, unroll
from mamljax.types import AdaptFn, Batch, InnerStep, Params, Partition, PyTree, TaskLossFn


class Anchored(NamedTuple):
    """The parameters that do not adapt, and where those that do began."""

    shared: PyTree
    anchor: PyTree


def proximal(
    loss_fn: TaskLossFn, partition: Partition, tx: optax.GradientTransformation, strength: float
) -> InnerStep:
    """One inner step that is pulled back to where the adaptation began.

    Args:
      loss_fn, partition, tx: see `inner_update`.
      strength: lambda, of the penalty ``strength / 2 |phi - theta|^2`` on the support loss.
    """
    checks.positive("strength", strength)

    def split(meta_params):
        adapting, shared = partition.split(meta_params)
        return adapting, Anchored(shared, adapting)

    def merge(adapting, shared):
        return partition.merge(adapting, shared.shared)

    def pull_back(updates, state, params=None, *, shared: Any = None, **extra):
        del extra
        away = optax.tree.sub(params, shared.anchor)
        return optax.tree.add_scale(updates, strength, away), state

    pull = optax.GradientTransformationExtraArgs(optax.init_empty_state, pull_back)
    return inner_update(loss_fn, Partition(split, merge), optax.chain(pull, tx))


def implicit(
    loss_fn: TaskLossFn,
    partition: Partition,
    tx: optax.GradientTransformation,
    num_steps: int,
    *,
    strength: float,
    cg_steps: int = 5,
) -> AdaptFn:
    """Repeat a `proximal` step; differentiated at its end point as if that were the minimum.

    The meta-gradient takes memory and time that do not grow with the inner steps. Its error is that
    of the inner minimum (Rajeswaran et al. 2019, theorem 1).

    Args:
      loss_fn, partition, tx: see `inner_update`. Parameters must split as meta-parameters do.
      num_steps: see `unroll`.
      strength: see `proximal`.
      cg_steps: conjugate gradient iterations, each with one Hessian-vector product.

    Raises:
      ArgumentError: for a support set that is no `Batch`: with fresh data in every step there is no
        minimum to speak of.
    """
    checks.at_least("cg_steps", cg_steps, 1)
    adapt = unroll(proximal(loss_fn, partition, tx, strength), num_steps)

    def implicit_adapt(meta_params, support, key, *, num_steps=None, observe=None):
        if not isinstance(support, Batch):
            raise ArgumentError(
                "implicit differentiation needs one support set, a mamljax.Batch; got "
                f"{type(support).__name__}. Use maml, which differentiates through every step."
            )
        found = jax.lax.stop_gradient(
            adapt(meta_params, support, key, num_steps=num_steps, observe=observe)
        )
        steps = found.support_losses.shape[0]
        minimum, _ = partition.split(found.params)
        start, shared = partition.split(meta_params)

        def gradient(adapting, shared, support, key):
            def loss(adapting):
                return loss_fn(partition.merge(adapting, shared), support, key, steps)

            return jax.grad(loss)(adapting)

        minimiser = _minimiser(gradient, strength, cg_steps)
        params = partition.merge(minimiser(start, shared, minimum, support, key), shared)
        observed = None
        if found.observed is not None:
            observed = _without_gradient(found.observed, meta_params)
        return found._replace(params=params, observed=observed)

    return implicit_adapt


def _minimiser(
    gradient: Callable[..., PyTree], strength: float, cg_steps: int
) -> Callable[..., PyTree]:
    """``(start, shared, minimum, support, key) -> minimum``, differentiable in the first two.

    Args:
      gradient: ``(adapting, shared, support, key)`` to that of the support loss.
      strength, cg_steps: see `implicit`.
    """

    @jax.custom_vjp
    def minimiser(start, shared, minimum, support, key):
        del start, shared, support, key
        return minimum

    def forward(start, shared, minimum, support, key):
        del start
        return minimum, (minimum, shared, support, key)

    def backward(saved, cotangent):
        minimum, shared, support, key = saved
        # Reverse mode twice, which every model supports; a Hessian is symmetric.
        _, pull = jax.vjp(lambda a, s: gradient(a, s, support, key), minimum, shared)

        def regularised(vector):
            return optax.tree.add_scale(pull(vector)[0], strength, vector)

        solved = cg(regularised, cotangent, maxiter=cg_steps)[0]
        of_shared = jax.tree.map(lambda x: -x, pull(solved)[1])
        return optax.tree.scale(strength, solved), of_shared, None, None, None

    minimiser.defvjp(forward, backward)
    return minimiser


@jax.custom_vjp
def _without_gradient(observed: PyTree, meta_params: Params) -> PyTree:
    """`observed`; asking for its gradient in `meta_params` is an error, where 0 would be wrong."""
    del meta_params
    return observed


def _refuse(saved: None, cotangent: Any) -> Any:
    del saved, cotangent
    raise ArgumentError(
        "an implicit adaptation is differentiated at its end point only: a loss of the parameters "
        "after earlier steps (multi_step_loss) has no gradient. Use query_loss, or maml."
    )


_without_gradient.defvjp(lambda observed, meta_params: (observed, None), _refuse)
