"""Trust regions: curvature against a dense Fisher matrix, and steps that are never too long."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from mamljax import init_state, meta_step, rl, sharding
from mamljax.rl import losses
from mamljax.rl.trpo import REASONS, Backtracked

KEY = jax.random.key(5)


def double(tree):
    return jax.tree.map(lambda x: x.astype(float) if x.dtype == jnp.float32 else x, tree)


def dense_fisher(learner, params, tasks):
    """``J^T M J`` with J the whole Jacobian, and M by the Hessian of the divergence."""
    flat, unravel = ravel_pytree(params)
    total = np.zeros((flat.size, flat.size))
    num_tasks = len(tasks.query.inputs)
    for t in range(num_tasks):
        task = jax.tree.map(lambda x, t=t: x[t], tasks)

        def adapted(flat, task=task):
            params = learner.adapt(unravel(flat), task.support, KEY).params
            return learner.predict(params, task.query.inputs)

        targets, found = task.query.targets, adapted(flat)
        vector, back = ravel_pytree(found)
        jacobian = jax.jacobian(lambda flat: ravel_pytree(adapted(flat))[0])(flat)
        at_found = targets._replace(behaviour=found)
        metric = jax.hessian(lambda v, d=at_found, b=back: losses.divergence(b(v), d))(vector)
        total += jacobian.T @ metric @ jacobian / num_tasks
    return total


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("options", "task_chunk"),
    [
        ({"num_steps": 1}, None),
        ({"num_steps": 1}, 2),
        ({"num_steps": 2, "inner_loss": losses.dice}, 1),
        ({"num_steps": 0}, None),
    ],
    ids=["one step", "in chunks", "two steps of DiCE", "no step"],
)
def test_curvature_is_the_dense_fisher_matrix(recorded_of, options, task_chunk):
    learner, params, tasks = recorded_of(**options)
    params, tasks = double(params), double(tasks)
    expected = dense_fisher(learner, params, tasks)
    arguments = rl.policy_arguments(learner, task_chunk=task_chunk)
    curvature = arguments(params, tasks, KEY)["curvature"]
    flat, unravel = ravel_pytree(params)
    products = jax.jit(jax.vmap(lambda v: ravel_pytree(curvature(unravel(v)))[0]))(
        np.eye(flat.size)
    )
    np.testing.assert_allclose(products, expected, rtol=1e-7, atol=1e-10)
    assert np.linalg.matrix_rank(expected) > 5


@pytest.mark.parametrize("devices", [1, 2])
def test_a_subsample_gives_the_curvature_of_its_tasks_and_episodes(recorded_of, devices):
    learner, params, tasks = recorded_of(num_tasks=4, episodes=6)
    few = tasks._replace(
        support=jax.tree.map(lambda x: x[:2, :, :3], tasks.support),
        query=jax.tree.map(lambda x: x[:2, :2], tasks.query),
    )
    # One task on each of two devices is the least that can be.
    sizes = {"curvature_tasks": 3 - devices, "curvature_support": 3, "curvature_query": 2}
    mesh = sharding.task_mesh(jax.devices()[:devices])
    part = rl.policy_arguments(learner, mesh=mesh, **sizes)
    whole = rl.policy_arguments(learner)
    found = part(params, tasks, KEY)["curvature"](params)
    expected = whole(params, few, KEY)["curvature"](params)
    other = whole(params, tasks, KEY)["curvature"](params)
    for a, b, c in zip(*map(jax.tree.leaves, (found, expected, other)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
        assert not np.allclose(a, c, rtol=1e-3)


def test_trials_are_the_meta_loss_and_the_divergence(recorded_of, randomised):
    learner, params, tasks = recorded_of()
    arguments = rl.policy_arguments(learner, task_chunk=2)
    trial = jax.jit(arguments(params, tasks, KEY)["trial"])
    assert trial(params)[1] == pytest.approx(0, abs=1e-6)
    moved = optax.tree.add_scale(params, 0.05, randomised(params))
    loss, kl = trial(moved)
    expected = learner.meta_gradient(moved, tasks, KEY)[1].loss
    assert loss == pytest.approx(float(expected), rel=1e-4)
    kls = []
    for t in range(3):
        task = jax.tree.map(lambda x, t=t: x[t], tasks)
        adapted = learner.adapt(moved, task.support, KEY).params
        targets = task.query.targets
        kls.append(losses.divergence(learner.predict(adapted, task.query.inputs), targets))
    assert kl == pytest.approx(float(np.mean(kls)), rel=1e-4)


@pytest.mark.usefixtures("x64")
def test_natural_gradient_solves_the_damped_system():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(5, 5))
    matrix = jnp.asarray(matrix @ matrix.T)
    gradient = jnp.asarray(rng.normal(size=5))
    tx = rl.natural_gradient(50, damping=0.1)
    found, _ = tx.update(gradient, tx.init(gradient), curvature=lambda v: matrix @ v)
    np.testing.assert_allclose(found, np.linalg.solve(matrix + 0.1 * np.eye(5), gradient), 1e-8)
    # Its length is measured by the damped matrix too, as by the authors.
    tx = rl.trust_region(0.02)
    step, _ = tx.update(found, tx.init(found), grad=gradient)
    assert 0.5 * step @ (matrix + 0.1 * np.eye(5)) @ step == pytest.approx(0.02)
    assert 0.5 * step @ matrix @ step < 0.0199
    assert step @ found < 0


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("iterations", [1, 2, 4])
def test_conjugate_gradients_that_stop_early_are_those_of_jax(iterations):
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(5, 5))
    matrix = jnp.asarray(matrix @ matrix.T)
    gradient = {"a": jnp.asarray(rng.normal(size=2)), "b": jnp.asarray(rng.normal(size=3))}

    def curvature(tree):
        flat, unravel = ravel_pytree(tree)
        return unravel(matrix @ flat)

    tx, region = rl.natural_gradient(iterations, damping=0.01), rl.trust_region(0.03)
    found, _ = tx.update(gradient, tx.init(gradient), curvature=curvature)
    damped = matrix + 0.01 * jnp.eye(5)
    flat, _ = ravel_pytree(gradient)
    expected = jax.scipy.sparse.linalg.cg(lambda v: damped @ v, flat, maxiter=iterations)[0]
    np.testing.assert_allclose(ravel_pytree(found)[0], expected, rtol=1e-10)
    step, _ = region.update(found, region.init(found), grad=gradient)
    step, _ = ravel_pytree(step)
    assert 0.5 * step @ damped @ step == pytest.approx(0.03, rel=1e-10)


def test_no_more_products_than_asked_for():
    calls = []

    def curvature(tangent):
        jax.debug.callback(lambda: calls.append(1))
        return jnp.array([1.0, 2.0, 3.0]) * tangent

    tx = optax.chain(rl.natural_gradient(2), rl.trust_region(0.01))
    gradient = jnp.ones(3)
    step, _ = tx.update(gradient, tx.init(gradient), curvature=curvature, grad=gradient)
    jax.block_until_ready(step)
    jax.effects_barrier()
    assert len(calls) == 2


@pytest.mark.parametrize("zero", ["gradient", "curvature"])
def test_no_direction_gives_no_step(zero):
    tx = optax.chain(rl.natural_gradient(damping=0.0), rl.trust_region(0.01))
    gradient = jnp.zeros(3) if zero == "gradient" else jnp.ones(3)
    step, _ = tx.update(gradient, tx.init(gradient), curvature=lambda v: 0 * v, grad=gradient)
    assert np.isfinite(step).all()
    assert not step.any()


TRIALS = {  # loss and divergence of a step of size x from 1, at which the loss is 0
    "accepted": lambda x: (-x, 0.001 * x),
    "no improvement": lambda x: (x, 0.001 * x),
    "outside the trust region": lambda x: (-x, 1 + x),
    "not finite": lambda x: (jnp.nan * x, 0 * x),
}


@pytest.mark.parametrize("reason", TRIALS)
def test_backtracking_says_why(reason):
    tx = rl.backtrack(0.01)
    step, state = tx.update(
        jnp.ones(()),
        tx.init(jnp.ones(())),
        jnp.ones(()),
        value=jnp.zeros(()),
        trial=lambda params: TRIALS[reason](params - 1),
    )
    assert REASONS[state.reason] == reason
    assert step == state.step_size == (1 if reason == "accepted" else 0)
    assert (state.improvement, state.kl) == ((1, 0.001) if step else (0, 0))


@pytest.mark.parametrize(("limit", "expected"), [(0.5, 0.8**4), (0.9, 0.8), (1e-3, 0)])
def test_backtracking_takes_the_longest_step_that_is_allowed(limit, expected):
    tx = rl.backtrack(limit)
    step, state = tx.update(
        jnp.ones(()),
        tx.init(jnp.ones(())),
        jnp.zeros(()),
        value=jnp.zeros(()),
        trial=lambda x: (-x, x),
    )
    assert step == pytest.approx(expected)
    assert state.kl <= limit


def test_training_steps_stay_in_the_region_and_improve(recorded_of):
    sizes = {"episodes": 10, "horizon": 10}
    learner, params, _ = recorded_of(**sizes)
    step = jax.jit(rl.trpo_step(learner, rl.trpo(0.02, damping=1e-3)))
    surrogate = jax.jit(lambda *args: learner.meta_gradient(*args)[1].loss)
    state = init_state(params, rl.trpo(0.02))
    taken = 0
    for seed in range(4):
        _, _, tasks = recorded_of(seed=seed, **sizes)
        after, metrics = step(state, tasks, KEY)
        (found,) = (x for x in after.opt_state if isinstance(x, Backtracked))
        if found.reason == 0:
            taken += 1
            assert 0 < found.kl <= 0.02
            assert found.improvement > 0
            assert surrogate(after.meta_params, tasks, KEY) < metrics.loss
        else:
            for a, b in zip(*map(jax.tree.leaves, (after.meta_params, params)), strict=True):
                np.testing.assert_array_equal(a, b)
        assert metrics.info["kl"] == found.kl
    assert taken > 2


def test_a_scheduled_region_is_the_one_of_its_step():
    """A divergence of x^2 / 2 is that of the Fisher matrix 1: the step is as long as allowed."""
    sizes = [0.1, 0.05, 0.05]
    tx = rl.trpo(optax.piecewise_constant_schedule(0.1, {1: 0.5}), damping=0.0)
    x = jnp.zeros(())
    state = tx.init(x)
    trial = jax.jit(lambda at, x: (-(at - x), 0.499 * jnp.square(at - x)))
    arguments = {
        "value": jnp.zeros(()),
        "grad": -jnp.ones(()),
        "curvature": lambda tangent: tangent,
    }
    for size in sizes:
        one = rl.trpo(size, damping=0.0)
        expected, _ = one.update(
            -jnp.ones(()), one.init(x), x, trial=lambda at: trial(at, x), **arguments
        )
        step, state = tx.update(-jnp.ones(()), state, x, trial=lambda at: trial(at, x), **arguments)
        assert step == pytest.approx(float(np.sqrt(2 * size)), rel=1e-5)
        assert step == pytest.approx(float(expected), rel=1e-6)
        leaves = jax.tree.leaves(state, is_leaf=lambda s: isinstance(s, Backtracked))
        (found,) = (s for s in leaves if isinstance(s, Backtracked))
        assert found.reason == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rl.trpo(0.0), "max_kl must be a finite number > 0"),
        (lambda: rl.trpo(lambda step: 0.0 * step), "max_kl must be a finite number > 0"),
        (lambda: rl.trpo(lambda step: "wide"), "max_kl must be .* a schedule step -> number"),
        (lambda: rl.trpo(cg_iterations=0), "cg_iterations must be an integer"),
        (lambda: rl.trpo(damping=len), "damping must be a finite number"),
        (lambda: rl.trust_region(-1.0), "max_kl must be a finite number"),
        (lambda: rl.natural_gradient(1, -1.0), "damping must be a finite number"),
        (lambda: rl.backtrack(0.1, decay=1.0), "decay must lie between 0 and 1"),
        (lambda: rl.natural_gradient(0), "iterations must be an integer"),
    ],
)
def test_bad_values_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_tasks_that_were_not_recorded_are_refused(recorded_of):
    learner, params, tasks = recorded_of()
    plain = tasks._replace(support=tasks.query)
    arguments = rl.policy_arguments(learner)
    with pytest.raises(TypeError, match=r"mamljax\.rl\.recorded"):
        arguments(params, plain, KEY)


def test_a_plain_meta_step_is_told_what_is_missing(recorded_of):
    learner, params, tasks = recorded_of()
    step = meta_step(learner.meta_gradient, rl.trpo())
    with pytest.raises(ValueError, match=r"needs the argument curvature.*trpo_step"):
        step(init_state(params, rl.trpo()), tasks, KEY)


@pytest.mark.parametrize(
    "inner",
    [
        pytest.param({"num_steps": 1}, id="MAML"),
        pytest.param({"num_steps": 0}, id="joint", marks=pytest.mark.slow),
    ],
)
def test_devices_share_the_tasks(recorded_of, inner, assert_close):
    mesh = sharding.task_mesh(jax.devices()[:2])
    inner = {"num_tasks": 4, "episodes": 10, "task_chunk": 1} | inner
    learner, params, tasks = recorded_of(**inner)
    options = {"task_chunk": 1}
    tx = rl.trpo(damping=0.1)
    alone = rl.trpo_step(learner, tx, **options)
    shared, _, _ = recorded_of(mesh=mesh, **inner)
    together = rl.trpo_step(shared, tx, mesh=mesh, **options)
    state = init_state(params, tx)
    expected, found = (jax.jit(step)(state, tasks, KEY)[0] for step in (alone, together))
    moved = [optax.tree.sub(s.meta_params, params) for s in (found, expected)]
    assert_close(*moved, 2e-2)  # ten conjugate gradients in float32
    assert optax.tree.norm(moved[1]) > 0
    curvatures = [rl.policy_arguments(learner, mesh=m)(params, tasks, KEY) for m in (mesh, None)]
    assert_close(*(c["curvature"](params) for c in curvatures), 1e-5)
