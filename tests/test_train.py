"""Meta-training: calls, hooks, resuming, and stopping at the first number that is not finite."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mamljax import Batch, Task, backprop, fit, init_state, meta_step, tasks
from mamljax.train import NonFiniteError

KEY = jax.random.key(11)


def noise(meta_params, key):
    """A task whose target is one random number: cheap to compile, and every draw is told apart."""
    target = jax.random.uniform(key, (1,))
    return Task(Batch(target, target), Batch(target, target))


def distance(meta_params, task, key):
    return jnp.sum(jnp.square(meta_params - task.query.targets))


def start(tx, value=3.0):
    return init_state(jnp.array([value]), tx)


@pytest.fixture
def run():
    """`fit` on the cheap problem; returns the final state and every call that a hook saw."""

    def run(state=None, *, objective=distance, sampler=noise, tx=None, hooks=(), **options):
        tx = optax.sgd(0.1) if tx is None else tx
        step, seen = meta_step(backprop(objective), tx), []
        options = {"num_steps": 10, "meta_batch": 3, "steps_per_call": 4, **options}
        state = start(tx) if state is None else state
        final = fit(step, state, sampler, KEY, hooks=[seen.append, *hooks], **options)
        return final, seen

    return run


def history(calls, name):
    return np.concatenate([getattr(call.metrics, name) for call in calls])


@pytest.mark.parametrize(
    ("steps_per_call", "steps"),
    [(4, [4, 8, 10]), (5, [5, 10]), (1, list(range(1, 11))), (100, [10])],
)
def test_hooks_see_every_call(run, steps_per_call, steps):
    # The step is read while the call is fresh: the next one takes over the state's memory.
    seen_steps = []
    state, calls = run(steps_per_call=steps_per_call, hooks=[lambda c: seen_steps.append(c.step)])
    assert state.step == 10
    assert seen_steps == steps
    for c, length in zip(calls, np.diff([0, *steps]), strict=True):
        assert c.metrics.loss.shape == c.metrics.grad_norm.shape == (length,)
        assert c.metrics.task_losses.shape == (length, 3)
        assert (c.num_steps, c.meta_batch) == (10, 3)
        assert c.iterations_per_second == length / c.seconds > 0
        assert c.compile_seconds == calls[0].compile_seconds > 0


def test_metrics_are_those_of_each_iteration(run):
    _, whole = run(steps_per_call=10)
    _, parts = run(steps_per_call=3)
    for name in ("loss", "task_losses", "grad_norm"):
        np.testing.assert_array_equal(history(whole, name), history(parts, name))
    losses = history(whole, "task_losses")
    assert len(np.unique(losses)) == 30  # every task of every iteration is a new draw
    np.testing.assert_allclose(history(whole, "loss"), losses.mean(1), rtol=1e-6)
    assert losses[-1].mean() < 0.5 * losses[0].mean()


def test_one_program_is_compiled_per_run(run):
    traces, traces_so_far = [], []

    def counted(meta_params, task, key):
        traces.append(1)
        return distance(meta_params, task, key)

    _, calls = run(objective=counted, hooks=[lambda _: traces_so_far.append(len(traces))])
    assert len(calls) == 3  # the last one shorter
    assert traces_so_far[0] == traces_so_far[-1] == len(traces)


def test_a_hook_can_stop_the_run_but_not_the_other_hooks(run):
    called = []
    state, calls = run(
        num_steps=40,
        hooks=[
            lambda call: called.append("first"),  # None does not stop
            lambda call: call.step >= 8,
            lambda call: called.append("last"),
        ],
    )
    assert state.step == 8
    assert len(calls) == 2
    assert called == ["first", "last"] * 2


def test_a_run_in_parts_is_bit_for_bit_the_whole_run(learner_of):
    # With a real learner and an optimizer that has a state of its own.
    learner, tx = learner_of(num_steps=2), optax.adam(0.01)
    sampler = tasks.sinusoid(3, 3)
    step = meta_step(learner.meta_gradient, tx)
    beginning = init_state(learner.init(KEY, jnp.zeros((3, 1))), tx)

    def go_on(state, num_steps):
        return fit(
            step,
            state,
            sampler,
            KEY,
            num_steps=num_steps,
            meta_batch=4,
            steps_per_call=4,
            hooks=[lambda call: losses.extend(call.metrics.loss)],
        )

    losses = []
    whole, expected_losses = go_on(beginning, 10), losses
    losses, state = [], beginning
    for pause in (4, 6, 10):  # at the end of a call, and in the middle of one
        state = go_on(state, pause)
        assert state.step == pause
    jax.tree.map(np.testing.assert_array_equal, state, whole)
    assert losses == expected_losses
    assert len(set(losses)) == 10


def test_the_callers_state_stays_valid(run):
    # The compiled loop takes over the memory of its argument, which must not be the caller's.
    state = start(optax.adam(0.1))
    first, _ = run(state, tx=optax.adam(0.1))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert state.step == 0
    again, _ = run(state, tx=optax.adam(0.1))
    jax.tree.map(np.testing.assert_array_equal, again, first)


@pytest.mark.parametrize("num_steps", [3, 5])
def test_a_finished_run_is_returned_as_it_is_and_says_so(run, num_steps):
    state = start(optax.sgd(0.1))._replace(step=jnp.array(5))
    with pytest.warns(UserWarning, match=r"of which 5 are done: nothing is left .* int\(state"):
        final, calls = run(state, num_steps=num_steps)
    assert final is state
    assert calls == []


def test_no_steps_are_no_surprise(run):
    state = start(optax.sgd(0.1))
    assert run(state, num_steps=0)[0] is state


def test_epochs_that_count_on_are_one_run(run):
    state = None
    for epoch in range(2):
        state, _ = run(state, num_steps=5 * (epoch + 1))
    whole, _ = run(num_steps=10)
    jax.tree.map(np.testing.assert_array_equal, state, whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": -1}, "num_steps must be an integer of at least 0"),
        ({"meta_batch": 0}, "meta_batch must be an integer of at least 1"),
        ({"steps_per_call": 0}, "steps_per_call must be an integer of at least 1"),
    ],
    ids=str,
)
def test_wrong_arguments_are_explained(run, options, message):
    with pytest.raises(ValueError, match=message):
        run(**options)


def test_sampler_must_be_a_function(run):
    with pytest.raises(TypeError, match=r"sampler must be a function \(meta_params, key\) -> Task"):
        run(sampler=3)


# ---------------------------------------------------------------------------------------------
# Numbers that are not finite.


def show_draw(meta_params, task, key):
    """An objective that is the task's own random number."""
    return jnp.sum(task.query.targets) + 0.0 * jnp.sum(meta_params)


@pytest.mark.parametrize("poison", [jnp.nan, jnp.inf])
def test_a_loss_that_is_not_finite_names_iteration_and_task(run, poison):
    # A first run shows what each task draws; a second spoils one of them, known by its draw.
    _, calls = run(objective=show_draw)
    iteration, task = 6, 2
    bad_draw = history(calls, "task_losses")[iteration - 1, task]

    def spoilt(meta_params, key):
        fine = noise(meta_params, key)
        return jax.tree.map(lambda x: jnp.where(x == bad_draw, poison, x), fine)

    seen_steps = []
    with pytest.raises(NonFiniteError) as error:
        run(objective=show_draw, sampler=spoilt, hooks=[lambda call: seen_steps.append(call.step)])
    expected = "meta-iteration 6: the query loss of 1 of 3 tasks is not finite (task 2)"
    assert str(error.value).startswith(expected)
    assert seen_steps == [4]  # iterations 5 to 8 are one call, which no hook sees


def test_a_long_list_of_bad_tasks_is_cut(run):
    def spoilt(meta_params, key):
        return jax.tree.map(lambda x: x * jnp.nan, noise(meta_params, key))

    message = (
        r"meta-iteration 1: the query loss of 12 of 12 .* \(task 0, 1, .*, 9, \.\.\.\);"
        r".* whether the inputs .* are finite.*inner_optim\.adam.*inner_optim\.clip_by_global_norm"
    )
    with pytest.raises(NonFiniteError, match=message):
        run(sampler=spoilt, meta_batch=12)


def root(meta_params, task, key):
    """Its value at 0 is 0, its derivative infinite."""
    return jnp.sum(jnp.sqrt(meta_params))


@pytest.mark.parametrize("num_steps", [1, 3])
def test_a_gradient_that_is_not_finite_is_detected_under_a_finite_loss(run, num_steps):
    message = "meta-iteration 1: every query loss is finite, but the meta-gradient .* norm of .*inf"
    with pytest.raises(NonFiniteError, match=message):
        run(start(optax.sgd(0.1), 0.0), objective=root, num_steps=num_steps)


def test_a_transformation_may_skip_what_is_not_finite(run):
    tx = optax.apply_if_finite(optax.sgd(0.1), max_consecutive_errors=100)
    state, calls = run(start(tx, 0.0), objective=root, tx=tx)
    assert state.step == 10
    assert np.isinf(history(calls, "grad_norm")).all()
    np.testing.assert_array_equal(state.meta_params, 0.0)


# ---------------------------------------------------------------------------------------------
# Outer optimizers that look at the objective again.


@pytest.mark.parametrize(
    "tx",
    [
        optax.lbfgs(),
        optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(20)),
    ],
    ids=["lbfgs", "backtracking"],
)
def test_line_searches_get_what_they_need(run, tx):
    curvature = jnp.array([1.0, 30.0])

    def bowl(meta_params, task, key):
        return jnp.sum(curvature * jnp.square(meta_params - 1.0)) + jnp.sum(task.query.targets)

    def same_task(meta_params, key):
        return jax.tree.map(lambda x: 0.0 * x, noise(meta_params, key))

    state = init_state(jnp.array([5.0, -3.0]), tx)
    _, calls = run(state, objective=bowl, sampler=same_task, tx=tx, num_steps=8)
    losses = history(calls, "loss")
    # Plain descent with step size 1 would diverge on this curvature.
    assert np.all(np.diff(losses) <= 0)
    assert losses[-1] < 0.05 * losses[0]


def test_value_fn_is_the_objective_on_the_same_tasks(run):
    def update(grads, state, params=None, *, value, grad, value_fn, **_):
        same = value_fn(params) == value
        slope = value_fn(params + 1e-2) - value_fn(params - 1e-2)
        return grads, state & same & jnp.isclose(jnp.sum(grad) * 2e-2, slope, rtol=1e-2).all()

    tx = optax.GradientTransformationExtraArgs(lambda params: jnp.array(True), update)
    state, _ = run(tx=optax.chain(tx, optax.sgd(0.1)))
    assert state.opt_state[0]
