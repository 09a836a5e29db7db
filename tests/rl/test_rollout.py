"""Rollouts: rewards against the formulas, ends of episodes, broken physics."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mamljax import evaluate, models, rl
from mamljax.checks import ArgumentError
from mamljax.rl.env import Env, EnvState
from mamljax.rl.navigation import Goal
from mamljax.tasks import sample_tasks

KEY = jax.random.key(3)
POLICY = models.gaussian_policy(2, hidden=(4,), init_std=0.2)
PARAMS = POLICY.init(KEY, jnp.zeros((1, 2)))


def navigate(env, task, horizon=30, episodes=5, key=KEY):
    return rl.rollout(env, POLICY.apply, PARAMS, task, key, episodes=episodes, horizon=horizon)


@pytest.mark.parametrize("reward", ["distance", "squared_distance"])
def test_navigation_follows_its_formulas(reward):
    goal = np.array([0.2, -0.1])
    found = navigate(rl.navigation(reward=reward), Goal(jnp.asarray(goal)))
    position = np.zeros((5, 2))
    for t in range(30):
        np.testing.assert_allclose(found.observations[:, t], position, atol=1e-6)
        position = position + 0.1 * np.clip(np.asarray(found.actions[:, t]), -1, 1)
        distance = np.linalg.norm(position - goal, axis=1)
        expected = -distance if reward == "distance" else -(distance**2)
        np.testing.assert_allclose(found.rewards[:, t], expected, rtol=1e-4, atol=1e-6)
    assert not found.broken.any()


def test_goals_fill_the_square():
    goals = jax.vmap(rl.navigation().sample_task)(jax.random.split(KEY, 2000)).position
    assert jnp.abs(goals).max() <= 0.5
    np.testing.assert_allclose(goals.std(0), 1 / np.sqrt(12), rtol=0.05)


def test_nothing_counts_after_the_goal_is_reached():
    env = rl.navigation()
    found = rl.rollout(
        env,
        lambda params, observations: models.Gaussian(*jnp.full((2, 3, 2), -20.0)),
        (),
        Goal(jnp.array([-0.3, -0.3])),
        KEY,
        episodes=3,
        horizon=6,
    )
    np.testing.assert_array_equal(found.valid, [[1, 1, 1, 0, 0, 0]] * 3)
    np.testing.assert_allclose(found.rewards[0], [-0.28284, -0.141421, 0, 0, 0, 0], atol=1e-4)
    np.testing.assert_array_equal(
        found.observations[:, 3:], found.observations[:, 3:4].repeat(3, 1)
    )


def breaking(at=3):
    """The point of navigation, whose physics turn to NaN in episodes that start to the right."""

    def reset(task, key):
        position = jax.random.normal(key, (2,))
        return EnvState(jnp.zeros(()), position, jnp.zeros(()), jnp.array(False))

    def step(task, state, action):
        time = state.physics + 1
        bad = (state.observation[0] > 0) & (time >= at)
        return EnvState(
            jnp.where(bad, jnp.nan, time),
            jnp.where(bad, jnp.nan, state.observation),
            jnp.where(bad, jnp.inf, 1.0),
            jnp.array(False),
        )

    return Env(lambda key: (), reset, step, 2, 2)


def test_broken_physics_end_their_episodes_and_reach_nothing():
    found = navigate(breaking(), jnp.zeros(()), horizon=6, episodes=40)
    right = np.asarray(found.observations[:, 0, 0] > 0)
    assert 5 < right.sum() < 35
    np.testing.assert_array_equal(found.broken, right)
    np.testing.assert_array_equal(found.valid.sum(1), np.where(right, 2, 6))
    np.testing.assert_array_equal(found.rewards, found.valid)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def test_broken_physics_do_not_poison_the_update(recorded_of):
    learner, params, tasks = recorded_of(env=breaking(), episodes=8)
    assert tasks.query.targets.broken.any()
    gradient, metrics = jax.jit(learner.meta_gradient)(params, tasks, KEY)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert metrics.grad_norm > 0


def test_the_oracle_sees_the_task():
    env, task = rl.reveal_task(rl.navigation()), Goal(jnp.array([0.4, 0.1]))
    assert env.observation_size == 4
    state = env.step(task, env.reset(task, KEY), jnp.array([0.5, 5.0]))
    np.testing.assert_allclose(state.observation, [0.05, 0.1, 0.4, 0.1])
    assert state.reward == pytest.approx(-0.35)


def test_the_same_key_gives_the_same_numbers():
    task = Goal(jnp.array([0.2, 0.2]))
    one, same = navigate(rl.navigation(), task), navigate(rl.navigation(), task)
    other = navigate(rl.navigation(), task, key=jax.random.key(4))
    np.testing.assert_array_equal(one.actions, same.actions)
    assert np.all(one.actions != other.actions)
    taken = one.actions[one.valid > 0]
    assert len(np.unique(taken)) == taken.size > 200  # episodes and steps draw their own


@pytest.mark.parametrize("name", ["episodes", "horizon"])
def test_lengths_must_be_positive(name):
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least 1"):
        navigate(rl.navigation(), Goal(jnp.zeros(2)), **{name: 0})


def test_unknown_rewards_are_refused():
    with pytest.raises(ValueError, match="Did you mean 'distance'"):
        rl.navigation(reward="distanc")


# ---------------------------------------------------------------------------------------------
# Environments and policies of a user's own, good and bad.


def still(**state):
    """An environment in which nothing happens, with some of its state replaced."""

    def at(step):
        values = {
            "physics": jnp.zeros(()),
            "observation": jnp.ones(2),
            "reward": jnp.zeros(()),
            "done": jnp.array(False),
        }
        return EnvState(**values | {k: v(step) if callable(v) else v for k, v in state.items()})

    return Env(lambda key: (), lambda task, key: at(0), lambda task, state, action: at(1), 2, 2)


def test_numbers_of_any_kind_make_a_state():
    env = still(
        physics=3, observation=np.array([1, 2]), reward=lambda s: -2 * s, done=lambda s: float(s)
    )
    found = navigate(env, (), horizon=3, episodes=2)
    np.testing.assert_array_equal(found.valid, [[1, 0, 0]] * 2)
    np.testing.assert_array_equal(found.rewards, [[-2, 0, 0]] * 2)
    np.testing.assert_array_equal(found.observations[:, 0], [[1, 2]] * 2)
    states = rl.episode(env, POLICY.apply, PARAMS, (), KEY, horizon=3)
    np.testing.assert_array_equal(states.done, [False, True, True, True])


@dataclasses.dataclass
class Start:
    """A reset with an array of its own, which has no hash."""

    observation: np.ndarray

    def __call__(self, task, key):
        return still().reset(task, key)


def test_a_function_without_a_hash_is_refused():
    with pytest.raises(ArgumentError, match=r"env.reset must have a hash.* one of Start.*eq=False"):
        navigate(still()._replace(reset=Start(np.ones(2))), ())


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"observation": {"a": jnp.ones(2)}}, "env.reset: observation must be one array.* a dict"),
        (
            {"observation": jnp.ones((2, 2, 3))},
            r"observation must have shape \(2,\); got .2, 2, 3.",
        ),
        ({"observation": jnp.ones(3)}, r"observation must have shape \(2,\); got \(3,\)"),
        ({"reward": lambda s: jnp.zeros((1,) * s)}, r"env.step: reward must have shape \(\); got"),
        ({"reward": None}, "reward must be an array of numbers; got NoneType"),
        ({"done": lambda s: jnp.zeros(2)}, r"env.reset: done must have shape \(\); got \(2,\)"),
        ({"done": "no"}, "done must be an array of numbers; got str"),
        ({"physics": lambda s: jnp.zeros(s)}, r"physics is float32 \(0,\) after .* \(1,\) after"),
        ({"physics": lambda s: (0, 0.5)[s]}, "keep shapes and types; physics is int32"),
        ({"physics": lambda s: (1,) * s}, "env.step must return a state of the structure"),
    ],
)
def test_states_that_are_none_are_explained(state, message):
    for use in (
        lambda env: navigate(env, ()),
        lambda env: rl.episode(env, POLICY.apply, PARAMS, (), KEY, horizon=2),
    ):
        with pytest.raises(ArgumentError, match=message):
            use(still(**state))


def test_what_is_no_environment_or_task_is_explained():
    with pytest.raises(ArgumentError, match=r"env must be a mamljax\.rl\.Env; got str"):
        navigate("ant", ())
    with pytest.raises(ArgumentError, match=r"goal in the task of env must be an array .* got str"):
        navigate(still(), {"goal": "left"})
    bare = still()._replace(reset=lambda task, key: jnp.ones(2))
    with pytest.raises(ArgumentError, match=r"env\.reset must return a mamljax\.rl\.EnvState"):
        navigate(bare, ())


class Halved(models.Gaussian):
    """A distribution over as many actions as observations have entries, less one."""

    def sample(self, key):
        return self.mean[..., :-1]


class Summed(models.Gaussian):
    """A distribution with one log-probability for all."""

    def log_prob(self, actions):
        return jnp.sum(actions)


class Counted(models.Gaussian):
    """A distribution whose log-probabilities are whole numbers."""

    def log_prob(self, actions):
        return jnp.zeros(actions.shape[:-1], int)


class Shrunk(models.Gaussian):
    """A distribution whose Fisher information has lost an axis."""

    def fisher(self, tangent):
        return Shrunk(tangent.mean[0], tangent.log_std[0])


class Unknown:
    """A distribution that is no pytree."""

    sample = log_prob = kl = fisher = print


class OfOneState(models.Gaussian):
    """A distribution that adds log-probabilities up over all but the first axis."""

    def log_prob(self, actions):
        return super().log_prob(actions).reshape(len(actions), -1).sum(1)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda x: x, "lacks sample, log_prob, kl, fisher"),
        (
            lambda x: Halved(x, x),
            r"policy: sample .* \(5, 2\) for .*; got float32 of shape \(5, 1\)",
        ),
        (lambda x: Summed(x, x), r"policy: log_prob .* shape \(5,\) .*; got float32 of shape \(\)"),
        (lambda x: Counted(x, x), r"policy: log_prob .* must return floats .*; got int32"),
        (lambda x: Shrunk(x, x), r"policy: fisher .* arrays of the same shapes; got Shrunk"),
        (lambda x: Unknown(), "a pytree of arrays; Unknown is not known to jax"),
    ],
)
def test_policies_that_are_none_are_explained(output, message):
    with pytest.raises(ArgumentError, match=message):
        rl.rollout(still(), lambda params, x: output(x), (), (), KEY, episodes=5, horizon=2)


def test_a_policy_must_take_whole_episodes_to_be_trained():
    sizes = {"episodes": 5, "horizon": 3}
    single = lambda params, x: OfOneState(x, x)  # noqa: E731
    rl.rollout(still(), single, (), (), KEY, **sizes)
    draw = rl.on_policy(still(), single, **sizes)(None, KEY).query.draw
    message = r"policy: log_prob .* shape \(5, 3\) .*; got float32 of shape \(5,\)"
    with pytest.raises(ArgumentError, match=message):
        draw((), KEY)


def test_a_family_that_does_not_draw_its_tasks_is_refused():
    rng = np.random.default_rng(0)
    env = still()._replace(sample_task=lambda key: rng.normal(size=2))
    sampler = rl.on_policy(env, POLICY.apply, episodes=2, horizon=2)
    with pytest.raises(ArgumentError, match=r"env.sample_task must draw from its key.*\(\)"):
        sampler(PARAMS, KEY)


@pytest.mark.parametrize(
    "options", [{"discount": 1.5}, {"gae_lambda": -1}, {"horizon": 0}], ids=str
)
def test_samplers_check_their_numbers(options):
    sizes = {"episodes": 2, "horizon": 2} | options
    with pytest.raises(ArgumentError, match=next(iter(options))):
        rl.on_policy(rl.navigation(), POLICY.apply, **sizes)


def test_an_environment_is_not_traced_for_each_rollout():
    traced = []

    def step(task, state, action):
        traced.append(action)
        return state._replace(reward=jnp.sum(action))

    env = still()._replace(step=step)

    def two(key):
        for part in jax.random.split(key):
            rl.rollout(env, POLICY.apply, PARAMS, (), part, episodes=2, horizon=3)

    for seed in range(2):
        jax.jit(jax.vmap(two))(jax.random.split(jax.random.key(seed), 2))
    # Where its shapes are looked at, and where it is used; jax 0.12 keeps the first for both.
    assert 1 <= len(traced) <= 2


def test_tasks_that_were_not_recorded_cannot_train():
    sampler = rl.on_policy(rl.navigation(), POLICY.apply, episodes=2, horizon=2)
    with pytest.raises(ArgumentError, match=r"yet to be drawn.*mamljax\.rl\.recorded"):
        sample_tasks(sampler, PARAMS, KEY, 2)


def negative(broken_from):
    """Every step costs 1; episodes whose number from `broken_from` on is 1 begin with NaN."""

    def reset(task, key):
        bad = jax.random.uniform(key) < broken_from
        return EnvState((), jnp.where(bad, jnp.nan, jnp.ones(2)), 0.0, False)

    def step(task, state, action):
        return EnvState((), state.observation + 0.0 * action, -1.0, False)

    return Env(lambda key: (), reset, step, 2, 2)


def test_episodes_that_begin_broken_reach_nothing(recorded_of):
    found = navigate(negative(0.5), (), horizon=4, episodes=40)
    assert 5 < found.broken.sum() < 35
    np.testing.assert_array_equal(found.valid.sum(1), np.where(found.broken, 0, 4))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    learner, params, tasks = recorded_of(env=negative(0.5), episodes=10, horizon=3)
    assert tasks.query.targets.broken.any()
    gradient, metrics = jax.jit(learner.meta_gradient)(params, tasks, KEY)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((gradient, metrics.loss)))


def test_a_broken_policy_does_not_score_best():
    learner = rl.maml(POLICY)
    sampler = rl.on_policy(negative(-1.0), learner.predict, episodes=3, horizon=4)
    options = {"num_tasks": 3, "num_steps": 1, "metric": rl.losses.mean_return}
    good = evaluate(learner, PARAMS, sampler, KEY, **options)
    np.testing.assert_allclose(good.mean, -4.0)
    nowhere = jax.tree.map(lambda x: x * jnp.nan, PARAMS)
    bad = evaluate(learner, nowhere, sampler, KEY, **options)
    assert (good.num_diverged, bad.num_diverged) == (0, 3)
    assert np.isnan(bad.mean).all()


def test_broken_episodes_are_counted_beside_the_return():
    learner = rl.maml(POLICY)
    sampler = rl.on_policy(negative(0.3), learner.predict, episodes=20, horizon=4)
    info = {"broken": rl.losses.broken_episodes, "return": rl.losses.mean_return}
    found = evaluate(
        learner, PARAMS, sampler, KEY, num_tasks=6, num_steps=1,
        metric=rl.losses.mean_return, info=info,
    )  # fmt: skip
    assert found.info["broken"].shape == found.values.shape == (6, 2)
    assert 1 < found.info["broken"].mean() < 12
    # Each episode that is not broken earns -4, a broken one nothing: the return tells the number.
    np.testing.assert_allclose(found.values, -4 * (1 - found.info["broken"] / 20), rtol=1e-6)
    np.testing.assert_array_equal(found.info["return"], found.values)


def test_the_share_of_clipped_actions_is_told():
    env = rl.navigation()._replace(action_limit=1.0)
    policy = models.gaussian_policy(2, hidden=(4,), init_std=1.0)
    params = policy.init(jax.random.key(0), jnp.zeros((1, 2)))
    task, sizes = env.sample_task(jax.random.key(1)), {"episodes": 50, "horizon": 40}
    found = rl.rollout(env, policy.apply, params, task, jax.random.key(2), **sizes)
    counts = np.asarray(found.valid)[..., None] * (np.abs(found.actions) > 1.0)
    expected = counts.sum((1, 2)) / (2 * np.asarray(found.valid).sum(1))
    np.testing.assert_allclose(found.clipped, expected, rtol=1e-5)
    assert 0.25 < np.mean(found.clipped) < 0.4  # of a standard normal: 0.32
    without = env._replace(action_limit=None)
    assert not rl.rollout(
        without, policy.apply, params, task, jax.random.key(2), **sizes
    ).clipped.any()
