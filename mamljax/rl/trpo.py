"""Trust region policy optimisation, as optax transformations for any objective.

``optax.chain(natural_gradient(), trust_region(max_kl), backtrack(max_kl))`` is TRPO (Schulman et
al. 2015, appendix C). They read arguments beside the updates, as optax's line searches do:

    grad        the gradient, as `meta_step` passes it
    curvature   a tangent of the parameters -> the Fisher matrix of the policy times it
    trial       parameters -> (loss, KL divergence from the policy that produced the data)

`policy_arguments` computes the other two for a policy that adapts to every task first.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from mamljax import checks
from mamljax.checks import ArgumentError
from mamljax.rl.advantages import masked
from mamljax.rl.losses import divergence
from mamljax.sharding import over_tasks, tasks_at_a_time
from mamljax.types import Array, Learner, Params, PerStep, PyTree, Task

REASONS = ("accepted", "no improvement", "outside the trust region", "not finite")
"""Why a step was taken or not: entry `Backtracked.reason`. That of a refused step is what was wrong
with its shortest trial."""


Curvature = Callable[[PyTree], PyTree]
"""From a tangent of the parameters to the Fisher matrix times it."""


class Backtracked(NamedTuple):
    """The outcome of the last `backtrack`.

    step_size: the factor of the proposed step that was taken; 0 if none was acceptable.
    kl: the divergence after that step.
    improvement: by how much the loss fell.
    reason: an index into `REASONS`.
    """

    step_size: Array
    kl: Array
    improvement: Array
    reason: Array


def trpo(
    max_kl: float | optax.Schedule = 0.01,
    *,
    cg_iterations: int = 10,
    damping: float = 1e-2,
    max_trials: int = 15,
) -> optax.GradientTransformationExtraArgs:
    """Natural gradient, scaled to the trust region, then backtracked: the paper's outer update.

    Args:
      max_kl: see `trust_region`; a number, or an optax schedule of the meta-iteration, such as
        ``optax.exponential_decay(0.1, 100, 0.2, end_value=0.02)``.
      cg_iterations, damping: see `natural_gradient`.
      max_trials: see `backtrack`.

    Raises:
      ArgumentError: for numbers out of range, and a schedule that does not begin above 0.
    """
    checks.at_least("cg_iterations", cg_iterations, 1)
    region: Any = trust_region
    search: Any = backtrack
    if callable(max_kl):
        checks.step_size("max_kl", max_kl)
        checks.positive("max_kl", jnp.asarray(max_kl(0)))
        region = optax.inject_hyperparams(trust_region)
        search = optax.inject_hyperparams(backtrack, static_args=("decay", "max_trials"))
    return optax.chain(
        natural_gradient(cg_iterations, damping),
        region(max_kl),
        search(max_kl, max_trials=max_trials),
    )


def natural_gradient(
    iterations: int = 10, damping: float = 1e-2
) -> optax.GradientTransformationExtraArgs:
    """The gradient divided by the Fisher matrix, approximately: conjugate gradients.

    Args:
      iterations: products with the matrix, at most.
      damping: added to its diagonal. The divergence of adapted policies hardly restrains
        directions that change the policy before adaptation alone; too little damping lets it run
        away along them.
    """
    checks.at_least("iterations", iterations, 1)
    checks.non_negative("damping", damping)

    def update(updates, state, params=None, *, curvature: Curvature | None = None, **extra):
        del params, extra
        product = _required("curvature", curvature)

        def damped(tangent):
            return optax.tree.add_scale(product(tangent), damping, tangent)

        return _conjugate_gradients(damped, updates, iterations), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def trust_region(max_kl: float) -> optax.GradientTransformationExtraArgs:
    """The step against the `natural_gradient` whose divergence is `max_kl`, to second order.

    The length is measured with the damped matrix, as in the authors' code, so that a direction
    which the divergence hardly restrains is not made longer for that. It needs no further product
    with it: conjugate gradients leave a residual at right angles to what they found, whose product
    with the gradient is that with the matrix.

    Args:
      max_kl: the size of the region.
    """
    checks.positive("max_kl", max_kl)

    def update(updates, state, params=None, *, grad: PyTree | None = None, **extra):
        del params, extra
        squared = 2 * max_kl / jnp.asarray(optax.tree.vdot(updates, _required("grad", grad)))
        length = jnp.where(jnp.isfinite(squared) & (squared > 0), jnp.sqrt(squared), 0.0)
        return optax.tree.scale(-length, updates), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def _conjugate_gradients(product: Curvature, wanted: PyTree, iterations: int) -> PyTree:
    """The solution of ``product(x) = wanted`` after so many products, from zero.

    `jax.scipy.sparse.linalg.cg` takes one more, with zeros, and a product is what costs here.
    """
    enough = 1e-20 * optax.tree.vdot(wanted, wanted)

    def go_on(carried):
        done, _, _, _, squared = carried
        return (done < iterations) & (squared > enough)

    def step(carried):
        done, x, residual, direction, squared = carried
        moved = product(direction)
        curved = jnp.asarray(optax.tree.vdot(direction, moved))
        length = jnp.where(curved > 0, squared / curved, 0.0)  # nowhere to go along a flat one
        x = optax.tree.add_scale(x, length, direction)
        residual = optax.tree.add_scale(residual, -length, moved)
        left = optax.tree.vdot(residual, residual)
        direction = optax.tree.add_scale(residual, left / squared, direction)
        return done + 1, x, residual, direction, left

    zero = optax.tree.zeros_like(wanted)
    start = jnp.zeros((), int), zero, wanted, wanted, optax.tree.vdot(wanted, wanted)
    return jax.lax.while_loop(go_on, step, start)[1]


def backtrack(
    max_kl: float, *, decay: float = 0.8, max_trials: int = 15
) -> optax.GradientTransformationExtraArgs:
    """Shorten the step until the loss falls and the divergence is at most `max_kl`.

    The step is taken whole, then times `decay`, its square, and so on. If no trial is acceptable
    the parameters stay as they are. Its state is a `Backtracked`.
    """
    checks.positive("max_kl", max_kl)
    checks.at_least("max_trials", max_trials, 1)
    if not 0 < decay < 1:
        raise ArgumentError(f"decay must lie between 0 and 1; got {decay!r}.")

    def init(params):
        del params
        zero = jnp.zeros((), jnp.float32)  # whatever the parameters are
        return Backtracked(zero, zero, zero, jnp.zeros((), jnp.int32))

    def update(
        updates,
        state,
        params=None,
        *,
        value: Array | None = None,
        trial: Callable[[Params], tuple[Array, Array]] | None = None,
        **extra,
    ):
        del state, extra
        before, try_out = _required("value", value), _required("trial", trial)
        untried = init(params)._replace(reason=jnp.array(3, jnp.int32))

        def attempt(index):
            size = decay ** index.astype(jnp.float32)
            loss, kl = try_out(optax.tree.add_scale(params, size, updates))
            reason = jnp.where(kl <= max_kl, jnp.where(loss < before, 0, 1), 2)
            reason = jnp.where(jnp.isfinite(loss) & jnp.isfinite(kl), reason, 3)
            told = Backtracked(size, kl, before - loss, reason)
            return jax.tree.map(lambda x, like: x.astype(like.dtype), told, untried)

        def go_on(carry):
            index, tried = carry
            return (tried.reason != 0) & (index < max_trials)

        def again(carry):
            index, _ = carry
            return index + 1, attempt(index)

        _, last = jax.lax.while_loop(go_on, again, (jnp.zeros((), jnp.int32), untried))
        taken = last.reason == 0
        none = init(params)._replace(reason=last.reason)
        found = jax.tree.map(lambda yes, no: jnp.where(taken, yes, no), last, none)
        step = jax.tree.map(lambda u: jnp.where(taken, found.step_size * u, 0.0), updates)
        return step, found

    return optax.GradientTransformationExtraArgs(init, update)


def policy_arguments(
    learner: Learner,
    *,
    curvature_tasks: int | None = None,
    curvature_support: int | None = None,
    curvature_query: int | None = None,
    task_chunk: int | None = None,
    mesh: Mesh | None = None,
) -> Callable[[Params, Task, Array], dict[str, Any]]:
    """The arguments of `trpo` for a learner's policy after adaptation, for `meta_step`.

    The Fisher matrix is ``J^T M J``, averaged over tasks and steps: J is the derivative, through
    the adaptation, of the adapted policies' distributions at the recorded states, M their Fisher
    information. J is linearised once per meta-step; its products hold second derivatives of the
    inner loss and none beyond.

    Args:
      learner: what is trained.
      curvature_tasks: take the matrix of this many tasks, rounded up to as many on each device of
        the mesh; None takes all. The products cost as much less.
      curvature_support: let the adaptation within the Fisher matrix see this many support episodes
        of each task and step; None takes all. With fewer it is noisier, which makes the matrix
        larger and the steps shorter; the products cost as much less.
      curvature_query: take the matrix at the states of this many query episodes; None takes all.
        The gradient and the trials always see all tasks, and all episodes of both.
      task_chunk: linearise this many tasks at a time; None takes what is fastest, see `backprop`.
      mesh: split the tasks over the devices of a mesh, see `sharding.task_mesh`.
    """
    for name, number in (
        ("curvature_tasks", curvature_tasks),
        ("curvature_support", curvature_support),
        ("curvature_query", curvature_query),
    ):
        if number is not None:
            checks.at_least(name, number, 1)
    devices = 1 if mesh is None else mesh.size
    some = curvature_tasks and math.ceil(curvature_tasks / devices) * devices

    def adapted_policy(meta_params, task, key):
        params = learner.adapt(meta_params, task.support, key).params
        return learner.predict(params, task.query.inputs)

    def on_all(function, meta_params, tasks, keys):
        one_task = jax.eval_shape(lambda: jax.tree.map(lambda x: x[0], tasks))
        chunk = tasks_at_a_time(task_chunk, one_task, meta_params)
        return over_tasks(
            lambda params, each: function(params, *each), meta_params, (tasks, keys), chunk, mesh
        )

    def arguments(meta_params, tasks, key):
        _check_recorded(tasks)
        keys = jax.random.split(key, checks.leading_axis("tasks", tasks))
        few = Task(
            jax.tree.map(lambda x: x[:some, :, :curvature_support], tasks.support),
            jax.tree.map(lambda x: x[:some, :curvature_query], tasks.query),
        )

        def policies(meta_params):
            return on_all(adapted_policy, meta_params, few, keys[:some])

        def trial(meta_params):
            def one_task(meta_params, task, key):
                # The adaptation within both is one computation to XLA.
                loss = learner.objective(meta_params, task, key)
                policy = adapted_policy(meta_params, task, key)
                return loss, divergence(policy, task.query.targets)

            losses, kls = on_all(one_task, meta_params, tasks, keys)
            return jnp.mean(losses), jnp.mean(kls)

        curvature = _fisher_product(policies, meta_params, few.query.targets.valid)
        return {"curvature": curvature, "trial": trial}

    return arguments


def _fisher_product(
    policies: Callable[[Params], Any], meta_params: Params, valid: Array
) -> Curvature:
    """Products with ``J^T M J`` of the policies' distributions, linearised once.

    Args:
      policies: the adapted policies' distributions ``[T, E, H, ...]`` at the recorded states.
      meta_params: where they are linearised.
      valid: ``[T, E, H]``, the states that count.
    """
    found, push = jax.linearize(policies, meta_params)
    pull = jax.linear_transpose(push, meta_params)
    steps = jnp.maximum(jnp.sum(valid, axis=(1, 2), keepdims=True), 1.0)
    rows = (valid / steps / len(valid))[..., None]

    def curvature(tangent):
        moved = found.fisher(push(tangent))
        return pull(jax.tree.map(lambda x: masked(x * rows, rows), moved))[0]

    return curvature


def _check_recorded(tasks: Task) -> None:
    if not isinstance(tasks.support, PerStep):
        raise ArgumentError(
            "policy_arguments needs tasks that were recorded, with a PerStep support set; got "
            f"{type(tasks.support).__name__}. Make them with mamljax.rl.recorded(sampler, adapt)."
        )


def _required(name: str, value: Any) -> Any:
    """`value`, which optax's signature lets callers leave out."""
    if value is None:
        raise ArgumentError(
            f"the update needs the argument {name}: train with mamljax.rl.trpo_step, or "
            "meta_step(..., extra_args=mamljax.rl.policy_arguments(...))."
        )
    return value
