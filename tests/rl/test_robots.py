"""Brax environments as task families: rewards as in the paper, and the contract of `Env`."""

import functools
import types
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mamljax.rl import brax_env, robots
from mamljax.rl.brax_env import brax_environment, from_brax, quietly

TASKS, EPISODES, STEPS = 2, 3, 5
ROBOTS = {"cheetah": "cheetah_velocity", "ant": "ant_goal"}  # whose physics the tests compile
SIZES = {
    "cheetah_velocity": (17, 6),
    "cheetah_direction": (17, 6),
    "ant_velocity": (27, 8),
    "ant_direction": (27, 8),
    "ant_goal": (29, 8),
}


def draw_actions(env):
    """Larger than 1 at times: environments must clip."""
    shape = (TASKS, EPISODES, STEPS, env.action_size)
    return 2.0 * jax.random.normal(jax.random.key(5), shape)


def roll(env):
    """A function of tasks [T], keys [T, E] and actions [T, E, H, A]: states [T, E, H + 1]."""

    def episode(task, key, actions):
        def step(state, action):
            state = env.step(task, state, action)
            return state, state

        start = env.reset(task, key)
        rest = jax.lax.scan(step, start, actions)[1]
        return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), start, rest)

    return jax.jit(jax.vmap(jax.vmap(episode, (None, 0, 0))))


class Run(NamedTuple):
    env: object
    roll: object
    tasks: object
    keys: jax.Array
    actions: jax.Array
    states: object


def run(env):
    tasks = jax.vmap(env.sample_task)(jax.random.split(jax.random.key(1), TASKS))
    keys = jax.random.split(jax.random.key(2), (TASKS, EPISODES))
    actions, rolled = draw_actions(env), roll(env)
    return Run(env, rolled, tasks, keys, actions, rolled(tasks, keys, actions))


@functools.cache
def run_of(robot):
    return run(robots.locomotion(ROBOTS[robot]))


def replay(before, after):
    """A Brax environment that only knows one step: it goes from one state to the other."""
    return types.SimpleNamespace(
        reset=lambda key: before, step=lambda state, action: after, action_size=1
    )


def recorded_step(robot, name, monkeypatch):
    """The first step of the first episode as another family of the same robot sees it."""
    first = jax.tree.map(lambda leaf: leaf[0, 0, :2], run_of(robot).states.physics)
    before, after = (jax.tree.map(lambda leaf, t=t: leaf[t], first) for t in (0, 1))

    def step(task, action, change=lambda state: state):
        environment = replay(before, change(after))
        monkeypatch.setattr(robots, "robot", lambda *args, **options: environment)
        env = robots.locomotion(name)
        return env.step(task, env.reset(task, jax.random.key(0)), action)

    return step, before.pipeline_state.x.pos[0], after.pipeline_state.x.pos[0]


def expected_reward(name, task, before, after, action):
    """The formulas of the paper's code from positions of the torso, a step apart; axes lead."""
    velocity = (after[..., 0] - before[..., 0]) / (0.01 if name.startswith("cheetah") else 0.02)
    action = np.clip(action, -1, 1)
    reward = -(0.05 if name.startswith("cheetah") else 0.005) * np.sum(action**2, -1)
    match name:
        case "cheetah_velocity":
            return reward - abs(velocity - task.velocity)
        case "cheetah_direction":
            return reward + task.direction * velocity
        case "ant_velocity":
            return reward - abs(velocity - task.velocity) + 1 + 0.05
        case "ant_direction":
            return reward + task.direction * velocity + 0.05
        case "ant_goal":
            distance = np.sum(abs(after[..., :2] - task.position), -1)
            return reward - distance + 4 + 0.05


@pytest.mark.parametrize("robot", ROBOTS)
def test_rewards_follow_from_the_motion(robot):
    env, _, tasks, _, actions, states = jax.device_get(run_of(robot))
    torso = states.physics.pipeline_state.x.pos[..., 0, :]
    tasks = jax.tree.map(lambda leaf: leaf[:, None, None], tasks)
    expected = expected_reward(
        ROBOTS[robot], tasks, torso[:, :, :-1], torso[:, :, 1:], np.array(actions)
    )
    assert np.abs(actions).max() > 1
    np.testing.assert_allclose(states.reward[:, :, 1:], expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(states.reward[:, :, 0], 0)
    assert states.observation.shape == (TASKS, EPISODES, STEPS + 1, env.observation_size)
    assert states.done.dtype == bool
    assert not states.done.any()


@pytest.mark.parametrize("name", robots.LOCOMOTION)
def test_every_family_rewards_by_its_formula(name, monkeypatch):
    step, before, after = recorded_step(name.split("_")[0], name, monkeypatch)
    sample_task = robots.FAMILIES[name].sample_task
    action = np.linspace(-3, 1, 8 if name.startswith("ant") else 6)
    for seed in range(3):
        task = sample_task(jax.random.key(seed))
        expected = expected_reward(name, task, np.array(before), np.array(after), action)
        np.testing.assert_allclose(step(task, action).reward, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", robots.LOCOMOTION)
def test_task_distributions(name):
    keys = jax.random.split(jax.random.key(0), 2000)
    tasks = jax.vmap(robots.FAMILIES[name].sample_task)(keys)
    (values,) = jax.tree.leaves(tasks)
    assert values.dtype == jnp.float32
    if name.endswith("direction"):
        assert set(values.tolist()) == {-1.0, 1.0}
        assert abs(values.mean()) < 0.1
        taken = [robots.directions(keys[0], place=place).direction for place in (7, 8, 9, 10)]
        assert taken == [-1.0, 1.0, -1.0, 1.0]  # in turn, where several are drawn together
        return
    low, high = {"cheetah_velocity": (0, 2), "ant_velocity": (0, 3), "ant_goal": (-3, 3)}[name]
    assert values.shape == ((2000, 2) if name == "ant_goal" else (2000,))
    assert low <= values.min() < values.max() <= high
    np.testing.assert_allclose(values.mean(), (low + high) / 2, atol=0.15)
    np.testing.assert_allclose(values.std(), (high - low) / 12**0.5, atol=0.1)


@pytest.mark.parametrize("name", robots.LOCOMOTION)
def test_sizes(name):
    env = robots.locomotion(name)
    assert (env.observation_size, env.action_size) == SIZES[name]


@pytest.mark.parametrize(
    ("height", "ends"), [(0.19, True), (0.21, False), (0.99, False), (1.01, True), (np.nan, True)]
)
def test_ant_ends_where_its_torso_leaves_the_allowed_heights(height, ends, monkeypatch):
    step, _, _ = recorded_step("ant", "ant_direction", monkeypatch)

    def lift(state):
        pipeline = state.pipeline_state
        x = pipeline.x.replace(pos=pipeline.x.pos.at[0, 2].set(height))
        return state.replace(pipeline_state=pipeline.replace(x=x))

    end = step(robots.Direction(jnp.ones(())), jnp.zeros(8), lift)
    assert end.done.dtype == bool
    assert bool(end.done) == ends


def test_same_keys_same_numbers_other_keys_others():
    _, rolled, tasks, keys, actions, states = run_of("ant")
    again = rolled(tasks, keys, actions)
    jax.tree.map(np.testing.assert_array_equal, again, states)
    others = rolled(tasks, keys[::-1], actions)
    assert not np.allclose(others.observation, states.observation)


def test_ant_goal_sees_where_the_torso_is():
    states = run_of("ant").states
    torso = states.physics.pipeline_state.x.pos[..., 0, :2]
    np.testing.assert_allclose(states.observation[..., :2], torso, atol=1e-4)


@pytest.mark.parametrize("robot", ROBOTS)
def test_diverged_physics_shows_in_the_observation(robot):
    _, rolled, tasks, keys, actions, _ = run_of(robot)
    states = rolled(tasks, keys, actions.at[0, 0, 1].set(jnp.nan))
    finite = np.isfinite(states.observation).all(-1)
    assert not finite[0, 0, 2:].any()
    finite[0, 0, 2:] = True
    assert finite.all()
    assert np.array(states.done)[0, 0, 2:].all() == (robot == "ant")


class Place(NamedTuple):
    position: jax.Array


def test_an_environment_of_ones_own_is_a_family_in_ten_lines():
    env = from_brax(
        brax_environment("fast"),
        sample_task=lambda key: Place(jax.random.uniform(key, minval=-1.0)),
        reward=lambda state, action, task: -jnp.abs(state.obs[0] - task.position),
        done=lambda state, action, task: state.obs[1] > 0.05,
    )
    _, rolled, tasks, keys, actions, states = run(env)
    assert (env.observation_size, env.action_size) == (2, 1)
    place, speed = np.moveaxis(np.array(states.observation), -1, 0)
    expected = -abs(place[:, :, 1:] - tasks.position[:, None, None])
    np.testing.assert_allclose(states.reward[:, :, 1:], expected, rtol=1e-6)
    np.testing.assert_array_equal(states.done, speed > 0.05)
    assert 0 < states.done.sum() < states.done.size
    # An episode does not depend on those it is mapped with.
    last = jax.tree.map(lambda leaf: leaf[-1:], (tasks, keys[:, -1:], actions[:, -1:]))
    alone = rolled(*last)
    np.testing.assert_allclose(alone.observation[0, 0], states.observation[-1, -1], rtol=1e-6)


def types_of(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type), tree)


@pytest.mark.parametrize(
    ("name", "backend"),
    [("inverted_pendulum", "spring"), ("fast", "spring")]
    + [
        pytest.param("ant", backend, marks=pytest.mark.slow)
        for backend in ("generalized", "mjx", "positional")
    ],
)
def test_a_step_keeps_structure_and_types(name, backend):
    env = from_brax(
        brax_environment(name, backend=backend),
        sample_task=lambda key: (),
        reward=lambda state, action, task: 1,
        done=lambda state, action, task: jnp.sum(state.obs),
    )
    start = jax.eval_shape(functools.partial(env.reset, ()), jax.random.key(0))
    after = jax.eval_shape(functools.partial(env.step, ()), start, jnp.zeros(env.action_size))
    assert types_of(start) == types_of(after)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(start))
    assert after.done.dtype == bool
    assert after.reward.dtype == jnp.float32


def counter():
    """An environment that writes into the state it is given, as Brax's do."""
    with quietly():
        from brax.envs import State

    def step(state, action):
        state.metrics.update(count=state.metrics["count"] + 1)
        state.info["last"] = action[0]
        return state.replace(obs=state.obs + action, done=1.0)

    return types.SimpleNamespace(
        reset=lambda key: State(
            None, jnp.zeros(2), 0.0, 0.0, {"count": jnp.zeros(())}, {"last": jnp.zeros(())}
        ),
        step=step,
        action_size=2,
    )


def family(environment, reward=lambda state, action, task: 0.0, **options):
    return from_brax(environment, sample_task=lambda key: (), reward=reward, **options)


def test_a_step_leaves_the_state_before_as_it_was():
    env = family(counter(), lambda state, action, task: state.metrics["count"])
    start = env.reset((), jax.random.key(0))
    after = env.step((), start, jnp.array([3.0, -0.5]))
    assert (start.physics.metrics["count"], start.physics.info["last"]) == (0, 0)
    assert (after.physics.metrics["count"], after.physics.info["last"]) == (1, 1)
    assert after.reward == 1
    assert bool(after.done)  # Brax's own end, as no other was given
    np.testing.assert_array_equal(after.observation, [1, -0.5])


def test_what_is_not_a_scalar_is_refused():
    with pytest.raises(ValueError, match=r"reward must return a scalar; got shape \(2,\)"):
        step_once(family(counter(), lambda state, action, task: action))
    with pytest.raises(ValueError, match=r"done must return a scalar; got shape \(2,\)"):
        step_once(family(counter(), done=lambda state, action, task: action > 0))
    with pytest.raises(TypeError, match=r"reward must be a function \(state, action, task\)"):
        family(counter(), reward=1.0)


def step_once(env):
    return env.step((), env.reset((), jax.random.key(0)), jnp.zeros(env.action_size))


def test_an_observation_must_be_one_vector():
    with pytest.raises(ValueError, match="observation must be one vector"):
        family(brax_environment("fast", obs_mode="dict_state"))


def test_unknown_names_are_refused_with_a_hint():
    with pytest.raises(ValueError, match=r"name must be one of .* Did you mean 'ant_goal'"):
        robots.locomotion("ant_gaol")
    with pytest.raises(ValueError, match=r"backend must be one of .* Did you mean 'spring'"):
        robots.locomotion("ant_goal", backend="sprnig")
    with pytest.raises(ValueError, match=r"name must be one of .* Did you mean 'halfcheetah'"):
        brax_environment("half_cheetah")


def test_only_standing_messages_are_silenced(capfd, tmp_path, monkeypatch):
    import mujoco

    monkeypatch.chdir(tmp_path)
    brax_environment("halfcheetah")
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())  # MuJoCo would have left a log
    with pytest.warns(UserWarning, match="MuJoCo: of some other kind"), quietly():
        mujoco.get_mju_user_warning()("of some other kind")
    with pytest.warns(UserWarning, match="anything else"), quietly():
        warnings.warn("anything else", stacklevel=1)
    with brax_env._printing_without(("hidden",)):
        print("hidden line\nshown line")
    assert capfd.readouterr().out == "shown line\n"


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["generalized", "mjx", "positional"])
def test_other_backends_roll_out(backend):
    rolled = run(robots.locomotion("ant_velocity", backend=backend))
    assert np.isfinite(rolled.states.observation).all()
    assert np.isfinite(rolled.states.reward).all()


@pytest.mark.parametrize(
    ("name", "dt", "expected", "frames"),
    [
        ("cheetah_direction", None, 0.01, 4),
        ("ant_direction", None, 0.02, 4),
        ("cheetah_direction", 0.05, 0.05, 16),  # Brax's own
        ("ant_direction", 0.05, 0.05, 10),
        ("ant_direction", 0.001, 0.001, 1),
    ],
)
def test_the_clock_is_exact(name, dt, expected, frames):
    environment = robots.robot(name, dt=dt)
    assert float(environment.dt) == pytest.approx(expected, rel=1e-6)
    assert environment._n_frames == frames
    body = robots.FAMILIES[name].body
    assert float(environment.sys.opt.timestep) <= body.timestep["spring"] * (1 + 1e-6)


def test_the_cheetah_has_the_gears_of_rllab():
    gear = robots.robot("cheetah_velocity").sys.actuator.gear
    np.testing.assert_array_equal(gear, [120, 90, 60, 120, 60, 30])


@pytest.mark.parametrize(("name", "height"), [("ant_direction", 0.55), ("cheetah_direction", None)])
def test_episodes_start_as_in_rllab(name, height):
    environment = robots.robot(name, start_noise=0.02)
    with quietly(), jax.numpy_rank_promotion("allow"):
        keys = jax.random.split(jax.random.key(0), 500)
        q, qd = jax.jit(
            jax.vmap(lambda key: (lambda s: (s.q, s.qd))(
                environment.reset(jax.random.key_data(key)).pipeline_state
            ))
        )(keys)  # fmt: skip
    pose = np.array(environment.sys.init_q)
    if height is not None:
        pose[2] = height
    np.testing.assert_allclose(np.mean(q, 0), pose, atol=0.005)
    np.testing.assert_allclose(np.std(q, 0), 0.02, rtol=0.15)
    np.testing.assert_allclose(np.std(qd, 0), 0.1, rtol=0.15)


@pytest.mark.parametrize("options", [{"dt": 0.0}, {"start_noise": -1.0}, {"action_scale": 0.0}])
def test_the_clock_and_the_noise_are_checked(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"{name} must be"):
        robots.locomotion("cheetah_direction", **options)


def test_actions_are_scaled_before_they_are_clipped():
    seen = []

    class State(NamedTuple):
        obs: jax.Array
        done: jax.Array

    def step(state, action):
        seen.append(action)
        return state

    start = State(jnp.zeros(1), jnp.zeros(()))
    environment = types.SimpleNamespace(reset=lambda key: start, step=step, action_size=2)
    env = from_brax(
        environment,
        sample_task=lambda key: (),
        reward=lambda state, action, task: jnp.sum(action),
        action_scale=0.25,
    )
    after = env.step((), env.reset((), jax.random.key(0)), jnp.array([2.0, -8.0]))
    np.testing.assert_array_equal(seen[0], [0.5, -1.0])
    assert float(after.reward) == -0.5
    assert env.action_limit == 4.0
