"""MAML for policies: recorded data, replayed meta-gradients, and a problem with a known optimum."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mamljax import Batch, evaluate, fit, init_state, losses, maml, models, rl, tasks
from mamljax.inner_optim import learned_sgd
from mamljax.rl.env import Env, EnvState
from mamljax.rl.losses import (
    Experience,
    clipped_ratio,
    likelihood_ratio,
    mean_return,
    reinforce,
)
from mamljax.types import Drawn, PerStep, Task

KEY = jax.random.key(11)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("inner_loss", [reinforce, likelihood_ratio])
def test_the_replayed_meta_gradient_matches_finite_differences(
    recorded_of, assert_finite_differences, randomised, inner_loss
):
    learner, params, found = recorded_of(num_steps=2, inner_loss=inner_loss, task_chunk=2)
    params, found = jax.tree.map(
        lambda x: x.astype(float) if x.dtype == jnp.float32 else x, (params, found)
    )
    # DiCE has no place here: its derivatives are not those of its values. And at the origin, with
    # biases of 0, every ReLU is at its kink.
    params = optax.tree.add_scale(params, 0.1, randomised(params))
    assert_finite_differences(learner, params, found, rtol=1e-5)


@pytest.mark.usefixtures("x64")
def test_an_inner_update_can_be_learned(recorded_of, assert_finite_differences):
    """Step sizes that begin at the given one adapt as plain MAML, and have a gradient."""
    inner_tx = learned_sgd(0.3, per="tensor")
    learner, params, found = recorded_of(num_steps=2, inner_tx=inner_tx, task_chunk=2)
    params, found = jax.tree.map(
        lambda x: x.astype(float) if x.dtype == jnp.float32 else x, (params, found)
    )
    assert_finite_differences(learner, params, found, rtol=1e-5)

    fixed, _, _ = recorded_of(num_steps=2)
    ones = params._replace(rule=jax.tree.map(jnp.ones_like, params.rule))
    task = jax.tree.map(lambda x: x[0], found)
    adapted = learner.adapt(ones, task.support, KEY).params
    expected = fixed.adapt(ones.model, task.support, KEY).params
    for a, b in zip(*map(jax.tree.leaves, (adapted, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)

    state = init_state(params, rl.trpo(0.05))
    after, metrics = jax.jit(rl.trpo_step(learner, rl.trpo(0.05)))(state, found, KEY)
    assert metrics.info["reason"] == 0
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), after.meta_params.rule, params.rule)
    assert all(jax.tree.leaves(moved))


def test_every_inner_step_has_trajectories_of_its_own_policy(recorded_of):
    learner, params, found = recorded_of(num_steps=3)
    assert found.support.data.inputs.shape == (3, 3, 4, 5, 2)
    task = jax.tree.map(lambda x: x[0], found)
    assert len(np.unique(task.support.data.targets.actions)) == 3 * 4 * 5 * 2

    def observe(params, step):
        batch = jax.tree.map(lambda x: x[jnp.minimum(step, 2)], task.support.data)
        return learner.predict(params, batch.inputs).mean

    adapted = learner.adapt(params, task.support, KEY, observe=observe)
    recorded = task.support.data.targets.behaviour.mean
    np.testing.assert_allclose(adapted.observed[:3], recorded, rtol=1e-4, atol=1e-6)
    assert not np.allclose(adapted.observed[3], recorded[2], rtol=1e-3)
    after = learner.predict(adapted.params, task.query.inputs).mean
    np.testing.assert_allclose(after, task.query.targets.behaviour.mean, rtol=1e-4, atol=1e-6)


def two_states(horizon=5):
    """Two states, one of which pays 1 per step: the task says which, the action chooses."""

    def reset(task, key):
        return EnvState((), jnp.array([1.0, 0.0]), jnp.zeros(()), jnp.array(False))

    def step(task, state, action):
        there = jnp.where(action[0] > 0, jnp.array([0.0, 1.0]), jnp.array([1.0, 0.0]))
        return EnvState((), there, there @ task, jnp.array(False))

    def sample_task(key):
        return jax.nn.one_hot(jax.random.randint(key, (), 0, 2), 2)

    return Env(sample_task, reset, step, observation_size=2, action_size=1)


def corridor(cells=5):
    """One-hot cells in a row, the start in the middle; one end, as the task says, pays 1 per step.

    The other end costs as much. Actions are one-hot too: left, stay, right.
    """

    def at(cell):
        return jax.nn.one_hot(cell, cells)

    def reset(task, key):
        return EnvState(cells // 2, at(cells // 2), 0.0, False)

    def step(task, state, action):
        cell = jnp.clip(state.physics + jnp.argmax(action) - 1, 0, cells - 1)
        side = (cell == cells - 1) * 1.0 - (cell == 0)
        return EnvState(cell, at(cell), side * (2.0 * task - 1), False)

    def sample_task(key, *, place=None):
        drawn = jax.random.randint(key, (), 0, 2)
        return drawn if place is None else place % 2

    return Env(sample_task, reset, step, observation_size=cells, action_size=3)


def trained(env, num_steps, iterations=25, policy=None, inner_lr=2.0, max_kl=0.05):
    policy = models.gaussian_policy(1, hidden=(8,)) if policy is None else policy
    learner = rl.maml(policy, inner_lr=inner_lr, num_steps=num_steps)
    drawn = rl.on_policy(env, learner.predict, episodes=20, horizon=5)
    state = init_state(policy.init(KEY, jnp.zeros((1, env.observation_size))), rl.trpo(max_kl))
    step, sampler = rl.trpo_step(learner, rl.trpo(max_kl)), rl.recorded(drawn, learner.adapt)
    seen = []
    options = {
        "num_steps": iterations,
        "meta_batch": 10,
        "steps_per_call": 5,
        "hooks": [seen.append],
    }
    state = fit(step, state, sampler, KEY, **options)
    report = evaluate(
        learner,
        state.meta_params,
        drawn,
        KEY,
        num_tasks=40,
        num_steps=num_steps,
        metric=mean_return,
    )
    return state, seen, report


def test_a_problem_with_a_known_optimum_is_solved():
    """The optimum is 5: whoever adapts finds the state that pays, whoever does not earns half."""
    _, seen, report = trained(two_states(), num_steps=1)
    assert 1.5 < report.mean[0] < 3.5
    assert report.mean[1] > 4.5
    assert report.num_diverged == 0
    info = {
        name: np.concatenate([call.metrics.info[name] for call in seen])
        for name in ("kl", "return_after", "reason", "step_size", "broken_episodes")
    }
    assert len(info["kl"]) == 25
    assert np.all(info["kl"] <= 0.05)
    assert np.all((info["step_size"] > 0) == (info["reason"] == 0))
    assert info["return_after"][-5:].mean() > 4.5
    assert not info["broken_episodes"].any()


def test_a_discrete_world_is_solved_by_a_choice_among_actions():
    """The optimum is 4, from the second step on; who does not know the task earns nothing."""
    policy = models.categorical_policy(3, hidden=(8,))
    options = {"inner_lr": 1.0, "max_kl": 0.02, "iterations": 15}
    _, seen, report = trained(corridor(), num_steps=1, policy=policy, **options)
    assert abs(report.mean[0]) < 1
    assert report.mean[1] > 3.6
    assert report.values.max() <= 4
    assert "log_std" not in seen[0].metrics.info


def test_pretraining_and_the_oracle_are_the_same_learner_without_steps():
    _, _, told = trained(rl.reveal_task(two_states()), num_steps=0)
    assert told.mean[0] > 4.5
    first, _, untold = trained(two_states(), num_steps=0, iterations=10)
    assert 1.5 < untold.mean[0] < 3.5
    again, _, _ = trained(two_states(), num_steps=0, iterations=10)
    for a, b in zip(*map(jax.tree.leaves, (first, again)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_drawn_data_serve_supervised_learners_too():
    """A support set may depend on the parameters; its record replays to the same adaptation."""
    learner = maml(models.mlp((4, 1)), losses.mean_squared_error, inner_lr=0.1, num_steps=2)
    params = learner.init(KEY, jnp.ones((1, 1)))

    def draw(params, key):
        inputs = jax.random.normal(key, (5, 1))
        return Batch(inputs, inputs + params["Dense_1"]["bias"][None])

    adapted = learner.adapt(params, Drawn(draw), KEY)
    assert adapted.drawn.inputs.shape == (2, 5, 1)
    np.testing.assert_array_equal(adapted.drawn.targets[0], adapted.drawn.inputs[0])
    assert np.all(adapted.drawn.targets[1] != adapted.drawn.inputs[1])
    sampler = rl.recorded(lambda params, key: Task(Drawn(draw), Drawn(draw)), learner.adapt)
    found = jax.tree.map(lambda x: x[0], tasks.sample_tasks(sampler, params, KEY, 1))
    replayed = learner.adapt(params, found.support, KEY).params
    expected = found.query.inputs + replayed["Dense_1"]["bias"][None]
    np.testing.assert_allclose(found.query.targets, expected, rtol=1e-6)


class Coin(NamedTuple):
    """A policy over two actions: the logit of the action 1, ``[E, H]``."""

    logit: jax.Array

    def log_prob(self, actions):
        return jax.nn.log_sigmoid(jnp.where(actions[..., 0] > 0, self.logit, -self.logit))


COIN = models.from_function(lambda logit, inputs: Coin(logit + 0.0 * inputs[..., 0]))
PAYOFF = np.array([0.3, -1.0])


def toss(action, logit):
    """One episode of one step, as a batch."""
    reward = jnp.full((1, 1), PAYOFF[action])
    behaviour = Coin(jnp.full((1, 1), logit))
    actions, ones = jnp.full((1, 1, 1), float(action)), jnp.ones((1, 1))
    targets = Experience(actions, reward, reward, ones, behaviour, jnp.zeros(1, bool), jnp.zeros(1))
    return Batch(jnp.zeros((1, 1, 1)), targets)


def chance(action, logit):
    return jax.nn.sigmoid(logit if action else -logit)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("num_steps", [1, 2])
def test_credit_for_data_makes_the_meta_gradient_unbiased(num_steps):
    """Over all outcomes of a coin, against the derivative of the expected return itself."""
    logit, options = 0.4, {"inner_lr": 0.7, "num_steps": num_steps}
    paper, emaml = (rl.maml(COIN, data_credit=credit, **options) for credit in (0.0, 1.0))

    def adapted(logit, tosses):
        for action in tosses:
            logit = logit + 0.7 * PAYOFF[action] * jax.grad(
                lambda x, a=action: jnp.log(chance(a, x))
            )(logit)
        return logit

    def expected_return(logit):
        total = 0.0
        for tosses in itertools.product((0, 1), repeat=num_steps):
            probability, policy = 1.0, logit
            for action in tosses:
                probability, policy = (
                    probability * chance(action, policy),
                    adapted(policy, [action]),
                )
            after = sum(chance(action, policy) * PAYOFF[action] for action in (0, 1))
            total = total + probability * after
        return total

    found = dict.fromkeys(("paper", "emaml"), 0.0)
    for tosses in itertools.product((0, 1), repeat=num_steps):
        logits = [adapted(logit, tosses[:s]) for s in range(num_steps + 1)]
        batches = [toss(action, at) for action, at in zip(tosses, logits, strict=False)]
        support = PerStep(jax.tree.map(lambda *x: jnp.stack(x), *batches))
        probability = np.prod([chance(a, at) for a, at in zip(tosses, logits, strict=False)])
        for action in (0, 1):
            task = Task(support, toss(action, logits[-1]))
            weight = probability * chance(action, logits[-1])
            for name, learner in (("paper", paper), ("emaml", emaml)):
                found[name] -= weight * jax.grad(learner.objective)(logit, task, KEY)
    exact = jax.grad(expected_return)(logit)
    assert found["emaml"] == pytest.approx(float(exact), rel=1e-9)
    assert abs(found["paper"] - exact) > 0.005


def test_going_over_the_same_tasks_improves_on_one_step(recorded_of):
    learner, params, found = recorded_of(outer_loss=clipped_ratio(0.2), episodes=10, horizon=10)
    state = init_state(params, optax.adam(0.01))
    losses_after = []
    for epochs in (1, 8):
        step = jax.jit(rl.ppo_step(learner, optax.adam(0.01), epochs=epochs))
        after, metrics = step(state, found, KEY)
        assert after.step == 1
        assert "return_before" in metrics.info
        losses_after.append(learner.meta_gradient(after.meta_params, found, KEY)[1].loss)
    assert losses_after[1] < losses_after[0] < 0
    with pytest.raises(ValueError, match="epochs must be an integer of at least 1"):
        rl.ppo_step(learner, optax.adam(0.01), epochs=0)


def test_a_negative_step_size_is_refused():
    with pytest.raises(ValueError, match="inner_lr must be a finite number"):
        rl.maml(models.gaussian_policy(1), inner_lr=-0.1)
